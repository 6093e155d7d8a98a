from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from shoal_common.metadata import LeaseExpired, MetadataStoreError, group_commit
from shoal_common.metadata.group_commit import GroupCommit


class Store:
    """Notes its transactions; each ends when the test says so."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.outcomes: list[asyncio.Future[None]] = []
        self.commits = GroupCommit(self._commit)

    async def _commit(self, operations: list[str], lease_id: int) -> Sequence[str]:
        self.groups.append(operations)
        self.outcomes.append(asyncio.get_running_loop().create_future())
        await self.outcomes[-1]
        return [f"{operation} done" for operation in operations]

    def write(self, operation: str, *, size: int = 1, lease_id: int = 0) -> asyncio.Task[str]:
        """The key is the first letter."""
        return asyncio.ensure_future(self.commits.write(operation[:1].encode(), operation, size, lease_id))

    async def settle(self) -> None:
        """Until nothing more happens by itself."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def end(self, number: int, error: Exception | None = None) -> None:
        if error is None:
            self.outcomes[number].set_result(None)
        else:
            self.outcomes[number].set_exception(error)
        await self.settle()


async def test_writes_of_one_turn_share_a_transaction_and_get_their_own_results() -> None:
    store = Store()
    writes = [store.write(name) for name in "abc"]
    await store.settle()
    assert store.groups == [["a", "b", "c"]]
    await store.end(0)
    assert [await write for write in writes] == ["a done", "b done", "c done"]


async def test_a_key_is_in_one_transaction_at_a_time_and_keeps_its_order() -> None:
    store = Store()
    for name in ("a1", "a2", "b1", "a3"):
        store.write(name)
    await store.settle()
    assert store.groups == [["a1", "b1"]]
    await store.end(0)
    assert store.groups[1:] == [["a2"]]
    await store.end(1)
    assert store.groups[2:] == [["a3"]]
    await store.end(2)


async def test_transactions_are_bounded_in_number_operations_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_IN_FLIGHT", 2)
    monkeypatch.setattr(group_commit, "MAX_OPERATIONS", 3)
    monkeypatch.setattr(group_commit, "MAX_BYTES", 10)
    store = Store()
    for name, size in [("a", 11), ("b", 4), ("c", 6), ("d", 1), ("e", 1), ("f", 1), ("g", 1)]:
        store.write(name, size=size)
    await store.settle()
    assert store.groups == [["a"], ["b", "c"]]
    await store.end(1)
    assert store.groups[2:] == [["d", "e", "f"]]
    await store.end(0)
    assert store.groups[3:] == [["g"]]


async def test_a_lease_that_is_gone_harms_only_its_own_writes() -> None:
    store = Store()
    plain, leased, other = store.write("a"), store.write("b", lease_id=7), store.write("c")
    await store.settle()
    assert store.groups == [["a"], ["b"], ["c"]]
    await store.end(1, LeaseExpired(7))
    await store.end(0)
    await store.end(2)
    assert [await plain, await other] == ["a done", "c done"]
    with pytest.raises(LeaseExpired, match="7"):
        await leased


async def test_a_transaction_that_fails_fails_its_writes_and_no_later_ones() -> None:
    store = Store()
    first, second, later = store.write("a1"), store.write("b"), store.write("a2")
    await store.settle()
    await store.end(0, MetadataStoreError("no leader"))
    await store.end(1)
    failures = await asyncio.gather(first, second, return_exceptions=True)
    assert [str(failure) for failure in failures] == ["no leader"] * 2
    assert failures[0] is not failures[1]
    assert await later == "a2 done"


async def test_a_write_that_is_cancelled_before_it_leaves_is_not_made() -> None:
    store = Store()
    store.write("a1")
    waiting, later = store.write("a2"), store.write("a3")
    await store.settle()
    waiting.cancel()
    await store.end(0)
    assert store.groups == [["a1"], ["a3"]]
    await store.end(1)
    assert await later == "a3 done"


async def test_a_write_that_is_cancelled_on_its_way_frees_its_key() -> None:
    store = Store()
    leaving = store.write("a1")
    await store.settle()
    leaving.cancel()
    later = store.write("a2")
    await store.settle()
    assert store.groups == [["a1"]]
    await store.end(0)
    await store.end(1)
    assert await later == "a2 done"


async def test_more_writes_than_can_wait_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_PENDING", 2)
    store = Store()
    store.write("a")
    store.write("b")
    await store.settle()
    with pytest.raises(MetadataStoreError, match="slow down"):
        await store.write("c")
    await store.end(0)
    store.write("c")
    await store.settle()
    assert store.groups[1:] == [["c"]]


async def test_closing_waits_for_every_write() -> None:
    store = Store()
    first, second = store.write("a1"), store.write("a2")
    await store.settle()
    closing = asyncio.ensure_future(store.commits.close())
    await store.settle()
    assert not closing.done()
    await store.end(0)
    assert not closing.done()
    await store.end(1)
    await closing
    assert (await first, await second) == ("a1 done", "a2 done")
