"""Has the garbage of all drivers and workers of the cluster collected when something waits in vain on some node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from shoal_common.bus import EventBus, EventBusError, Subscription, subjects
from shoal_common.service.background import Background

log = structlog.get_logger(__name__)

#: However many nodes ask, the processes of one collect at most this often, in seconds.
LEAST_PAUSE_S = 1.0
_SUBSCRIBE_AGAIN_S = 2.0


class GarbageCalls:
    """Belongs to one event loop."""

    def __init__(self, bus: EventBus, cluster_id: str, node_id: bytes, collect: Callable[[], None]) -> None:
        """``collect`` reaches the processes of this node."""
        self._bus = bus
        self._subject = subjects.garbage(cluster_id, node_id)
        self._pattern = subjects.all_garbage(cluster_id)
        self._collect = collect
        self._loop = asyncio.get_running_loop()
        self._collected_at = float("-inf")
        self._background = Background()
        self._subscription: Subscription | None = None

    def start(self) -> None:
        self._background.spawn(self._follow())

    async def stop(self) -> None:
        await self._background.stop()
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def wanted(self) -> None:
        """Here, and on all other nodes. Best effort: whoever waits says so again."""
        self._collect_here()
        self._background.spawn(self._tell())

    def _collect_here(self) -> None:
        now = self._loop.time()
        if now - self._collected_at >= LEAST_PAUSE_S:
            self._collected_at = now
            self._collect()

    async def _tell(self) -> None:
        try:
            await self._bus.publish(self._subject, b"")
        except EventBusError as error:
            log.info("garbage_call_not_published", reason=str(error))

    async def _follow(self) -> None:
        while self._subscription is None:
            try:
                self._subscription = await self._bus.subscribe(self._pattern, lambda _, __: self._collect_here())
            except EventBusError as error:
                log.info("garbage_calls_not_followed", reason=str(error))
                await asyncio.sleep(_SUBSCRIBE_AGAIN_S)
