from __future__ import annotations

import asyncio

import pytest

from shoal_common.bus import Handler, Subscription
from shoal_common.bus.bus import OnGap
from shoal_common.bus.memory import MemoryBus
from shoal_common.errors import Unavailable
from shoal_proto.v1 import gcs_pb2
from shoal_raylet.cluster import nodes
from shoal_raylet.cluster.nodes import NodeDirectory

A, B = b"a" * 16, b"b" * 16
ALIVE, DRAINING, DEAD = gcs_pb2.NODE_STATE_ALIVE, gcs_pb2.NODE_STATE_DRAINING, gcs_pb2.NODE_STATE_DEAD


def node(node_id: bytes, state: gcs_pb2.NodeState.ValueType = ALIVE, incarnation: int = 1) -> gcs_pb2.NodeInfo:
    return gcs_pb2.NodeInfo(node_id=node_id, state=state, incarnation=incarnation, channel_port=7, death_reason="why")


class InterruptedBus(MemoryBus):
    """``interrupt`` is what a subscriber hears of an interruption."""

    def __init__(self) -> None:
        super().__init__()
        self.interrupt: asyncio.Future[OnGap] = asyncio.get_running_loop().create_future()

    async def subscribe(self, pattern: str, handler: Handler, on_gap: OnGap = lambda: None) -> Subscription:  # type: ignore[override]
        self.interrupt.set_result(on_gap)
        return await super().subscribe(pattern, handler)


class Cluster:
    """What the GCS would list; the directory, and what it has told."""

    def __init__(self, bus: MemoryBus | None = None) -> None:
        self.listed: list[gcs_pb2.NodeInfo] = []
        self.reads = 0
        self.version = 7
        self.lost: list[tuple[bytes, int, str]] = []
        self.directory = NodeDirectory(
            bus or MemoryBus(),
            "cluster",
            self.list_nodes,
        )
        self.directory.tell(
            on_lost=lambda gone: self.lost.append((gone.node_id, gone.incarnation, gone.death_reason)),
            on_change=lambda: None,
        )

    async def list_nodes(self, known_version: int) -> gcs_pb2.ListNodesResponse:
        self.reads += 1
        if not self.listed:
            raise Unavailable("the GCS is away")
        listed = [] if known_version == self.version else self.listed
        return gcs_pb2.ListNodesResponse(nodes=listed, version=self.version)

    async def read(self, *listed: gcs_pb2.NodeInfo) -> None:
        """The list is another one by now, and is read."""
        self.listed, self.version = list(listed), self.version + 1
        await self.directory.find(b"somebody unknown")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_a_death_is_told_once(cluster: Cluster) -> None:
    cluster.directory.update(node(A))
    for _ in range(2):
        cluster.directory.update(node(A, DEAD))
    assert cluster.lost == [(A, 1, "why")]
    assert cluster.directory.get(A) is None and cluster.directory.living() == []


def test_an_old_word_does_not_revive_the_dead(cluster: Cluster) -> None:
    cluster.directory.update(node(A, incarnation=2))
    cluster.directory.update(node(A, DEAD, incarnation=1))
    assert cluster.lost == []
    cluster.directory.update(node(A, DEAD, incarnation=2))
    cluster.directory.update(node(A, incarnation=2))
    assert cluster.directory.get(A) is None


def test_a_node_dead_from_the_first_word_on_is_no_loss(cluster: Cluster) -> None:
    cluster.directory.update(node(A, DEAD))
    assert cluster.lost == []


def test_a_restart_whose_death_was_missed_is_a_loss(cluster: Cluster) -> None:
    cluster.directory.update(node(A))
    cluster.directory.update(node(A, incarnation=2))
    assert cluster.lost == [(A, 1, "its raylet was started again")]
    assert cluster.directory.get(A) is not None


def test_a_draining_node_is_still_there(cluster: Cluster) -> None:
    cluster.directory.update(node(A))
    cluster.directory.update(node(A, DRAINING))
    assert cluster.lost == [] and cluster.directory.get(A) is not None


async def test_an_unknown_node_is_looked_for_in_the_list(cluster: Cluster) -> None:
    cluster.listed = [node(A), node(B, DEAD)]
    found = await cluster.directory.find(A)
    assert found is not None and found.channel_port == 7
    assert await cluster.directory.find(B) is None
    assert cluster.reads == 1


async def test_the_list_is_not_read_for_every_question(cluster: Cluster) -> None:
    cluster.listed = [node(A)]
    assert await asyncio.gather(*(cluster.directory.find(B) for _ in range(20))) == [None] * 20
    assert cluster.reads == 1


async def test_a_node_that_joined_since_the_list_was_read_is_found(cluster: Cluster) -> None:
    cluster.listed = [node(A)]
    assert await cluster.directory.find(A) is not None
    cluster.listed, cluster.version = [node(A), node(B)], 8
    assert await cluster.directory.find(B) is not None
    assert cluster.reads == 2


async def test_without_a_gcs_an_unknown_node_is_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "_RETRY_S", 0.01)
    question = asyncio.create_task(cluster.directory.find(A))
    while cluster.reads < 2:  # noqa: ASYNC110 - it only takes turns of the event loop
        await asyncio.sleep(0)
    assert not question.done()
    cluster.listed = [node(A)]
    assert await question is not None


async def test_an_unknown_node_is_not_waited_for_for_ever(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "FIND_WITHIN_S", 0.0)
    assert await cluster.directory.find(A) is None


async def test_an_unchanged_list_says_nothing_new(cluster: Cluster) -> None:
    await cluster.read(node(A))
    cluster.directory.update(node(B))
    cluster.listed = [node(B)]
    assert await cluster.directory.find(b"another") is None
    assert cluster.lost == [] and cluster.reads == 2


async def test_a_death_whose_event_was_missed_is_in_the_list(cluster: Cluster) -> None:
    await cluster.read(node(A), node(B))
    await cluster.read(node(A), node(B, DEAD))
    assert cluster.lost == [(B, 1, "why")]


async def test_whom_the_gcs_does_not_list_any_more_is_lost(cluster: Cluster) -> None:
    """Another cluster's, or one that has lost its data."""
    await cluster.read(node(A), node(B, DEAD))
    cluster.directory.update(node(b"c" * 16))  # by an event: the list may have been made before
    await cluster.read(node(b"d" * 16))
    assert cluster.lost == [(A, 1, "the GCS does not know it any more")]
    assert {each.node_id for each in cluster.directory.living()} == {b"c" * 16, b"d" * 16}


def test_in_a_large_cluster_the_list_is_read_less_often() -> None:
    assert [nodes.refresh_s(count) for count in (1, 500, 1000)] == [5.0, 5.0, 10.0]


async def test_a_death_during_an_interruption_of_the_events_is_noticed_after_it() -> None:
    bus = InterruptedBus()
    cluster = Cluster(bus)
    cluster.listed = [node(A)]
    await cluster.directory.start()
    interrupt = await bus.interrupt
    cluster.listed, cluster.version = [node(A, DEAD)], 8
    interrupt()
    async with asyncio.timeout(30):
        while not cluster.lost:  # noqa: ASYNC110 - it only takes turns of the event loop
            await asyncio.sleep(0)
    assert cluster.lost == [(A, 1, "why")]
    await cluster.directory.stop()
