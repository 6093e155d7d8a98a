"""Who leads, and that nobody else writes. Which shard of which cluster an etcd is."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from support.servers import EtcdCluster, EtcdServer, running

from shoal_common.metadata import Entry, Fenced, MetadataStoreError, StoreRefused
from shoal_common.metadata import etcd_leader as leader_module
from shoal_common.metadata.etcd import EtcdMetadataStore
from shoal_common.metadata.etcd_leader import Leadership
from shoal_common.metadata.etcd_marker import check_markers
from shoal_common.metadata.etcd_shard import EtcdShard
from shoal_common.metadata.sharding import shard_of

CLUSTER = "c"
#: For what waits for a server, in seconds: a busy machine takes its time.
PATIENT_S = 60.0
#: How long a leader that says nothing is not replaced, in seconds.
TTL_S = 2.0


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EtcdServer]]:
    servers = [EtcdServer(tmp_path_factory.mktemp("etcd")) for _ in range(2)]
    with running(*servers):
        yield servers


@pytest.fixture
def servers(shards: list[EtcdServer]) -> list[EtcdServer]:
    for server in shards:
        server.clear()
    return shards


@asynccontextmanager
async def store_on(servers: list[Any], cluster_id: str = CLUSTER) -> AsyncIterator[EtcdMetadataStore]:
    store = EtcdMetadataStore([server.address for server in servers], deadline_s=PATIENT_S)
    try:
        await store.join(cluster_id, PATIENT_S)
        yield store
    finally:
        await store.close()


def key_on(shard: int, shards: int = 2) -> str:
    return next(key for key in (f"/shoal/c/actor/{i}" for i in range(100)) if shard_of(key, shards) == shard)


def freeze(leadership: Leadership) -> None:
    """As a paused process: it refreshes nothing, and does not know that its time is over."""
    leadership._refreshing.cancel()


async def test_one_leads_and_the_next_one_waits_until_it_resigns(servers: list[EtcdServer]) -> None:
    async with store_on(servers) as first, store_on(servers) as second:
        leadership = await first.lead("the first", TTL_S)
        waiting = asyncio.ensure_future(second.lead("the second", TTL_S))
        assert servers[0].value("/shoal/leader") == b"the first"
        # Longer than its time: it refreshes its lease.
        _, pending = await asyncio.wait([waiting], timeout=2 * TTL_S)
        assert pending
        await leadership.resign()
        successor = await waiting
        assert servers[0].value("/shoal/leader") == b"the second"
        assert successor.epoch == leadership.epoch + 1
        for server in servers:
            assert int(server.value("/shoal/epoch") or b"") == successor.epoch
        await successor.resign()


async def test_who_says_nothing_is_replaced_and_writes_nothing_more(servers: list[EtcdServer]) -> None:
    async with store_on(servers) as first, store_on(servers) as second:
        old = await first.lead("the first", TTL_S)
        keys = [key_on(0), key_on(1)]
        revisions = [await first.put(key, b"by the first") for key in keys]
        freeze(old)
        new = await second.lead("the second", TTL_S)
        for key, revision in zip(keys, revisions, strict=True):
            with pytest.raises(Fenced, match="does not lead any more"):
                await first.put(key, b"too late", expected_revision=revision)
            with pytest.raises(Fenced):
                await first.delete(key)
        assert "another one has taken over" in await old.lost()
        assert [(await second.get(key)).value for key in keys] == [b"by the first"] * 2  # type: ignore[union-attr]
        await second.put(keys[0], b"by the second", expected_revision=revisions[0])
        await new.resign()


async def test_a_write_that_waited_on_a_shard_that_was_away_is_fenced_too(servers: list[EtcdServer]) -> None:
    async with store_on(servers) as first, store_on(servers) as second:
        old = await first.lead("the first", TTL_S)
        freeze(old)
        servers[1].stop()
        late = asyncio.ensure_future(first.put(key_on(1), b"under way for long"))
        claiming = asyncio.ensure_future(second.lead("the second", TTL_S))
        await asyncio.sleep(0)
        servers[1].resume()
        new = await claiming
        outcome = (await asyncio.gather(late, return_exceptions=True))[0]
        # It may have arrived before the second one had raised the epoch there, and never after.
        if not isinstance(outcome, Fenced):
            assert await second.get(key_on(1)) is not None
        with pytest.raises(Fenced):
            await first.put(key_on(1), b"again")
        await new.resign()


async def test_a_leader_that_finds_its_lease_gone_leads_no_more(servers: list[EtcdServer]) -> None:
    async with store_on(servers) as store:
        leadership = await store.lead("me", TTL_S)
        servers[0].revoke_lease(leadership._lease_id)
        assert "its lease has ended" in await leadership.lost()
        with pytest.raises(Fenced):
            await store.put(key_on(0), b"")
        await leadership.resign()
        again = await store.lead("me again", TTL_S)
        await store.put(key_on(0), b"")
        await again.resign()


async def test_a_restart_of_shard_0_does_not_end_a_leadership(servers: list[EtcdServer]) -> None:
    async with store_on(servers) as store:
        leadership = await store.lead("me", TTL_S)
        servers[0].kill()
        servers[0].start()
        assert await store.put(key_on(0), b"") > 0
        lost = asyncio.ensure_future(leadership.lost())
        _, pending = await asyncio.wait([lost], timeout=2 * TTL_S)
        assert pending
        lost.cancel()
        await leadership.resign()


async def test_a_leader_that_cannot_reach_shard_0_gives_up_in_the_end(
    servers: list[EtcdServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "UNREACHED_S", 1.0)
    store = EtcdMetadataStore([server.address for server in servers], deadline_s=0.5)
    await store.join(CLUSTER, PATIENT_S)
    leadership = await store.lead("me", TTL_S)
    servers[0].stop()
    try:
        assert "could not be refreshed for 1 s" in await leadership.lost()
    finally:
        servers[0].resume()
    await leadership.resign()
    await store.close()


async def test_many_candidates_and_never_two_leaders(servers: list[EtcdServer]) -> None:
    epochs: list[int] = []
    leading: list[str] = []

    async def candidate(name: str) -> None:
        async with store_on(servers) as store:
            leadership = await store.lead(name, PATIENT_S)
            assert leading == []
            leading.append(name)
            epochs.append(leadership.epoch)
            await store.put(key_on(1), name.encode())
            leading.remove(name)
            await leadership.resign()

    await asyncio.gather(*(candidate(f"candidate {i}") for i in range(5)))
    assert epochs == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("number", range(3))
async def test_a_shard_goes_on_without_one_of_its_members(number: int, tmp_path: Path) -> None:
    cluster = EtcdCluster(tmp_path)

    async def write(store: EtcdMetadataStore, key: str) -> None:
        """What was under way when the members' own leader died may fail, with an unknown outcome."""
        async with asyncio.timeout(PATIENT_S):
            while True:
                with contextlib.suppress(MetadataStoreError):
                    await store.put(key, b"1")
                    return

    with running(cluster):
        async with store_on([cluster]) as store:
            leadership = await store.lead("me", 10.0)
            watch = await store.watch("/shoal/c/")
            await store.put("/shoal/c/actor/before", b"1")
            cluster.members[number].kill()
            keys = {f"/shoal/c/actor/{i}" for i in range(50)}
            await asyncio.gather(*(write(store, key) for key in keys))
            keys.add("/shoal/c/actor/before")
            assert set(await store.keys("/shoal/c/")) == keys
            seen: set[str] = set()
            while seen != keys:
                seen.add((await anext(watch)).key)
            await watch.close()
            await leadership.resign()


# --- which shard of which cluster ---


async def test_the_list_of_shards_is_compared_with_what_they_know(servers: list[EtcdServer]) -> None:
    async with store_on(servers):
        pass
    wrong = {
        "is shard 1 of its cluster .* and is listed as shard 0": (servers[::-1], CLUSTER),
        "is one of 2 shards, and the list has 1": (servers[:1], CLUSTER),
        "is one of 2 shards, and the list has 3": ([*servers, servers[0]], CLUSTER),
        "belongs to the cluster 'c', and this one is 'another'": (servers, "another"),
    }
    for message, (listed, cluster_id) in wrong.items():
        with pytest.raises(StoreRefused, match=message):
            async with store_on(listed, cluster_id):
                pass
    async with store_on(servers) as store:
        assert await store.keys("/shoal/c/") == []


async def test_a_shard_that_lost_its_data_is_not_taken_for_a_new_one(servers: list[EtcdServer]) -> None:
    for lost in servers:
        for server in servers:
            server.clear()
        async with store_on(servers):
            pass
        lost.clear()
        with pytest.raises(StoreRefused, match=f"etcd at {lost.address} is empty, and the other shards .* are not"):
            async with store_on(servers):
                pass


async def test_a_shard_of_another_cluster_of_the_same_name(servers: list[EtcdServer], tmp_path: Path) -> None:
    async with store_on(servers):
        pass
    others = [EtcdServer(tmp_path / str(i)) for i in range(2)]
    with running(*others):
        async with store_on(others):
            pass
        with pytest.raises(StoreRefused, match="belong to different clusters, both named 'c'"):
            async with store_on([servers[0], others[1]]):
                pass


async def test_a_first_start_that_was_killed_is_finished_by_the_next(servers: list[EtcdServer]) -> None:
    marker = '{"cluster_id":"c","uid":"1","index":0,"count":2,"complete":false}'
    servers[0].put("/shoal/shard", marker.encode())
    servers[0].put("/shoal/epoch", b"%016d" % 0)
    async with store_on(servers) as store:
        assert b'"complete":true' in (servers[0].value("/shoal/shard") or b"")
        await (await store.lead("me", TTL_S)).resign()


async def test_several_processes_start_a_cluster_at_once(servers: list[EtcdServer]) -> None:
    stores = [EtcdMetadataStore([server.address for server in servers], deadline_s=PATIENT_S) for _ in range(5)]
    await asyncio.gather(*(store.join(CLUSTER, PATIENT_S) for store in stores))
    for store in stores:
        await store.close()


class InterruptedShard:
    """A shard whose nth request, counted over all shards of one start, waits until another process has started."""

    def __init__(self, shard: EtcdShard, requests: Iterator[int], nth: int, servers: list[EtcdServer]) -> None:
        self._shard, self._requests, self._nth, self._servers = shard, requests, nth, servers
        self.name = shard.name

    async def get(self, key: str) -> Entry | None:
        await self._interrupted()
        return await self._shard.get(key)

    async def transaction(self, request: Any) -> Any:
        await self._interrupted()
        return await self._shard.transaction(request)

    async def _interrupted(self) -> None:
        if next(self._requests) == self._nth:
            async with store_on(self._servers):
                pass


async def test_another_process_starts_the_cluster_between_any_two_requests_of_ours(servers: list[EtcdServer]) -> None:
    store = EtcdMetadataStore([server.address for server in servers], deadline_s=PATIENT_S)
    nth = sent = 0
    while nth <= sent:
        for server in servers:
            server.clear()
        requests = itertools.count()
        await check_markers(
            cast("list[EtcdShard]", [InterruptedShard(shard, requests, nth, servers) for shard in store._all()]),
            CLUSTER,
        )
        sent = next(requests)
        nth += 1
    assert nth > 4
    await store.close()


async def test_a_key_of_somebody_else_in_the_place_of_ours(servers: list[EtcdServer]) -> None:
    servers[0].put("/shoal/shard", b"what is this")
    with pytest.raises(StoreRefused, match="a key /shoal/shard that Shoal did not write"):
        async with store_on(servers):
            pass


async def test_what_is_no_epoch_is_named(servers: list[EtcdServer]) -> None:
    async with store_on(servers) as store:
        servers[1].put("/shoal/epoch", b"\xffwhat is this")
        with pytest.raises(StoreRefused, match="a key /shoal/epoch that Shoal did not write"):
            await store.lead("me", PATIENT_S)


async def test_a_shard_that_is_not_there_is_waited_for_with_one_line(
    servers: list[EtcdServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    absent = EtcdServer(tmp_path)
    store = EtcdMetadataStore([servers[0].address, absent.address])
    with pytest.raises(MetadataStoreError, match=f"gave up after 2.5 s: etcd at {absent.address} is unavailable"):
        await store.join(CLUSTER, 2.5)
    [line] = [record.getMessage() for record in caplog.records if "waiting for" in record.getMessage()]
    assert absent.address in line
    with running(absent):
        await store.join(CLUSTER, PATIENT_S)
    await store.close()
