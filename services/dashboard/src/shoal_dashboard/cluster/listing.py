"""Rows of one kind, read when somebody asks, once for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from shoal_dashboard.cluster.freshness import Freshness

T = TypeVar("T")


class Listing(Generic[T]):
    """Belongs to one event loop. Holds the last answer only."""

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        """``read`` has a deadline, and raises service errors."""
        self._read = read
        self._freshness = Freshness()
        self._rows: T | None = None
        self._reading: asyncio.Task[T] | None = None

    async def rows(self) -> T:
        """Raises: what ``read`` does."""
        loop = asyncio.get_running_loop()
        if self._rows is not None and self._freshness.fresh(loop.time()):
            return self._rows
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._again())
        # A client that hangs up does not end it for the others.
        return await asyncio.shield(self._reading)

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _again(self) -> T:
        loop = asyncio.get_running_loop()
        began = loop.time()
        rows = await self._read()
        self._freshness.read(began, loop.time())
        self._rows = rows
        return rows
