"""Publishes this node's reports and its load (``node_events``) for as long as somebody says that it listens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import msgspec
import structlog

from shoal_common.bus import EventBus, EventBusError, Subscription, subjects
from shoal_common.events.node_events import DEAF_AFTER_S, LOAD_S, NodeLoad, decode_listening, encode
from shoal_common.events.task_events import INTERVAL_S
from shoal_common.service.background import Background
from shoal_raylet.cluster.node_events import NodeEvents

log = structlog.get_logger(__name__)

#: In one interval, so that a backlog does not hold up what else is on the bus.
MAX_PUBLISHED_BYTES = 4 * 1024 * 1024
#: What was published so many seconds ago and has not come is published again.
_AGAIN_AFTER_S = 4.0
_SUBSCRIBE_AGAIN_S = 2.0


class EventPublisher:
    """Belongs to one event loop."""

    def __init__(
        self,
        bus: EventBus,
        cluster_id: str,
        node_id: bytes,
        incarnation: int,
        events: NodeEvents,
        look: Callable[[], None],
        load: Callable[[], NodeLoad],
    ) -> None:
        """``look``: called before each report; sees to it that ``events`` has what is worth telling. ``load``: as it is
        now."""
        self._load = load
        self._load_subject = subjects.load(cluster_id, node_id)
        self._load_at = float("-inf")
        self._look = look
        self._bus = bus
        self._subject = subjects.events(cluster_id, node_id)
        self._news_subject = subjects.happened(cluster_id, node_id)
        self._pattern = subjects.listening(cluster_id)
        self._node_id = node_id
        self._incarnation = incarnation
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._background = Background()
        self._subscription: Subscription | None = None
        self._listened_until = float("-inf")
        #: Number of the next one to be published.
        self._next = 1
        #: Of the last one that was, now and a while ago.
        self._published = 0
        self._mark, self._mark_at = 0, float("-inf")
        #: Somebody waits for what there is.
        self._wanted = asyncio.Event()

    def start(self) -> None:
        self._background.spawn(self._follow())
        self._background.spawn(self._publish_always())

    def flush(self) -> int:
        """Report what there is now, and publish it next. Returns the number of the newest report; 0 = there is none."""
        self._look()
        self._events.report(int(time.time() * 1_000))
        self._wanted.set()
        return self._events.newest

    async def stop(self) -> None:
        await self._background.stop()
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        self._look()
        self._events.report(int(time.time() * 1_000))
        await self._publish()

    def _listened(self, data: bytes) -> None:
        try:
            seen = decode_listening(data).seen.get(self._node_id)
        except msgspec.MsgspecError as error:
            log.warning("listener_not_understood", reason=str(error))
            return
        now = self._loop.time()
        listened = now < self._listened_until
        self._listened_until = now + DEAF_AFTER_S
        if not listened:
            self._wanted.set()
        if seen is None or seen[0] != self._incarnation:
            self._events.tell_all()
            self._next = self._events.oldest
        elif not listened:
            self._next = seen[1] + 1
        elif seen[1] < self._mark:
            self._next = min(self._next, seen[1] + 1)
        if now - self._mark_at >= _AGAIN_AFTER_S:
            self._mark, self._mark_at = self._published, now

    async def _publish_always(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S):
                    await self._wanted.wait()
            self._wanted.clear()
            self._look()
            self._events.report(int(time.time() * 1_000))
            await self._publish_news()
            await self._publish()
            await self._publish_load()

    async def _publish_news(self) -> None:
        with contextlib.suppress(EventBusError):  # for those who look on; reports have it, too
            for event in self._events.news():
                await self._bus.publish(self._news_subject, encode(event))

    async def _publish_load(self) -> None:
        now = self._loop.time()
        if now >= self._listened_until or now < self._load_at:
            return
        self._load_at = now + LOAD_S
        with contextlib.suppress(EventBusError):  # the next one tells as much
            await self._bus.publish(self._load_subject, encode(self._load()))

    async def _publish(self) -> None:
        if self._loop.time() >= self._listened_until:
            return
        self._next = max(self._next, self._events.oldest)
        left = MAX_PUBLISHED_BYTES
        while left > 0 and (report := self._events.get(self._next)) is not None:
            try:
                await self._bus.publish(self._subject, report)
            except EventBusError as error:
                log.info("events_not_published", reason=str(error))  # who lacks them says so
                return
            left -= len(report)
            self._published = max(self._published, self._next)
            self._next += 1

    async def _follow(self) -> None:
        while self._subscription is None:
            try:
                self._subscription = await self._bus.subscribe(self._pattern, lambda _, data: self._listened(data))
            except EventBusError as error:
                log.info("listeners_not_followed", reason=str(error))
                await asyncio.sleep(_SUBSCRIBE_AGAIN_S)
