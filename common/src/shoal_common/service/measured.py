"""Services that say of themselves how they are, and the port on which Prometheus reads it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from shoal_common.rpc.server import join_address
from shoal_common.service.config import ServiceConfig, setting
from shoal_common.service.metrics import Sample, grouped, render
from shoal_common.service.metrics_server import MetricsServer
from shoal_common.service.process_metrics import process_samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredConfig(ServiceConfig):
    """Of a service that serves its metrics on a port of their own."""

    metrics_port: int = setting(
        -1,
        doc="TCP port for GET /metrics, which Prometheus reads; from elsewhere than this machine with the header "
        "Authorization: Bearer <the cluster's token>; 0 takes a free one, -1 = none",
        minimum=-1,
        maximum=65535,
    )


@runtime_checkable
class Measured(Protocol):
    """An app that has something to tell. Called in its event loop; takes no time to speak of."""

    def samples(self) -> Iterable[Sample]: ...


class ServedMetrics:
    """`lifecycle.App`: the metrics of another one, which runs in this process."""

    def __init__(self, config: MeasuredConfig, app: Measured) -> None:
        self._config = config
        self._app = app
        self._started_at = time.time()
        self._server = MetricsServer(config.token, config.tls, self._page)
        self.address = ""

    async def start(self) -> None:
        """Raises: OSError when the port is taken."""
        await self._server.start(self._config.host, self._config.metrics_port)
        self.address = join_address(self._config.host, self._server.port)

    async def stop(self) -> None:
        await self._server.stop()

    def _page(self, openmetrics: bool) -> str:
        samples = [*process_samples(self._started_at), *self._app.samples()]
        return render(grouped(samples), openmetrics=openmetrics)
