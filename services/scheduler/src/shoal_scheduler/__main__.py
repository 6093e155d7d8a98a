"""``python -m shoal_scheduler``: the service as a process of its own, on NATS or fed with events by the GCS."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import shoal_common.service.structlog_alone  # noqa: F401
from shoal_common.bus.connect import connect_bus
from shoal_common.service.config import ConfigError
from shoal_common.service.lifecycle import main
from shoal_common.service.metrics import Sample
from shoal_scheduler.app import SchedulerApp
from shoal_scheduler.config import SchedulerConfig


class StandaloneScheduler:
    """The app, and its connection to the event bus."""

    def __init__(self, config: SchedulerConfig) -> None:
        if not config.gcs_address and not config.nats_address:
            raise ConfigError(
                "--nats-address (or SHOAL_SCHEDULER_NATS_ADDRESS) and --gcs-address (or SHOAL_SCHEDULER_GCS_ADDRESS) "
                "are missing: one of them carries the heartbeats"
            )
        self._config = config
        self.address = ""

    def samples(self) -> Iterator[Sample]:
        return self._app.samples()

    async def start(self) -> None:
        self._bus = await connect_bus(self._config, self._config.gcs_address)
        self._app = SchedulerApp(self._config, self._bus)
        try:
            await self._app.start()
        except BaseException:
            await self._bus.close()
            raise
        self.address = self._app.address

    async def stop(self) -> None:
        await self._app.stop()
        await self._bus.close()


if __name__ == "__main__":
    sys.exit(main(SchedulerConfig, StandaloneScheduler))
