"""``python -m shoal_head``: the embedded cluster of one driver (see shoal_common.head_launch)."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec

from shoal_common.head_launch import HeadConfig
from shoal_common.surroundings import raise_open_files, take_own_signals


def main() -> None:
    take_own_signals()
    parser = argparse.ArgumentParser(description="The embedded cluster of one driver; started by shoal.init().")
    parser.add_argument("--config-fd", type=int, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    arguments = parser.parse_args()
    with os.fdopen(arguments.config_fd, "rb") as file:
        config = msgspec.json.decode(file.read(), type=HeadConfig)
    ready = os.fdopen(arguments.ready_fd, "wb", closefd=True)

    # Before anything heavy is imported, so that the template warms up at the same time.
    import shoal_common.service.structlog_alone  # noqa: F401
    from shoal_raylet.workers.template_process import TemplateProcess

    template = TemplateProcess.start(Path(config.session_dir) / "logs" / "template.err")

    # Only now: what runs in workers keeps the limit of the program.
    raise_open_files()
    from shoal_head.app import run_head

    sys.exit(run_head(config, template, ready))


if __name__ == "__main__":
    main()
