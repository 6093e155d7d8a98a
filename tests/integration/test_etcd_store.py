"""What becomes of the metadata store when etcd is killed, hangs, compacts its history or is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support import server_hosts
from support.servers import EtcdServer, running

from shoal_common.metadata import LeaseExpired, MetadataStoreError, RevisionConflict, WatchEvent, WatchLagged
from shoal_common.metadata import etcd_shard as shard_module
from shoal_common.metadata import etcd_watch as watch_module
from shoal_common.metadata.etcd import EtcdMetadataStore
from shoal_common.metadata.sharding import shard_of

#: For calls that are meant to fail, in seconds.
BRIEF_S = 0.5
#: For calls that wait for a server which starts, in seconds: a busy machine takes its time.
PATIENT_S = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path / "0")
    with running(server):
        yield server


@pytest.fixture
def second_server(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path / "1")
    with running(server):
        yield server


@asynccontextmanager
async def store_on(*servers: EtcdServer, deadline_s: float = PATIENT_S) -> AsyncIterator[EtcdMetadataStore]:
    store = EtcdMetadataStore([server.address for server in servers], deadline_s=deadline_s)
    yield store
    await store.close()


def key_on(shard: int) -> str:
    """A key that lies on this one of two shards."""
    return next(key for key in (f"/shoal/c/actor/{i}" for i in range(100)) if shard_of(key, 2) == shard)


async def test_calls_during_a_restart_wait_for_it(server: EtcdServer) -> None:
    async with store_on(server) as store:
        revision = await store.put("a", b"1")
        server.kill()
        writing = asyncio.ensure_future(store.put("a", b"2", expected_revision=revision))
        reading = asyncio.ensure_future(store.get("b"))
        await asyncio.sleep(0)
        server.start()
        assert await writing > revision
        assert await reading is None


async def test_what_was_confirmed_survives_a_kill(server: EtcdServer) -> None:
    async with store_on(server) as store:
        writes = [asyncio.ensure_future(store.put(f"k{i}", b"x")) for i in range(2_000)]
        await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
        server.kill()
        server.start()
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        revisions = {entry.key: entry.revision for entry in await store.scan("k")}
        for i, outcome in enumerate(outcomes):
            assert isinstance(outcome, MetadataStoreError) or revisions[f"k{i}"] == outcome


async def test_a_watch_misses_nothing_across_a_restart(server: EtcdServer) -> None:
    async with store_on(server) as store:
        watch = await store.watch("w/")
        first = await store.put("w/1", b"1")
        assert await anext(watch) == WatchEvent("w/1", b"1", first)
        server.kill()
        server.start()
        server.put("w/2", b"by another client, before the watch is back")
        second = await store.put("w/1", b"2")
        assert (await anext(watch)).key == "w/2"
        assert await anext(watch) == WatchEvent("w/1", b"2", second)


async def test_a_watch_that_has_seen_nothing_yet_misses_nothing_either(server: EtcdServer) -> None:
    async with store_on(server) as store:
        watch = await store.watch("w/")
        server.kill()
        server.start()
        server.put("w/1", b"1")
        assert (await anext(watch)).key == "w/1"


async def test_compaction_does_not_disturb_a_watch(server: EtcdServer) -> None:
    async with store_on(server) as store:
        watch = await store.watch("w/")
        for i in range(3):
            await store.put("w/1", str(i).encode())
            server.compact()
        assert [(await anext(watch)).value for _ in range(3)] == [b"0", b"1", b"2"]


async def test_a_watch_whose_history_is_compacted_says_that_it_has_missed_events(server: EtcdServer) -> None:
    async with store_on(server) as store:
        watch = await store.watch("w/")
        await store.put("w/1", b"1")
        assert (await anext(watch)).value == b"1"
        server.kill()
        server.start()
        server.put("w/1", b"missed")
        server.put("w/1", b"2")
        server.compact()
        for _ in range(2):
            with pytest.raises(WatchLagged):
                await anext(watch)
        await watch.close()

        again = await store.watch("w/")
        [entry] = await store.scan("w/")
        assert entry.value == b"2"
        await store.delete("w/1")
        assert (await anext(again)).value is None


async def test_a_watch_notices_that_the_store_has_lost_its_data(server: EtcdServer) -> None:
    async with store_on(server) as store:
        watch = await store.watch("w/")
        for i in range(5):
            await store.put("w/1", str(i).encode())
            await anext(watch)
        server.kill()
        server.forget()
        server.start()
        with pytest.raises(WatchLagged):
            await anext(watch)


async def test_one_shard_that_lost_its_history_ends_the_watch_of_all(
    server: EtcdServer, second_server: EtcdServer
) -> None:
    async with store_on(server, second_server) as store:
        watch = await store.watch("/shoal/")
        await store.put(key_on(1), b"")
        await anext(watch)
        second_server.kill()
        second_server.start()
        for _ in range(2):
            second_server.put(key_on(1), b"")
        second_server.compact()
        with pytest.raises(WatchLagged):
            await anext(watch)
        await store.put(key_on(0), b"")
        with pytest.raises(WatchLagged):
            await anext(watch)


async def test_a_slow_watcher_holds_events_back_and_loses_none(
    server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "MAX_WATCH_EVENTS", 3)
    async with store_on(server) as store:
        watch = await store.watch("w/")
        revisions = [await store.put("w/1", str(i).encode()) for i in range(20)]
        assert [(await anext(watch)).revision for _ in revisions] == revisions


async def test_a_watch_of_a_busy_prefix_can_be_closed(server: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "MAX_WATCH_EVENTS", 3)
    async with store_on(server) as store:
        watch = await store.watch("w/")
        for i in range(20):
            await store.put("w/1", str(i).encode())
        assert (await anext(watch)).value == b"0"
        await watch.close()
        await watch.close()
        assert [event.value async for event in watch] in ([b"1", b"2"], [b"1", b"2", b"3"])


async def test_every_call_names_the_server_that_is_not_there(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path)
    async with store_on(server, deadline_s=BRIEF_S) as store:
        calls = [
            store.get("a"),
            store.scan("a"),
            store.keys("a"),
            store.put("a", b"1"),
            store.put("a", b"1", expected_revision=0),
            store.delete("a"),
            store.watch("a"),
            store.grant_lease(10.0),
            store.refresh_lease(1),
            store.revoke_lease(1),
        ]
        for failure in await asyncio.gather(*calls, return_exceptions=True):
            assert type(failure) is MetadataStoreError
            assert f"etcd at {server.address} could not be reached within 0.5 s" in str(failure)


async def test_a_server_that_starts_late_is_waited_for(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path)
    async with store_on(server) as store:
        waiting = asyncio.ensure_future(store.put("a", b"1"))
        await asyncio.sleep(0)
        with running(server):
            assert await waiting > 0


async def test_a_server_that_hangs_costs_the_deadline_and_nothing_else(server: EtcdServer) -> None:
    async with store_on(server, deadline_s=BRIEF_S) as brief, store_on(server) as patient:
        await brief.put("a", b"1")
        watch = await patient.watch("w/")
        server.stop()
        writes = await asyncio.gather(*(brief.put(f"k{i}", b"") for i in range(1_000)), return_exceptions=True)
        with pytest.raises(MetadataStoreError, match=f"{server.address} did not answer within 0.5 s"):
            await brief.get("a")
        waiting = asyncio.ensure_future(patient.put("w/1", b"1"))
        assert all(isinstance(failure, MetadataStoreError) for failure in writes)
        server.resume()
        assert await waiting > 0
        assert (await anext(watch)).key == "w/1"
        assert await patient.get("a") is not None


async def test_a_store_can_be_closed_while_its_server_hangs(server: EtcdServer) -> None:
    store = EtcdMetadataStore([server.address], deadline_s=BRIEF_S)
    watch = await store.watch("w/")
    server.stop()
    calls = [asyncio.ensure_future(call) for call in (store.put("a", b"1"), store.put("a", b"2"), store.get("a"))]
    await asyncio.sleep(0)
    await store.close()
    assert all(isinstance(e, MetadataStoreError) for e in await asyncio.gather(*calls, return_exceptions=True))
    assert await anext(watch, None) is None


async def test_a_shard_that_is_down_leaves_the_others_working(server: EtcdServer, second_server: EtcdServer) -> None:
    async with store_on(server, second_server, deadline_s=BRIEF_S) as store:
        server.kill()
        assert await store.put(key_on(1), b"1") > 0
        with pytest.raises(MetadataStoreError, match=server.address):
            await store.put(key_on(0), b"1")
        with pytest.raises(MetadataStoreError, match=server.address):
            await store.scan("/shoal/")


async def test_entries_lie_on_the_shard_of_their_id(server: EtcdServer, second_server: EtcdServer) -> None:
    async with store_on(server, second_server) as store:
        keys = [f"/shoal/c/actor/{i:08x}" for i in range(50)]
        await asyncio.gather(*(store.put(key, b"") for key in keys))
    assert server.keys() == [key for key in keys if shard_of(key, 2) == 0]
    assert second_server.keys() == [key for key in keys if shard_of(key, 2) == 1]


async def test_a_lease_that_one_shard_has_ended_is_gone_on_all(server: EtcdServer, second_server: EtcdServer) -> None:
    async with store_on(server, second_server) as store:
        lease = await store.grant_lease(60.0)
        for shard in (0, 1):
            await store.put(key_on(shard), b"", lease_id=lease)
        server.revoke_lease(lease)
        with pytest.raises(LeaseExpired):
            await store.refresh_lease(lease)
        assert await store.keys("") == []


async def test_failures_of_one_kind_in_one_group_harm_no_other_write(server: EtcdServer) -> None:
    async with store_on(server) as store:
        revision = await store.put("stale", b"1")
        outcomes = await asyncio.gather(
            store.put("a", b"1"),
            store.put("stale", b"2", expected_revision=revision + 1),
            store.delete("stale", expected_revision=revision + 1),
            store.put("leased", b"1", lease_id=12345),
            store.put("large", b"x" * 1_600_000),
            store.put("b", b"1", expected_revision=0),
            return_exceptions=True,
        )
        kinds = [int, RevisionConflict, RevisionConflict, LeaseExpired, ValueError, int]
        assert [type(outcome) for outcome in outcomes] == kinds
        assert "more than 1048576" in str(outcomes[4])
        assert await store.keys("") == ["a", "b", "stale"]
        with pytest.raises(ValueError, match="empty"):
            await store.put("", b"1")


async def test_a_scan_goes_over_all_pages(server: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "SCAN_PAGE", 3)
    async with store_on(server) as store:
        for count in (0, 3, 4):
            keys = [f"s/{i}" for i in range(count)]
            await asyncio.gather(*(store.put(key, key.encode()) for key in keys))
            assert await store.keys("s/") == keys
            assert [entry.value.decode() for entry in await store.scan("s/")] == keys


async def test_several_endpoints_of_one_cluster(server: EtcdServer, tmp_path: Path) -> None:
    absent = EtcdServer(tmp_path / "absent")
    store = EtcdMetadataStore([f"{absent.address}+{server.address}"], deadline_s=PATIENT_S)
    assert await store.put("a", b"1") > 0
    await store.close()


def test_a_server_that_is_not_installed_fails_ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_hosts, "_PATH", str(tmp_path))
    monkeypatch.setenv(server_hosts.WHERE, "machine")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install etcd-server"):
        EtcdServer(tmp_path)
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="apt-get install etcd-server"):
        EtcdServer(tmp_path)


def test_a_store_without_shards_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        EtcdMetadataStore([])
