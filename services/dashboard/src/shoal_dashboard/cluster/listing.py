"""Rows of one kind, read when somebody asks, once for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from shoal_common.errors import Unavailable
from shoal_dashboard.cluster.pace import Pace

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

    async def rows(self) -> T:
        """As they are after the question, never before: whoever has just changed something finds it. Raises: what
        ``read`` does."""
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._next(self._under_way))
            self._waiting.add_done_callback(_looked_at)
        # A client that hangs up does not end it for the others.
        return await asyncio.shield(self._waiting)

    async def close(self) -> None:
        tasks = {task for task in (self._under_way, self._waiting) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _next(self, before: asyncio.Task[T] | None) -> T:
        clock = asyncio.get_running_loop().time
        if before is not None:
            await asyncio.wait({before})
        await asyncio.sleep(self._pace.pause(clock()))
        self._under_way, self._waiting = self._waiting, None
        began = clock()
        try:
            return await self._read()
        except Unavailable:
            began = clock()  # nobody was there whom it has cost anything
            raise
        finally:
            self._pace.answered(began, clock())


def _looked_at(reading: asyncio.Task[T]) -> None:
    """Its error is for those who wait, who may all have given up."""
    if not reading.cancelled():
        reading.exception()
