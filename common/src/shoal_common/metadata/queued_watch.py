"""What a watch of any store has of events that nobody has taken yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from shoal_common.metadata.store import WatchEvent, WatchLagged


class QueuedWatch:
    """The reader's end of a ``Watch``; whoever fills ``_events`` sets ``_arrived``, and bounds them."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._events: deque[WatchEvent] = deque()
        #: Set when there is an event, or something that ends the iteration.
        self._arrived = asyncio.Event()
        #: Set when an event was taken.
        self._room = asyncio.Event()
        #: Events were missed; those in the queue come before that is said.
        self._lagged = False
        self._closed = False

    def __aiter__(self) -> AsyncIterator[WatchEvent]:
        return self

    async def __anext__(self) -> WatchEvent:
        while not self._events:
            if self._closed:
                raise StopAsyncIteration
            if self._lagged:
                raise WatchLagged(self._prefix)
            self._arrived.clear()
            await self._arrived.wait()
        self._room.set()
        return self._events.popleft()
