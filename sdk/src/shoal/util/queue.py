"""``Queue``: a first-in-first-out queue that tasks, actors and drivers share. It lives in an actor."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable
from typing import Any, cast

import shoal
from shoal._api.actor_handles import ActorHandle
from shoal._values.numbers import plain, seconds


class Empty(queue.Empty):
    """Nothing, or not enough, is in the queue."""


class Full(queue.Full):
    """There is no room in the queue."""


class Queue:
    """Handles are picklable: pass the queue to tasks and actors.

    ``maxsize``: items at most, 0 = no limit. ``actor_options``: of the actor that holds the items, e.g. ``name``.
    Raises: TypeError.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        if not isinstance(plain(maxsize), int):
            raise TypeError(f"maxsize must be an int, not {type(maxsize).__name__}")
        self.maxsize = maxsize
        self.actor: ActorHandle | None = cast(
            ActorHandle, shoal.remote(_QueueActor).options(**(actor_options or {})).remote(plain(maxsize))
        )

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """Items in the queue now."""
        return int(shoal.get(self._actor().qsize.remote()))

    qsize = size

    def empty(self) -> bool:
        return bool(shoal.get(self._actor().empty.remote()))

    def full(self) -> bool:
        return bool(shoal.get(self._actor().full.remote()))

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Append an item; where the queue is full, wait for room, at most ``timeout`` seconds (None = for ever).

        Several producers that wait are served in no particular order.

        Raises: Full (no room in time, or at once when not ``block``), ValueError (negative timeout).
        """
        shoal.get(self._actor().put.remote(item, _seconds(block, timeout)))

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """``put`` for asyncio programs."""
        await self._actor().put.remote(item, _seconds(block, timeout))

    def put_nowait(self, item: Any) -> None:
        """Raises: Full."""
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Append all items, or none of them. Raises: Full (not room for all), TypeError (not iterable)."""
        if not isinstance(items, Iterable):
            raise TypeError("Argument 'items' must be an Iterable")
        shoal.get(self._actor().put_nowait_batch.remote(list(items)))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item; where there is none, wait for one, at most ``timeout`` seconds (None = for ever).

        Raises: Empty (none in time, or at once when not ``block``), ValueError (negative timeout).
        """
        return shoal.get(self._actor().get.remote(_seconds(block, timeout)))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """``get`` for asyncio programs."""
        return await self._actor().get.remote(_seconds(block, timeout))

    def get_nowait(self) -> Any:
        """Raises: Empty."""
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take so many items, or none. Raises: Empty (not enough), TypeError, ValueError (negative number)."""
        num_items = plain(num_items)
        if not isinstance(num_items, int):
            raise TypeError("Argument 'num_items' must be an int")
        if num_items < 0:
            raise ValueError("'num_items' must be nonnegative")
        items: list[Any] = shoal.get(self._actor().get_nowait_batch.remote(num_items))
        return items

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the actor: after the calls that wait, within ``grace_period_s`` seconds; at once with ``force``."""
        if self.actor is None:
            return
        actor, self.actor = self.actor, None
        if not force:
            ended, _ = shoal.wait([actor.__ray_terminate__.remote()], timeout=grace_period_s)
            if ended:
                return
        shoal.kill(actor, no_restart=True)

    def _actor(self) -> ActorHandle:
        if self.actor is None:
            raise RuntimeError("This queue was shut down: create a new one")
        return self.actor


def _seconds(block: bool, timeout: float | None) -> float | None:
    """How long the actor may wait. Raises: ValueError, TypeError."""
    if not block:
        return 0
    if timeout is None:
        return None
    if (given := seconds(timeout)) < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return given


class _QueueActor:
    def __init__(self, maxsize: int) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def qsize(self) -> int:
        return self._queue.qsize()

    async def empty(self) -> bool:
        return self._queue.empty()

    async def full(self) -> bool:
        return self._queue.full()

    async def put(self, item: Any, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._queue.put(item)
        except TimeoutError:
            raise Full from None

    async def get(self, seconds: float | None) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await self._queue.get()
        except TimeoutError:
            raise Empty from None

    async def put_nowait_batch(self, items: list[Any]) -> None:
        if 0 < self._queue.maxsize < self._queue.qsize() + len(items):
            raise Full(
                f"Cannot add {len(items)} items to queue of size {self._queue.qsize()} and maxsize "
                f"{self._queue.maxsize}."
            )
        for item in items:
            self._queue.put_nowait(item)

    async def get_nowait_batch(self, num_items: int) -> list[Any]:
        if num_items > self._queue.qsize():
            raise Empty(f"Cannot get {num_items} items from queue of size {self._queue.qsize()}.")
        return [self._queue.get_nowait() for _ in range(num_items)]
