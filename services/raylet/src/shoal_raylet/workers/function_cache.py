"""The node's cache in front of the GCS function table."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

#: Functions kept, in bytes; the one used least recently goes first.
CAPACITY_BYTES = 256 * 1024 * 1024


class FunctionCache:
    """A function under its hash never changes, so a cached one is never out of date."""

    def __init__(self, fetch: Callable[[bytes], Awaitable[bytes]], capacity: int = CAPACITY_BYTES) -> None:
        """``fetch`` asks the GCS; what it raises, ``get`` raises."""
        self._fetch = fetch
        self._capacity = capacity
        self._cached: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0
        self._fetching: dict[bytes, asyncio.Task[bytes]] = {}

    def peek(self, function_id: bytes) -> bytes | None:
        data = self._cached.get(function_id)
        if data is not None:
            self._cached.move_to_end(function_id)
        return data

    async def get(self, function_id: bytes) -> bytes:
        """Processes that ask for the same function at once wait for one fetch."""
        data = self.peek(function_id)
        if data is not None:
            return data
        task = self._fetching.get(function_id)
        if task is None:
            task = self._fetching[function_id] = asyncio.create_task(self._fetch_and_keep(function_id))
        # Shielded: one asker's end must not take the fetch from the others.
        return await asyncio.shield(task)

    async def stop(self) -> None:
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch_and_keep(self, function_id: bytes) -> bytes:
        try:
            data = await self._fetch(function_id)
        finally:
            del self._fetching[function_id]
        if len(data) <= self._capacity:
            self._cached[function_id] = data
            self._size += len(data)
            while self._size > self._capacity:
                self._size -= len(self._cached.popitem(last=False)[1])
        return data
