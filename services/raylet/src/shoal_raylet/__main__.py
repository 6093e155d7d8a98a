"""``python -m shoal_raylet``: a raylet of its own, on the GCS's event bus."""

from __future__ import annotations

import sys

from shoal_common.bus.gcs import GcsBus
from shoal_common.grpc_channel import aio_channel
from shoal_common.lifecycle import main as run_main
from shoal_raylet.app import RayletApp
from shoal_raylet.config import RayletConfig


class StandaloneRaylet(RayletApp):
    """A raylet that also owns its connection to the event bus."""

    def __init__(self, config: RayletConfig) -> None:
        self._bus_channel = aio_channel(config.gcs_address, config.token)
        self._gcs_bus = GcsBus(self._bus_channel)
        super().__init__(config, self._gcs_bus)

    async def stop(self) -> None:
        await super().stop()
        await self._gcs_bus.close()
        await self._bus_channel.close()


def main() -> int:
    return run_main(RayletConfig, StandaloneRaylet)


if __name__ == "__main__":
    sys.exit(main())
