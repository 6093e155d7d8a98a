"""Rows of one kind, read when somebody asks, once for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from shoal_common.errors import Unavailable
from shoal_dashboard.cluster.pace import Pace

#: What was read before is good for so long for those who do not wait for a new reading, in seconds.
KEPT_S = 60.0

T = TypeVar("T")


class Listing(Generic[T]):
    """Belongs to one event loop. One reading is under way at a time, and one waits at most."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        """``read`` has a deadline, and raises service errors."""
        self._read = read
        self._pace = Pace()
        self._under_way: asyncio.Task[T] | None = None
        #: It has not begun to read: whoever asks now shares what it will.
        self._waiting: asyncio.Task[T] | None = None
        #: When the last reading began, and what it has read.
        self._last: tuple[float, T] | None = None

    async def rows(self) -> T:
        """As they are after the question, never before: whoever has just changed something finds it. Raises: what
        ``read`` does."""
        # A client that hangs up does not end it for the others.
        return await asyncio.shield(self._asked())

    async def recent(self, patience_s: float) -> T:
        """As they are now, if that is read within ``patience_s``; else as they were when they were read last, within
        ``KEPT_S``, while they are read anew for whoever comes next. Raises: what ``read`` does."""
        reading, kept = self._asked(), self._last
        if kept is not None and kept[0] > asyncio.get_running_loop().time() - KEPT_S:
            await asyncio.wait({reading}, timeout=patience_s)
            if not reading.done():
                return kept[1]
        return await asyncio.shield(reading)

    async def close(self) -> None:
        tasks = {task for task in (self._under_way, self._waiting) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _asked(self) -> asyncio.Task[T]:
        """The reading that has not begun yet."""
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._next(self._under_way))
            self._waiting.add_done_callback(_looked_at)
        return self._waiting

    async def _next(self, before: asyncio.Task[T] | None) -> T:
        clock = asyncio.get_running_loop().time
        if before is not None:
            await asyncio.wait({before})
        await asyncio.sleep(self._pace.pause(clock()))
        self._under_way, self._waiting = self._waiting, None
        began = clock()
        try:
            read = await self._read()
        except Unavailable:
            began = clock()  # nobody was there whom it has cost anything
            raise
        else:
            self._last = began, read
            return read
        finally:
            self._pace.answered(began, clock())


def _looked_at(reading: asyncio.Task[T]) -> None:
    """Its error is for those who wait, who may all have given up."""
    if not reading.cancelled():
        reading.exception()
