"""``python -m shoal_scheduler``: the service as a process of its own, fed with events by the GCS."""

from __future__ import annotations

import sys

from shoal_common.bus.gcs import GcsBus
from shoal_common.config import ConfigError
from shoal_common.grpc_channel import aio_channel
from shoal_common.lifecycle import main
from shoal_scheduler.app import SchedulerApp
from shoal_scheduler.config import SchedulerConfig


class StandaloneScheduler:
    """The app, and the connection to the GCS that its events come by."""

    def __init__(self, config: SchedulerConfig) -> None:
        if not config.gcs_address:
            raise ConfigError(
                "--gcs-address (or SHOAL_SCHEDULER_GCS_ADDRESS) is missing: the GCS carries the heartbeats"
            )
        self._channel = aio_channel(config.gcs_address, config.token)
        self._bus = GcsBus(self._channel)
        self._app = SchedulerApp(config, self._bus)

    @property
    def address(self) -> str:
        return self._app.address

    async def start(self) -> None:
        try:
            await self._app.start()
        except BaseException:
            await self._disconnect()
            raise

    async def stop(self) -> None:
        await self._app.stop()
        await self._disconnect()

    async def _disconnect(self) -> None:
        await self._bus.close()
        await self._channel.close()


if __name__ == "__main__":
    sys.exit(main(SchedulerConfig, StandaloneScheduler))
