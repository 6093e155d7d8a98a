"""What the GCS tells on the event bus, in order and without making anybody wait."""

from __future__ import annotations

from collections import deque

import structlog

from shoal_common.bus import EventBus, EventBusError
from shoal_common.service.background import Background

#: Events that wait for a slow bus at most; later ones are lost, as events are hints.
MAX_QUEUED = 10_000

_log = structlog.get_logger()


class EventPublisher:
    def __init__(self, bus: EventBus, background: Background) -> None:
        self._bus = bus
        self._background = background
        self._events: deque[tuple[str, bytes]] = deque()
        self._publishing = False

    def publish(self, subject: str, data: bytes) -> None:
        if len(self._events) >= MAX_QUEUED:
            return
        self._events.append((subject, data))
        if not self._publishing:
            self._publishing = True
            self._background.spawn(self._publish_all())

    async def _publish_all(self) -> None:
        try:
            while self._events:
                subject, data = self._events.popleft()
                try:
                    await self._bus.publish(subject, data)
                except EventBusError as error:
                    _log.warning("event_lost", subject=subject, error=str(error))
        finally:
            self._publishing = False
