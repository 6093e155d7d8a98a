"""Listens to the nodes' reports: says so every few seconds, and hands each report over once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog

from shoal_common.bus import EventBus, EventBusError, Handler, Subscription, subjects
from shoal_common.events.node_events import LISTENING_S, NodeReport, decode_report, encode
from shoal_common.service.background import Background
from shoal_dashboard.events.seen import Seen

log = structlog.get_logger(__name__)

#: Reports that wait to be taken; further ones are lost, and come again when they are missed.
MAX_WAITING = 1_000
#: How long it waits before it tries again, in seconds.
_AGAIN_S = 2.0


class Receiver:
    """Belongs to one event loop. Waits for nobody: a bus that is away is tried again and again."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[EventBus]],
        cluster_id: str,
        seen: Seen,
        take: Callable[[list[NodeReport]], Awaitable[None]],
        also: Mapping[str, Handler] | None = None,
    ) -> None:
        """``connect``: makes the bus, which belongs to the receiver then. ``take`` is awaited before more is handed
        over. ``also``: what else is to be heard on that bus, by pattern."""
        self._also = dict(also or {})
        self._connect = connect
        self._cluster_id = cluster_id
        self._seen = seen
        self._take = take
        self._background = Background()
        self._bus: EventBus | None = None
        self._subscriptions: list[Subscription] = []
        self._waiting: list[NodeReport] = []
        self._arrived = asyncio.Event()
        #: Nodes are to be told at once that this listens.
        self._say = asyncio.Event()

    @property
    def listens(self) -> bool:
        """It hears of everything that happens from now on."""
        return len(self._subscriptions) == 1 + len(self._also)

    def start(self) -> None:
        self._background.spawn(self._listen())
        self._background.spawn(self._hand_over())

    def say(self) -> None:
        """That it listens, now: a node has not heard it yet."""
        self._say.set()

    async def stop(self) -> None:
        """What has arrived is handed over first."""
        await self._background.stop()
        for subscription in self._subscriptions:
            await subscription.unsubscribe()
        await self._take_waiting()
        if self._bus is not None:
            await self._bus.close()

    async def _listen(self) -> None:
        while True:
            try:
                if self._bus is None:
                    self._bus = await self._connect()
                patterns = {subjects.all_events(self._cluster_id): self._on_report, **self._also}
                for pattern, handler in list(patterns.items())[len(self._subscriptions) :]:
                    self._subscriptions.append(await self._bus.subscribe(pattern, handler))
                await self._bus.publish(subjects.listening(self._cluster_id), encode(self._seen.listening()))
            except EventBusError as error:
                log.info("nodes_not_heard", reason=str(error))
                await asyncio.sleep(_AGAIN_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LISTENING_S):
                    await self._say.wait()
            self._say.clear()

    def _on_report(self, _subject: str, data: bytes) -> None:
        try:
            report = decode_report(data)
        except msgspec.MsgspecError as error:
            log.warning("report_not_understood", reason=str(error))
            return
        if len(self._waiting) < MAX_WAITING and self._seen.take(report):
            self._waiting.append(report)
            self._arrived.set()

    async def _hand_over(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await self._take_waiting()

    async def _take_waiting(self) -> None:
        reports, self._waiting = self._waiting, []
        if reports:
            await self._take(reports)
