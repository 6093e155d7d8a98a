"""The scheduler service, assembled."""

from __future__ import annotations

import random
from collections.abc import Iterator

import grpc.aio

from shoal_common.bus import EventBus
from shoal_common.rpc.server import create_server, join_address, serve
from shoal_common.service.metrics import Sample
from shoal_common.service.settings import Settings
from shoal_proto.v1.scheduler_pb2_grpc import add_SchedulerServiceServicer_to_server
from shoal_proto.v1.settings_pb2_grpc import add_SettingsServiceServicer_to_server
from shoal_scheduler.cluster_view import ClusterView
from shoal_scheduler.config import SchedulerConfig
from shoal_scheduler.feed import ViewFeed
from shoal_scheduler.measurements import scheduler_samples
from shoal_scheduler.policies import Placer
from shoal_scheduler.servicer import SchedulerServicer

#: Calls under way have this long to finish when the service stops, in seconds.
STOP_GRACE_S = 1.0


class SchedulerApp:
    """Answers PickNode from what ``bus`` has told it; the bus stays its maker's to close."""

    def __init__(self, config: SchedulerConfig, bus: EventBus) -> None:
        self._config = config
        self._bus = bus
        self._feed: ViewFeed | None = None
        self._server: grpc.aio.Server | None = None
        self._view = ClusterView(config.silent_after_s)
        self._servicer = SchedulerServicer(Placer(self._view, random.Random()))
        self.address = ""

    def samples(self) -> Iterator[Sample]:
        """What Prometheus reads."""
        return scheduler_samples(self._view.known(), self._servicer.placements, self._servicer.infeasible)

    async def start(self) -> None:
        """Raises: EventBusError when the bus does not answer, OSError when the port cannot be bound."""
        feed = ViewFeed(self._bus, self._config.cluster_id, self._view)
        server = create_server(self._config.token)
        add_SettingsServiceServicer_to_server(Settings(self._config), server)
        add_SchedulerServiceServicer_to_server(self._servicer, server)
        try:
            await feed.start()
            port = await serve(server, self._config.host, self._config.port, tls=self._config.tls)
        except BaseException:
            await feed.stop()
            raise
        self._feed, self._server = feed, server
        self.address = join_address(self._config.host, port)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(STOP_GRACE_S)
        if self._feed is not None:
            await self._feed.stop()
        self._server = self._feed = None
