"""Group commit: writes that are asked for at the same time share transactions.

Theory of operation: a write that finds the store idle leaves at the end of this turn of the event loop, together with
all others of the turn. While as many transactions as are allowed are on their way, writes gather, and the next
transaction takes as many of them as it can hold. So an idle store answers a single write at once, and a busy one
pays one consensus round for up to ``MAX_OPERATIONS`` writes.

No two writes of one key are on their way at once: etcd refuses such a transaction, and two transactions may overtake
one another. Later writes of a key wait for the earlier ones, which keeps them in the order in which they were asked.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from shoal_common.metadata.store import MetadataStoreError

#: Writes in one transaction at most. etcd allows 128 operations, and counts the one inside a conditional write too.
MAX_OPERATIONS = 127
#: Bytes in one transaction at most, unless a single write has more; etcd's own limit is 1.5 MiB by default.
MAX_BYTES = 1024 * 1024
#: Transactions on their way to one shard at most.
MAX_IN_FLIGHT = 4
#: Writes that wait for one shard at most; more are refused, the caller is faster than the store.
MAX_PENDING = 100_000

Operation = TypeVar("Operation")
Result = TypeVar("Result")


@dataclass(eq=False, slots=True)
class _Write(Generic[Operation, Result]):
    key: bytes
    operation: Operation
    size: int
    lease_id: int
    outcome: asyncio.Future[Result]


class GroupCommit(Generic[Operation, Result]):
    """``commit`` gets the operations of one transaction and the lease that they all have, and returns their results.

    One lease a transaction, because etcd refuses a transaction as a whole when a lease in it is gone: so that harms
    nobody else. Every other failure of one write must not fail ``commit``.
    """

    def __init__(self, commit: Callable[[list[Operation], int], Awaitable[Sequence[Result]]]) -> None:
        self._commit = commit
        #: Writes whose key is free, the oldest first.
        self._ready: deque[_Write[Operation, Result]] = deque()
        #: Keys that have a write in ``_ready`` or on its way.
        self._busy: set[bytes] = set()
        #: Further writes of busy keys.
        self._followers: dict[bytes, deque[_Write[Operation, Result]]] = {}
        self._pending = 0
        self._in_flight: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def write(self, key: bytes, operation: Operation, size: int, lease_id: int) -> Result:
        """Cancelled before it has left, a write is not made; afterwards it may be. ``size``: its bytes, about.

        Raises: MetadataStoreError when too many wait; what ``commit`` raises.
        """
        if self._pending >= MAX_PENDING:
            raise MetadataStoreError(f"{self._pending} writes wait for one shard of the metadata store: slow down")
        loop = asyncio.get_running_loop()
        write = _Write[Operation, Result](key, operation, size, lease_id, loop.create_future())
        self._pending += 1
        if key in self._busy:
            self._followers.setdefault(key, deque()).append(write)
        else:
            self._busy.add(key)
            self._ready.append(write)
            if not self._scheduled:
                self._scheduled = True
                loop.call_soon(self._start)
        return await write.outcome

    async def close(self) -> None:
        """Returns when every write has its outcome."""
        self._start()
        while self._in_flight:
            await asyncio.wait(self._in_flight)

    def _start(self) -> None:
        self._scheduled = False
        while self._ready and len(self._in_flight) < MAX_IN_FLIGHT:
            if group := self._take_group():
                self._in_flight.add(asyncio.create_task(self._run(group), name="metadata group commit"))

    def _take_group(self) -> list[_Write[Operation, Result]]:
        group: list[_Write[Operation, Result]] = []
        size = 0
        while self._ready and len(group) < MAX_OPERATIONS:
            write = self._ready[0]
            if group and (size + write.size > MAX_BYTES or write.lease_id != group[0].lease_id):
                break
            self._ready.popleft()
            if write.outcome.done():  # cancelled
                self._release(write)
                continue
            group.append(write)
            size += write.size
        return group

    async def _run(self, group: list[_Write[Operation, Result]]) -> None:
        try:
            results = await self._commit([write.operation for write in group], group[0].lease_id)
        except Exception as error:  # of whatever kind: those who wait have to hear of it
            for write in group:
                if not write.outcome.done():
                    # Each its own: a traceback grows in every task that raises it.
                    write.outcome.set_exception(copy.copy(error))
        else:
            for write, result in zip(group, results, strict=True):
                if not write.outcome.done():
                    write.outcome.set_result(result)
        finally:
            for write in group:
                self._release(write)
            task = asyncio.current_task()
            assert task is not None
            self._in_flight.discard(task)
            self._start()

    def _release(self, write: _Write[Operation, Result]) -> None:
        self._pending -= 1
        followers = self._followers.get(write.key)
        if followers is None:
            self._busy.discard(write.key)
            return
        self._ready.append(followers.popleft())
        if not followers:
            del self._followers[write.key]
