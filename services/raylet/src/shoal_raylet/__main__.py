"""``python -m shoal_raylet``: a raylet of its own, on the GCS's event bus."""

from __future__ import annotations

import sys

from shoal_common.bus.gcs import GcsBus
from shoal_common.grpc_channel import aio_channel
from shoal_common.lifecycle import main as run_main
from shoal_raylet.app import RayletApp
from shoal_raylet.config import RayletConfig


def build(config: RayletConfig) -> RayletApp:
    return RayletApp(config, GcsBus(aio_channel(config.gcs_address, config.token)))


def main() -> int:
    return run_main(RayletConfig, build)


if __name__ == "__main__":
    sys.exit(main())
