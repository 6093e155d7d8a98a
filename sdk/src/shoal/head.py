"""``python -m shoal.head``: the embedded cluster of one driver.

One process hosts the GCS, the scheduler, the objectstore service and one raylet in one event loop, on SQLite, the
in-process event bus and a directory. It is the code of the separate services with other adapters. It listens on
loopback only, with a token of its own, and ends with its driver, whatever way that ends.

Started with its configuration on ``--config-fd`` (JSON, read to the end); writes one JSON line to
``--ready-fd``: the addresses, or ``{"error": ...}``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec


class HeadConfig(msgspec.Struct, frozen=True):
    """What ``shoal.init()`` asks for. Amounts are in units and bytes."""

    token: str
    session_name: str
    session_dir: str
    driver_pid: int
    resources: dict[str, float]
    object_store_bytes: int
    labels: dict[str, str] = {}
    spill_dir: str = ""
    #: See shoal._session.arguments.SYSTEM_SETTINGS.
    settings: dict[str, float] = {}
    log_level: str = "warning"

    def __repr__(self) -> str:
        return f"HeadConfig(session_name={self.session_name!r})"  # the token stays out of every message


class HeadReady(msgspec.Struct, frozen=True):
    """Where the services of a started head are, or why there are none."""

    gcs_address: str = ""
    raylet_path: str = ""
    raylet_address: str = ""
    node_id: str = ""
    error: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description="The embedded cluster of one driver; started by shoal.init().")
    parser.add_argument("--config-fd", type=int, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    arguments = parser.parse_args()
    with os.fdopen(arguments.config_fd, "rb") as file:
        config = msgspec.json.decode(file.read(), type=HeadConfig)
    ready = os.fdopen(arguments.ready_fd, "wb", closefd=True)

    # Before anything heavy is imported, so that the template warms up at the same time.
    from shoal_raylet.workers.template_process import TemplateProcess

    template = TemplateProcess.start(Path(config.session_dir) / "logs" / "template.err")

    from shoal._head_app import run_head

    sys.exit(run_head(config, template, ready))


if __name__ == "__main__":
    main()
