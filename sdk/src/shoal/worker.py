"""``python -m shoal.worker``: a worker process of a raylet, started the plain way (see shoal_common.worker_launch)."""

from __future__ import annotations

import argparse
import faulthandler
import os
import signal
import sys
from typing import Any

import msgspec

from shoal import _context, _current
from shoal._executor.appearance import Appearance
from shoal._executor.executor import Executor
from shoal._net import interrupts
from shoal._net.gcs.client import GcsClient
from shoal._owner.core_worker import CoreWorker
from shoal._session import signals
from shoal_common.service.subreaper import become_subreaper
from shoal_common.surroundings import take_own_signals
from shoal_common.tls import Tls
from shoal_common.worker_launch import WorkerConfig


def prepare() -> None:
    """How signals are met; a template's workers inherit it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's
    faulthandler.enable(all_threads=False)


def _breakpoint(*args: Any, **kwargs: Any) -> None:
    """``breakpoint()``. Only who debugs pays for the debugger."""
    from shoal._executor import debugger

    debugger.pause(sys._getframe(1), *args, **kwargs)


def run(config: WorkerConfig) -> None:
    """Be a worker until the process ends, after ``prepare`` here or in the template; does not return."""
    become_subreaper()  # what the user's code leaves behind stays below this worker, and ends with it
    if "OMP_NUM_THREADS" in os.environ and "OMP_NUM_THREADS" not in config.env:
        os.environ["SHOAL_USER_OMP"] = "1"
    for name, value in config.env.items():  # update() is at home in many more pages, which would be this process's own
        os.environ[name] = value
    _context.process.runtime_env = config.runtime_env
    _context.process.import_paths = config.import_paths
    appearance = Appearance()  # streams opened anew: the template's own remember the file that it wrote to
    if "PYTHONBREAKPOINT" not in os.environ:
        sys.breakpointhook = _breakpoint
    tls = Tls.from_environ(os.environ)
    core = CoreWorker(
        role="worker",
        token=config.token,
        job_id=b"\0" * 4,
        worker_id=config.worker_id,
        node_id=config.node_id,
        raylet_path=config.raylet_path,
        gcs=GcsClient(config.gcs_address, config.token, tls),
        socket_path=os.path.join(config.session_dir, "sockets", f"w-{config.worker_id.hex()[:16]}"),
        session_name=config.session_name,
        session_dir=config.session_dir,
        namespace="",
        host=config.host,
        listen_host=config.listen_host,
        tls=tls,
    )
    executor = Executor(core, appearance, config.checkpoint_directory)
    core.serve(executor)
    _current.set_current(core)
    interrupts.set_handler(interrupts.STOP, executor.on_stop_signal)
    signals.install(executor.leaving.on_sigterm)
    core.start()
    appearance.rest()
    executor.run()


def main() -> None:
    take_own_signals()
    parser = argparse.ArgumentParser(description="A worker process; started by a raylet only.")
    parser.add_argument("--config-fd", type=int, required=True)
    arguments = parser.parse_args()
    with os.fdopen(arguments.config_fd, "rb") as file:
        config = msgspec.json.decode(file.read(), type=WorkerConfig)
    prepare()
    run(config)


if __name__ == "__main__":
    main()
