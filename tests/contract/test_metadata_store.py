"""What every ``MetadataStore`` promises. A new implementation is one more entry of ``STORES``.

With several shards there is no order between events of different keys, nor between their revisions.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from support.processes import PATIENCE_S
from support.servers import EtcdCluster, EtcdServer, running

from shoal_common.metadata import (
    MAX_VALUE_BYTES,
    Entry,
    LeaseExpired,
    MetadataStore,
    MetadataStoreError,
    RevisionConflict,
    WatchEvent,
    WatchLagged,
)
from shoal_common.metadata import sqlite as sqlite_module
from shoal_common.metadata.etcd import EtcdMetadataStore
from shoal_common.metadata.sqlite import SqliteMetadataStore

#: The shards behind a store, S a single etcd and C a cluster of three; None = the store is a SQLite file.
STORES = {"sqlite": None, "etcd": "S", "etcd with 2 shards": "SC", "etcd with 5 shards": "SSSSC"}


@pytest.fixture(scope="module")
def single_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EtcdServer]]:
    servers = [EtcdServer(tmp_path_factory.mktemp("etcd")) for _ in range(4)]
    with running(*servers):
        yield servers


@pytest.fixture(scope="module")
def etcd_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    cluster = EtcdCluster(tmp_path_factory.mktemp("cluster"))
    with running(cluster):
        yield cluster


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], MetadataStore]:
    """Opens a store on the same data every time it is called; there is none at first."""
    shards = STORES[request.param]
    if shards is None:
        return lambda: SqliteMetadataStore(tmp_path / "store.sqlite")
    servers: list[EtcdServer | EtcdCluster] = list(request.getfixturevalue("single_servers")[: shards.count("S")])
    servers += [request.getfixturevalue("etcd_cluster")] * shards.count("C")
    for server in servers:
        server.clear()
    return lambda: EtcdMetadataStore([server.address for server in servers], deadline_s=PATIENCE_S)


@pytest.fixture
async def store(open_store: Callable[[], MetadataStore]) -> AsyncIterator[MetadataStore]:
    store = open_store()
    yield store
    await store.close()


async def test_a_value_may_have_a_mebibyte_and_no_more(store: MetadataStore) -> None:
    large = b"x" * MAX_VALUE_BYTES
    await store.put("a", large)
    with pytest.raises(ValueError, match="1048577 bytes, more than 1048576"):
        await store.put("a", large + b"x")
    assert (await store.get("a") or Entry("", b"", 0)).value == large


async def test_an_absent_key_has_no_entry(store: MetadataStore) -> None:
    assert await store.get("/shoal/c/actor/1") is None
    assert await store.delete("/shoal/c/actor/1") is False


async def test_put_then_get(store: MetadataStore) -> None:
    revision = await store.put("/shoal/c/actor/1", b"\x00one")
    assert await store.get("/shoal/c/actor/1") == Entry("/shoal/c/actor/1", b"\x00one", revision)


async def test_revisions_grow_with_every_write(store: MetadataStore) -> None:
    first = await store.put("a", b"1")
    second = await store.put("a", b"1")
    await store.delete("a")
    third = await store.put("a", b"1")
    assert 0 < first < second < third


async def test_compare_and_swap(store: MetadataStore) -> None:
    first = await store.put("a", b"1", expected_revision=0)
    second = await store.put("a", b"2", expected_revision=first)
    with pytest.raises(RevisionConflict) as conflict:
        await store.put("a", b"3", expected_revision=first)
    assert (conflict.value.key, conflict.value.expected, conflict.value.actual) == ("a", first, second)
    assert await store.get("a") == Entry("a", b"2", second)


async def test_only_one_of_two_creators_wins(store: MetadataStore) -> None:
    outcomes = await asyncio.gather(
        *(store.put("a", str(i).encode(), expected_revision=0) for i in range(10)), return_exceptions=True
    )
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, RevisionConflict) for outcome in outcomes) == 9


async def test_a_conflict_fails_alone(store: MetadataStore) -> None:
    """The other writes of the same group are committed."""
    outcomes = await asyncio.gather(
        store.put("a", b"1"),
        store.put("b", b"1", expected_revision=77),
        store.put("c", b"1"),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], RevisionConflict)
    assert [entry.key for entry in await store.scan("")] == ["a", "c"]


async def test_delete_compares_too(store: MetadataStore) -> None:
    first = await store.put("a", b"1")
    second = await store.put("a", b"2")
    with pytest.raises(RevisionConflict):
        await store.delete("a", expected_revision=first)
    assert await store.delete("a", expected_revision=second) is True
    assert await store.get("a") is None
    with pytest.raises(RevisionConflict):
        await store.delete("a", expected_revision=second)


async def test_scan_takes_the_prefix_and_nothing_else(store: MetadataStore) -> None:
    for key in ("/shoal/c/actor/2", "/shoal/c/actor/1", "/shoal/c/actors", "/shoal/c/job/1", "/shoal/c/acto"):
        await store.put(key, key.encode())
    assert [entry.key for entry in await store.scan("/shoal/c/actor/")] == ["/shoal/c/actor/1", "/shoal/c/actor/2"]
    assert await store.keys("/shoal/c/actor/") == ["/shoal/c/actor/1", "/shoal/c/actor/2"]
    assert await store.scan("/shoal/d/") == []


async def test_a_large_value(store: MetadataStore) -> None:
    value = bytes(range(256)) * 4096
    await store.put("large", value)
    entry = await store.get("large")
    assert entry is not None and entry.value == value


async def test_many_writes_at_once_are_all_there(store: MetadataStore) -> None:
    await asyncio.gather(*(store.put(f"k{i:05}", b"x") for i in range(5_000)))
    assert len(await store.keys("k")) == 5_000


async def test_everything_is_there_after_reopening(open_store: Callable[[], MetadataStore]) -> None:
    store = open_store()
    revision = await store.put("a", b"1")
    await store.put("b", b"1")
    last = await store.put("b", b"2")
    await store.delete("b")
    await store.close()

    store = open_store()
    assert await store.get("a") == Entry("a", b"1", revision)
    assert await store.get("b") is None
    assert await store.put("b", b"3") > last, "a revision must never name two versions"
    await store.close()


async def test_a_cancelled_write_still_happens_or_not_but_never_breaks_the_store(store: MetadataStore) -> None:
    task = asyncio.ensure_future(store.put("a", b"1"))
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await store.put("b", b"1")
    assert (await store.get("b")) is not None


async def test_a_watch_tells_writes_and_deletes_of_its_prefix_in_order(store: MetadataStore) -> None:
    await store.put("w/0", b"before")
    watch = await store.watch("w/")
    first = await store.put("w/1", b"1")
    await store.put("other", b"1")
    second = await store.put("w/1", b"2")
    await store.delete("w/1")
    assert await anext(watch) == WatchEvent("w/1", b"1", first)
    assert await anext(watch) == WatchEvent("w/1", b"2", second)
    deleted = await anext(watch)
    assert (deleted.key, deleted.value) == ("w/1", None)
    assert deleted.revision > second
    await watch.close()
    assert [event async for event in watch] == []


async def test_a_watch_that_waits_is_woken(store: MetadataStore) -> None:
    watch = await store.watch("w/")
    waiting = asyncio.ensure_future(anext(watch))
    await store.put("w/1", b"1")
    assert (await waiting).value == b"1"
    await watch.close()


async def test_closing_the_store_ends_its_watches(open_store: Callable[[], MetadataStore]) -> None:
    store = open_store()
    watch = await store.watch("w/")
    waiting = asyncio.ensure_future(anext(watch, None))
    await store.close()
    assert await waiting is None


async def test_entries_end_with_their_lease(store: MetadataStore) -> None:
    watch = await store.watch("l/")
    lease = await store.grant_lease(0.05)
    await store.put("l/1", b"1", lease_id=lease)
    await store.put("l/2", b"1", lease_id=lease)
    await store.put("l/3", b"1")
    written = [await anext(watch) for _ in range(3)]
    gone = [await anext(watch) for _ in range(2)]
    assert [event.value for event in written] == [b"1"] * 3
    assert {(event.key, event.value) for event in gone} == {("l/1", None), ("l/2", None)}
    assert await store.keys("l/") == ["l/3"]
    with pytest.raises(LeaseExpired):
        await store.refresh_lease(lease)
    with pytest.raises(LeaseExpired):
        await store.put("l/1", b"1", lease_id=lease)


async def test_a_lease_ends_alone(store: MetadataStore) -> None:
    kept = await store.grant_lease(30.0)
    brief = await store.grant_lease(0.05)
    watch = await store.watch("")
    await store.put("kept", b"1", lease_id=kept)
    await store.put("brief", b"1", lease_id=brief)
    events = [await anext(watch) for _ in range(3)]
    assert [event.value for event in events if event.key == "kept"] == [b"1"]
    assert [event.value for event in events if event.key == "brief"] == [b"1", None]
    await store.refresh_lease(kept)
    assert await store.get("kept") is not None


async def test_a_revoked_lease_takes_its_entries_along(store: MetadataStore) -> None:
    lease = await store.grant_lease(30.0)
    await store.put("l/1", b"1", lease_id=lease)
    await store.revoke_lease(lease)
    assert await store.get("l/1") is None
    await store.revoke_lease(lease)
    with pytest.raises(LeaseExpired):
        await store.refresh_lease(lease)


async def test_an_entry_rewritten_without_its_lease_outlives_it(store: MetadataStore) -> None:
    lease = await store.grant_lease(30.0)
    await store.put("l/1", b"1", lease_id=lease)
    await store.put("l/1", b"2")
    await store.revoke_lease(lease)
    assert (await store.get("l/1")) is not None


async def test_leases_survive_reopening(open_store: Callable[[], MetadataStore]) -> None:
    store = open_store()
    lease = await store.grant_lease(30.0)
    await store.put("l/1", b"1", lease_id=lease)
    await store.close()

    store = open_store()
    await store.refresh_lease(lease)
    await store.revoke_lease(lease)
    assert await store.get("l/1") is None
    await store.close()


async def test_a_closed_store_says_so(open_store: Callable[[], MetadataStore]) -> None:
    store = open_store()
    await store.put("a", b"1")
    await store.close()
    await store.close()
    with pytest.raises(MetadataStoreError, match="closed"):
        await store.get("a")


@pytest.mark.parametrize(
    "error", [RevisionConflict("a", 1, 2), LeaseExpired(3), WatchLagged("a/"), MetadataStoreError("broken")]
)
def test_errors_survive_pickling(error: MetadataStoreError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


# --- what only SQLite can get wrong ---


async def test_sqlite_a_path_that_cannot_be_opened(tmp_path: Path) -> None:
    store = SqliteMetadataStore(tmp_path / "missing" / "store.sqlite")
    with pytest.raises(MetadataStoreError, match="cannot open"):
        await store.get("a")
    with pytest.raises(MetadataStoreError, match="cannot open"):
        await store.put("a", b"1")
    await store.close()


async def test_sqlite_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"this is not a database" * 100)
    store = SqliteMetadataStore(path)
    with pytest.raises(MetadataStoreError, match="not a database"):
        await store.get("a")
    await store.close()


async def test_sqlite_a_mistake_of_one_caller_harms_no_other(tmp_path: Path) -> None:
    store = SqliteMetadataStore(tmp_path / "store.sqlite")
    bad, good = await asyncio.gather(store.put("\ud800", b"1"), store.put("good", b"1"), return_exceptions=True)
    assert isinstance(bad, ValueError)
    assert isinstance(good, int)
    await store.close()


async def test_sqlite_a_watcher_that_is_too_slow_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "MAX_WATCH_EVENTS", 3)
    store = SqliteMetadataStore(tmp_path / "store.sqlite")
    watch = await store.watch("w/")
    for i in range(5):
        await store.put(f"w/{i}", b"")
    assert [(await anext(watch)).key for _ in range(3)] == ["w/0", "w/1", "w/2"]
    with pytest.raises(WatchLagged):
        await anext(watch)
    await store.close()


async def test_sqlite_a_refresh_begins_the_time_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    store = SqliteMetadataStore(tmp_path / "store.sqlite")
    refreshed, forgotten = await store.grant_lease(10.0), await store.grant_lease(10.0)
    now = 109.0
    await store.refresh_lease(refreshed)
    now = 111.0
    await store.refresh_lease(refreshed)
    with pytest.raises(LeaseExpired):
        await store.refresh_lease(forgotten)
    await store.close()


async def test_sqlite_refuses_more_than_it_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "MAX_PENDING", 2)
    store = SqliteMetadataStore(tmp_path / "store.sqlite")
    outcomes = await asyncio.gather(*(store.put(f"k{i}", b"") for i in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, int, MetadataStoreError]
    await store.close()
