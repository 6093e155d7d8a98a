"""Where the ranks of a group meet: an actor that hands on what each gives to the others."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

#: What may be sent from one rank to another before it is received.
_UNRECEIVED = 16


class _Round:
    """One operation of all ranks."""

    def __init__(self) -> None:
        self.given: dict[int, list[Any]] = {}
        self.complete = asyncio.Event()
        self.answered = 0


class Meeting:
    """An async actor. What waits in it longer than ``timeout_s`` raises TimeoutError, which says for whom."""

    def __init__(self, world_size: int, timeout_s: float) -> None:
        self._world_size = world_size
        self._timeout_s = timeout_s
        self._joined: set[int] = set()
        self._left = 0
        self._complete = asyncio.Event()
        self._rounds: defaultdict[int, _Round] = defaultdict(_Round)
        self._mail: defaultdict[tuple[int, int], asyncio.Queue[Any]] = defaultdict(lambda: asyncio.Queue(_UNRECEIVED))

    async def join(self, rank: int, world_size: int) -> bool:
        """Returns when all have; False when this meeting is over, and another one must be made.

        Raises: ValueError for a rank that has joined, or a group of another size; TimeoutError.
        """
        if self._left:
            return False
        if world_size != self._world_size:
            raise ValueError(f"the group has {self._world_size} ranks, not {world_size}")
        if rank in self._joined:
            raise ValueError(f"rank {rank} has joined the group already")
        self._joined.add(rank)
        if len(self._joined) == world_size:
            self._complete.set()
        try:
            await self._waited(self._complete.wait(), "join")
        except TimeoutError:
            absent = sorted({*range(world_size)} - self._joined)
            self._joined.discard(rank)
            raise TimeoutError(f"ranks {absent} did not join within {self._timeout_s:g} s") from None
        return True

    async def leave(self) -> bool:
        """Whether all have left."""
        self._left += 1
        return self._left == self._world_size

    async def exchange(self, number: int, rank: int, given: list[Any]) -> list[Any]:
        """``given``: for each rank; returns what each has given to this one."""
        meeting = self._rounds[number]
        meeting.given[rank] = given
        if len(meeting.given) == self._world_size:
            meeting.complete.set()
        try:
            await self._waited(meeting.complete.wait(), "come")
        except TimeoutError:
            absent = sorted({*range(self._world_size)} - meeting.given.keys())
            raise TimeoutError(
                f"ranks {absent} did not come to operation {number} of the group within {self._timeout_s:g} s"
            ) from None
        received = [meeting.given[source][rank] for source in range(self._world_size)]
        meeting.answered += 1
        if meeting.answered == self._world_size:
            del self._rounds[number]
        return received

    async def send(self, source: int, target: int, item: list[Any]) -> None:
        """Returns when there is room for it."""
        await self._waited(self._mail[source, target].put(item), f"rank {target} received nothing from rank {source}")

    async def receive(self, source: int, target: int) -> list[Any]:
        item: list[Any] = await self._waited(
            self._mail[source, target].get(), f"rank {source} sent nothing to rank {target}"
        )
        return item

    async def _waited(self, wait: Any, otherwise: str) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await wait
        except TimeoutError:
            raise TimeoutError(f"{otherwise} within {self._timeout_s:g} s") from None
