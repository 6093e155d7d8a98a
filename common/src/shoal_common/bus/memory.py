"""``EventBus`` within one process."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from shoal_common.bus.bus import EventBusError, Handler, OnGap
from shoal_common.bus.subjects import check_subject, matcher

#: Events that may wait for one subscriber.
MAX_QUEUED = 10_000
#: Events a subscriber handles before others have their turn in the event loop.
DRAIN_SLICE = 100
#: Seconds between two warnings about the same slow subscriber.
WARN_EVERY_S = 10.0

_log = logging.getLogger(__name__)


class EventQueue:
    """A bounded queue between publishers and one subscriber: what comes when it is full is lost, and said so."""

    def __init__(self, name: str, size: int = MAX_QUEUED) -> None:
        self._name = name
        self._size = size
        self._events: deque[tuple[str, bytes]] = deque()
        self._lost = 0
        self._warn_at = 0.0

    def __len__(self) -> int:
        return len(self._events)

    def push(self, subject: str, data: bytes, now: float) -> bool:
        """False = lost. ``now``: monotonic seconds."""
        if len(self._events) < self._size:
            self._events.append((subject, data))
            return True
        self._lost += 1
        if now >= self._warn_at:
            self._warn_at = now + WARN_EVERY_S
            _log.warning("subscriber of %s is too slow: %d events lost so far", self._name, self._lost)
        return False

    def pop(self) -> tuple[str, bytes]:
        return self._events.popleft()


class MemoryBus:
    """Handlers run from the event loop after ``publish`` has returned, never inside it."""

    def __init__(self) -> None:
        self._subscriptions: dict[_MemorySubscription, None] = {}
        self._closed = False

    async def publish(self, subject: str, data: bytes) -> None:
        if self._closed:
            raise EventBusError(f"cannot publish {subject}: the event bus is closed")
        check_subject(subject)
        now = asyncio.get_running_loop().time()
        for subscription in self._subscriptions:
            if subscription.matches(subject):
                subscription.push(subject, data, now)

    async def subscribe(self, pattern: str, handler: Handler, on_gap: OnGap = lambda: None) -> _MemorySubscription:
        if self._closed:
            raise EventBusError(f"cannot subscribe to {pattern}: the event bus is closed")
        subscription = _MemorySubscription(pattern, handler, self._subscriptions)
        self._subscriptions[subscription] = None
        return subscription

    async def close(self) -> None:
        self._closed = True
        for subscription in list(self._subscriptions):
            await subscription.unsubscribe()


class _MemorySubscription:
    def __init__(self, pattern: str, handler: Handler, registry: dict[_MemorySubscription, None]) -> None:
        self.matches = matcher(pattern)
        self._handler = handler
        self._registry = registry
        self._queue = EventQueue(pattern)
        self._loop = asyncio.get_running_loop()
        self._draining = False
        self._active = True

    def push(self, subject: str, data: bytes, now: float) -> None:
        if self._queue.push(subject, data, now) and not self._draining:
            self._draining = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        for _ in range(min(DRAIN_SLICE, len(self._queue))):
            if not self._active:
                return
            call_handler(self._handler, *self._queue.pop())
        self._draining = bool(self._queue)
        if self._draining:
            self._loop.call_soon(self._drain)

    async def unsubscribe(self) -> None:
        self._active = False
        self._registry.pop(self, None)


def call_handler(handler: Handler, subject: str, data: bytes) -> None:
    try:
        handler(subject, data)
    except Exception:  # the handler is the subscriber's: its mistake must not end the bus for the others
        _log.exception("the handler of an event of %s failed", subject)
