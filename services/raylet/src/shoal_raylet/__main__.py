"""``python -m shoal_raylet``: a raylet of its own, on NATS or the GCS's event bus."""

from __future__ import annotations

import sys

import shoal_common.service.structlog_alone  # noqa: F401

# isort: split
import structlog

from shoal_common.bus.connect import connect_bus
from shoal_common.errors import ServiceError
from shoal_common.service.lifecycle import main as run_main
from shoal_raylet.app import RayletApp
from shoal_raylet.config import RayletConfig

log = structlog.get_logger(__name__)


class StandaloneRaylet:
    """The app, and its connection to the event bus."""

    def __init__(self, config: RayletConfig) -> None:
        self._config = config
        self.address = ""

    async def start(self) -> None:
        self._bus = await connect_bus(self._config, self._config.gcs_address)
        self._app = RayletApp(self._config, self._bus)
        try:
            await self._app.start()
        except BaseException:
            await self._bus.close()
            raise
        self.address = self._app.address

    @property
    def stop_deadline_s(self) -> float:
        return self._app.stop_deadline_s

    async def failed(self) -> str:
        """Returns when it cannot go on, and why. A node that the cluster has given up ends all that it has, and joins
        anew."""
        while True:
            given_up = await self._app.given_up()
            if not given_up.may_rejoin:
                return given_up.reason
            log.error("node_joins_anew", reason=given_up.reason)
            await self._app.stop()
            self._app = RayletApp(self._config, self._bus)
            try:
                await self._app.start()
            except (OSError, ServiceError) as error:
                return f"{given_up.reason}; and it cannot join anew: {error}"
            log.info("node_has_joined_anew", address=self._app.address)

    async def stop(self) -> None:
        """Of ``failed``, which was cancelled, nothing is left: a start ends what it has begun."""
        await self._app.stop()
        await self._bus.close()


def main() -> int:
    return run_main(RayletConfig, StandaloneRaylet)


if __name__ == "__main__":
    sys.exit(main())
