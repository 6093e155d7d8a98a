"""The cluster that ``init`` starts for one driver: its head process."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import msgspec

from shoal._launch.cluster_address import ClusterAddress
from shoal._launch.dashboards import Dashboard
from shoal._launch.directories import driver_lives, new_session_directory, root_directory
from shoal_common.auth import new_token, token_of_environment
from shoal_common.head_launch import HeadConfig, HeadReady
from shoal_common.surroundings import environment, interpreter

logger = logging.getLogger("shoal")

#: Where the services listen.
LOOPBACK = "127.0.0.1"
#: The head must be ready after so many seconds, and gone so many after it was told to end.
START_TIMEOUT_S = 60.0
#: A second or two; many times that where many processes share few cores.
STOP_TIMEOUT_S = 30.0
#: What ``shoal[local]`` installs.
_SERVICES = ("shoal_head", "shoal_gcs", "shoal_scheduler", "shoal_raylet", "shoal_objectstore")


class EmbeddedCluster:
    """One head process and its session directory."""

    def __init__(self, temp_dir: str | None) -> None:
        self.directory = new_session_directory(temp_dir)
        self.session_name = self.directory.name
        for part in ("sockets", "logs"):
            (self.directory / part).mkdir(mode=0o700)
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        *,
        resources: dict[str, float],
        object_store_bytes: int,
        labels: dict[str, str],
        spill_dir: str,
        settings: dict[str, float],
        metrics_port: int = 0,
    ) -> None:
        """Begin to. Raises: RuntimeError when the services are not installed, or cannot reach each other."""
        check_installed()
        _check_loopback()
        config = HeadConfig(
            token=token_of_environment(os.environ) or new_token(),
            session_name=self.session_name,
            session_dir=str(self.directory),
            driver_pid=os.getpid(),
            resources=resources,
            object_store_bytes=object_store_bytes,
            labels=labels,
            spill_dir=spill_dir,
            settings=settings,
            metrics_port=metrics_port,
            log_level=os.environ.get("SHOAL_LOG_LEVEL", "warning"),
        )
        config_read, config_write = os.pipe()
        ready_read, ready_write = os.pipe()
        command = interpreter("shoal_head", "--config-fd", str(config_read), "--ready-fd", str(ready_write))
        try:
            with open(self.directory / "logs" / "head.log", "ab") as log:
                self._process = subprocess.Popen(
                    command,
                    pass_fds=[config_read, ready_write],
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        finally:
            os.close(config_read)
            os.close(ready_write)
        with os.fdopen(config_write, "wb") as file:
            file.write(msgspec.json.encode(config))
        self._token, self._ready = config.token, os.fdopen(ready_read, "rb")

    def await_ready(self) -> ClusterAddress:
        """Raises: RuntimeError when the services do not start: with the end of their log."""
        with self._ready as file:
            readable, _, _ = select.select([file], [], [], START_TIMEOUT_S)
            line = file.readline() if readable else b""
        missing = "it ended without a word" if readable else f"it was not ready after {START_TIMEOUT_S:g} s"
        ready = msgspec.json.decode(line, type=HeadReady) if line else HeadReady(error=missing)
        if ready.error:
            raise RuntimeError(f"The embedded cluster did not start: {ready.error}\n{self._tail_of_log()}")
        address = ClusterAddress(ready.gcs_address, ready.raylet_path, ready.node_id, str(self.directory), self._token)
        with os.fdopen(os.open(self.directory / "cluster.json", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(msgspec.json.encode(address))
        with os.fdopen(os.open(token_file(self.directory), os.O_WRONLY | os.O_CREAT, 0o600), "w") as text:
            text.write(self._token + "\n")
        return address

    @property
    def token_file(self) -> Path:
        """For its user, to log in to the dashboard."""
        return token_file(self.directory)

    def start_dashboard(self, cluster: ClusterAddress, host: str, port: int | None) -> Dashboard:
        """Begin to. Raises: RuntimeError when it is not installed."""
        log = self.directory / "logs" / "dashboard.log"
        return Dashboard(cluster.gcs_address, cluster.token, host, port, self.directory, log)

    def stop(self) -> None:
        """End the head, by force after ``STOP_TIMEOUT_S``, and remove the session's files."""
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                logger.warning("The head (pid %d) did not end in %s s and is killed", process.pid, STOP_TIMEOUT_S)
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _tail_of_log(self) -> str:
        text = (self.directory / "logs" / "head.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-20:])


def check_installed() -> None:
    """Raises: RuntimeError when the services are not."""
    missing = [name for name in _SERVICES if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(
            f"This runs the services on this machine, and {', '.join(missing)} is not installed: "
            "pip install 'shoal[local]', or connect to a cluster with shoal.init(address=...)"
        )


def _check_loopback() -> None:
    """Raises: RuntimeError where the services could not reach each other, and would wait for it for half a minute."""
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=START_TIMEOUT_S).close()
    except OSError as error:
        raise RuntimeError(
            f"The embedded cluster's processes talk over the loopback interface, and {LOOPBACK} cannot be reached: "
            f"{error}. Bring the interface up (ip link set lo up)"
        ) from error


def token_file(session: Path) -> Path:
    """Of a session, by its directory."""
    return session / "auth_token"


def running_clusters() -> list[ClusterAddress]:
    """The embedded clusters of this user on this machine, the last one started first."""
    found = []
    for path in sorted(root_directory().glob("session_*/cluster.json"), key=_age):
        with contextlib.suppress(OSError, msgspec.DecodeError):  # it is just ending
            if driver_lives(path.parent):
                found.append(msgspec.json.decode(path.read_bytes(), type=ClusterAddress))
    return found


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0
