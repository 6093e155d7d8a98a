"""Placement groups of a real GCS on SQLite, with raylets that record what they are asked: also when the GCS is started
again in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support import processes
from support.gcs import CLUSTER, FakeNode, RestartableGcs

from shoal_common import errors
from shoal_common.ids import JobID, new_placement_group_id
from shoal_common.metadata.sqlite import SqliteMetadataStore
from shoal_common.rpc.client import service_errors
from shoal_proto.v1 import common_pb2, raylet_pb2
from shoal_proto.v1 import gcs_pb2 as pb

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16
PENDING, PREPARED = pb.PLACEMENT_GROUP_STATE_PENDING, pb.PLACEMENT_GROUP_STATE_PREPARED
CREATED, REMOVED = pb.PLACEMENT_GROUP_STATE_CREATED, pb.PLACEMENT_GROUP_STATE_REMOVED
RESCHEDULING = pb.PLACEMENT_GROUP_STATE_RESCHEDULING


class BundleRaylet(FakeNode):
    """Knows which bundles it holds."""

    def __init__(self, node_id: bytes) -> None:
        super().__init__(node_id)
        #: By reservation: the indexes of its bundles, and whether they are committed.
        self.held: dict[bytes, tuple[tuple[int, ...], bool]] = {}
        #: Names of the calls that it does not understand just now.
        self.deaf_to: set[str] = set()
        self.is_full = False
        #: It does not answer before this is set, and tells by the other one that it was asked.
        self.answers, self.asked = asyncio.Event(), asyncio.Event()
        self.answers.set()
        self.returns: list[raylet_pb2.ReturnBundlesRequest] = []

    @property
    def committed(self) -> list[int]:
        return sorted(index for indexes, committed in self.held.values() for index in indexes if committed)

    def _hear(self, call: str) -> None:
        if call in self.deaf_to:
            raise errors.Unavailable("deaf")

    async def PrepareBundles(self, request: Any, context: Any) -> Any:
        self._hear("prepare")
        self.asked.set()
        await self.answers.wait()
        if self.is_full:
            raise errors.ResourceExhausted("full")
        self.held[request.reservation] = (tuple(bundle.index for bundle in request.bundles), False)
        return raylet_pb2.PrepareBundlesResponse()

    async def CommitBundles(self, request: Any, context: Any) -> Any:
        self._hear("commit")
        if request.reservation not in self.held:
            raise errors.NotFound("given up")
        self.held[request.reservation] = (self.held[request.reservation][0], True)
        return raylet_pb2.CommitBundlesResponse()

    async def ReturnBundles(self, request: Any, context: Any) -> Any:
        self._hear("return")
        self.returns.append(request)
        if request.reservation:
            self.held.pop(request.reservation, None)
        else:
            self.held.clear()
        return raylet_pb2.ReturnBundlesResponse()


class Cluster(RestartableGcs):
    """With a job, and three raylets of 4 CPUs."""

    def __init__(self, path: Path) -> None:
        self.a, self.b, self.c = self.raylets = [BundleRaylet(node_id) for node_id in (A, B, C)]
        super().__init__(path, *self.raylets)

    async def __aenter__(self) -> Cluster:
        await super().__aenter__()
        answer = await self.jobs.StartJob(pb.StartJobRequest(driver_id=b"d" * 16, namespace="space", pid=7))
        self.job_id: bytes = answer.job_id
        for raylet in self.raylets:
            await self.join(raylet)
        return self

    async def join(self, raylet: BundleRaylet) -> None:
        await self.nodes.RegisterNode(pb.RegisterNodeRequest(node=raylet.info()))

    async def lose(self, raylet: BundleRaylet) -> None:
        await self.nodes.UnregisterNode(pb.UnregisterNodeRequest(node_id=raylet.node_id, reason="gone"))

    async def create(self, bundles: int, strategy: str = "STRICT_SPREAD", cpus: float = 1, **spec: Any) -> bytes:
        group_id = new_placement_group_id(JobID(self.job_id))
        resources = common_pb2.ResourceAmounts(grains={"CPU": int(cpus * 10_000)})
        group = pb.PlacementGroupInfo(
            group_id=group_id,
            job_id=self.job_id,
            owner_id=b"d" * 16,
            namespace="space",
            strategy=pb.PlacementStrategy.Value(f"PLACEMENT_STRATEGY_{strategy}"),
            bundles=[pb.BundleInfo(resources=resources)] * bundles,
            **spec,
        )
        with service_errors():
            await self.groups.CreatePlacementGroup(pb.CreatePlacementGroupRequest(group=group))
        return group_id

    async def group(self, group_id: bytes, known_version: int = 0, wait_ms: int = 0) -> pb.PlacementGroupInfo:
        request = pb.WaitPlacementGroupRequest(group_id=group_id, known_version=known_version, wait_ms=wait_ms)
        with service_errors():
            return (await self.groups.WaitPlacementGroup(request)).group  # type: ignore[no-any-return]

    async def until(self, group_id: bytes, state: int) -> pb.PlacementGroupInfo:
        async with asyncio.timeout(60):
            info = await self.group(group_id)
            while info.state != state:
                info = await self.group(group_id, info.version, 5_000)
            return info

    async def remove(self, group_id: bytes) -> None:
        await self.groups.RemovePlacementGroup(pb.RemovePlacementGroupRequest(group_id=group_id))

    async def row(self, group_id: bytes) -> pb.PlacementGroupInfo:
        """As it is in the store."""
        entry = await self.store.get(f"/shoal/{CLUSTER}/placement_group/{group_id.hex()}")
        assert entry is not None
        return pb.PlacementGroupInfo.FromString(entry.value)


async def eventually(condition: Callable[[], Any], what: str) -> None:
    await asyncio.to_thread(processes.eventually, condition, what)


def nodes_of(info: pb.PlacementGroupInfo) -> list[bytes]:
    return [bundle.node_id for bundle in info.bundles]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path / "gcs.sqlite") as cluster:
        yield cluster


async def test_a_group_is_committed_on_its_nodes_and_stored(cluster: Cluster) -> None:
    group_id = await cluster.create(3)
    info = await cluster.until(group_id, CREATED)
    assert sorted(nodes_of(info)) == [A, B, C]
    for raylet in cluster.raylets:
        assert raylet.committed == [nodes_of(info).index(raylet.node_id)]
    assert await cluster.row(group_id) == info


async def test_creation_is_idempotent_and_names_are_taken_once(cluster: Cluster) -> None:
    group_id = await cluster.create(1, name="n")
    info = await cluster.until(group_id, CREATED)
    await cluster.groups.CreatePlacementGroup(pb.CreatePlacementGroupRequest(group=info))
    assert (await cluster.group(group_id)).version == info.version
    with pytest.raises(errors.AlreadyExists, match="'n'"):
        await cluster.create(1, name="n")
    request = pb.GetNamedPlacementGroupRequest(name="n", namespace="space")
    assert (await cluster.groups.GetNamedPlacementGroup(request)).group == info


@pytest.mark.parametrize(
    "spec", [{"group_id": b"short"}, {"bundles": []}, {"bundles": [pb.BundleInfo()]}, {"strategy": 0}, {"job_id": b"x"}]
)
async def test_requests_that_make_no_sense(cluster: Cluster, spec: dict[str, Any]) -> None:
    sound = {
        "group_id": b"g" * 16,
        "job_id": cluster.job_id,
        "strategy": pb.PLACEMENT_STRATEGY_PACK,
        "bundles": [pb.BundleInfo(resources=common_pb2.ResourceAmounts(grains={"CPU": 1}))],
    }
    group = pb.PlacementGroupInfo(**{**sound, **spec})
    with pytest.raises((errors.InvalidRequest, errors.PreconditionFailed)), service_errors():
        await cluster.groups.CreatePlacementGroup(pb.CreatePlacementGroupRequest(group=group))


async def test_when_one_raylet_has_no_room_nobody_keeps_anything(cluster: Cluster) -> None:
    cluster.c.is_full = True
    group_id = await cluster.create(3)
    await eventually(lambda: cluster.a.returns and cluster.b.returns, "what the others have prepared is given back")
    assert (await cluster.group(group_id)).state == PENDING
    cluster.c.is_full = False
    await cluster.until(group_id, CREATED)
    assert [raylet.committed for raylet in cluster.raylets].count([]) == 0


async def test_a_heartbeat_that_tells_of_room_is_enough(cluster: Cluster) -> None:
    for raylet in cluster.raylets:
        await cluster.beat(raylet.node_id, 0)
    group_id = await cluster.create(1, cpus=2)
    assert (await cluster.group(group_id, known_version=1, wait_ms=100)).state == PENDING
    await cluster.beat(B, 30_000)
    assert nodes_of(await cluster.until(group_id, CREATED)) == [B]


async def test_a_lost_node_costs_the_bundles_there(cluster: Cluster) -> None:
    group_id = await cluster.create(2)
    before = nodes_of(await cluster.until(group_id, CREATED))
    lost, kept = (next(r for r in cluster.raylets if r.node_id == node_id) for node_id in before)
    await cluster.lose(lost)
    spare = next(r for r in cluster.raylets if r.node_id not in before)
    info = await cluster.until(group_id, CREATED)
    assert nodes_of(info) == [spare.node_id, kept.node_id]
    assert kept.returns == [] and kept.committed == [1] and spare.committed == [0]


async def test_a_node_that_dies_while_it_prepares_holds_no_other_group_up(cluster: Cluster) -> None:
    cluster.a.answers.clear()
    group_id = await cluster.create(3)
    await cluster.a.asked.wait()
    await cluster.lose(cluster.a)
    other = await cluster.create(2)
    assert {bundle.node_id for bundle in (await cluster.until(other, CREATED)).bundles} == {B, C}
    cluster.a.answers.set()
    assert (await cluster.group(group_id)).state == PENDING


async def test_removal_is_carried_out_when_the_raylet_hears_it(cluster: Cluster) -> None:
    group_id = await cluster.create(3)
    await cluster.until(group_id, CREATED)
    cluster.b.deaf_to = {"return"}
    await cluster.remove(group_id)
    assert (await cluster.group(group_id)).state == REMOVED
    await eventually(lambda: not cluster.a.held and not cluster.c.held, "the others give theirs back")
    cluster.b.deaf_to = set()
    await eventually(lambda: not cluster.b.held, "it is asked again")
    assert "remove_placement_group" in cluster.b.returns[0].reason


async def test_groups_end_with_their_job(cluster: Cluster) -> None:
    short, long = await cluster.create(1), await cluster.create(1, detached=True)
    await cluster.until(short, CREATED)
    await cluster.until(long, CREATED)
    await cluster.jobs.FinishJob(pb.FinishJobRequest(job_id=cluster.job_id))
    assert (await cluster.group(short)).state == REMOVED
    assert (await cluster.group(long)).state == CREATED
    assert (await cluster.group(await cluster.create(1))).state == REMOVED, "one that comes too late"


# --- a GCS that is started again ---


async def test_a_group_that_was_pending_is_placed_by_the_next_gcs(cluster: Cluster) -> None:
    cluster.c.is_full = True
    group_id = await cluster.create(3, name="n")
    await eventually(lambda: cluster.a.returns, "it was tried")
    await cluster.restart_gcs()
    cluster.c.is_full = False
    await cluster.until(group_id, CREATED)
    with pytest.raises(errors.AlreadyExists):
        await cluster.create(1, name="n")


async def test_what_was_prepared_is_committed_by_the_next_gcs(cluster: Cluster) -> None:
    cluster.b.deaf_to = {"commit"}
    group_id = await cluster.create(3)
    before = nodes_of(await cluster.until(group_id, PREPARED))
    await cluster.restart_gcs()
    cluster.b.deaf_to = set()
    assert nodes_of(await cluster.until(group_id, CREATED)) == before
    assert all(raylet.committed for raylet in cluster.raylets)


async def test_what_was_prepared_and_given_up_meanwhile_is_placed_again(cluster: Cluster) -> None:
    cluster.b.deaf_to = {"commit"}
    group_id = await cluster.create(3)
    await cluster.until(group_id, PREPARED)
    await cluster.stop_gcs()
    cluster.b.held.clear()
    cluster.b.deaf_to = set()
    await cluster.start_gcs()
    info = await cluster.until(group_id, CREATED)
    assert sorted(nodes_of(info)) == [A, B, C]
    assert len(cluster.b.committed) == 1


async def test_a_created_group_stays_as_it_is(cluster: Cluster) -> None:
    group_id = await cluster.create(3)
    before = await cluster.until(group_id, CREATED)
    await cluster.restart_gcs()
    assert await cluster.group(group_id) == before
    assert all(raylet.returns == [] for raylet in cluster.raylets)


async def test_a_group_that_was_rescheduling_finds_its_place(cluster: Cluster) -> None:
    group_id = await cluster.create(3)
    before = nodes_of(await cluster.until(group_id, CREATED))
    await cluster.lose(cluster.c)
    await cluster.until(group_id, RESCHEDULING)
    await cluster.restart_gcs()
    info = await cluster.group(group_id)
    assert info.state == RESCHEDULING
    assert [node_id for node_id in nodes_of(info) if node_id] == [node_id for node_id in before if node_id != C]
    spare = BundleRaylet(b"e" * 16)
    await spare.listen()
    cluster.fakes.append(spare)
    await cluster.join(spare)
    info = await cluster.until(group_id, CREATED)
    assert nodes_of(info) == [spare.node_id if node_id == C else node_id for node_id in before]


async def test_a_removal_that_was_not_carried_out_is(cluster: Cluster) -> None:
    group_id = await cluster.create(3)
    await cluster.until(group_id, CREATED)
    cluster.b.deaf_to = {"return"}
    await cluster.remove(group_id)
    await eventually(lambda: not cluster.a.held and not cluster.c.held, "the others give theirs back")
    await cluster.restart_gcs()
    cluster.b.deaf_to = set()
    await eventually(lambda: not cluster.b.held, "the next GCS asks for it")
    assert (await cluster.group(group_id)).state == REMOVED


async def test_a_group_whose_job_ended_with_the_gcs_is_removed(cluster: Cluster) -> None:
    group_id = await cluster.create(1)
    await cluster.until(group_id, CREATED)
    await cluster.stop_gcs()
    # As if it had been killed between the two rows.
    store = SqliteMetadataStore(cluster.path)
    key = f"/shoal/{CLUSTER}/job/{cluster.job_id.hex()}"
    entry = await store.get(key)
    assert entry is not None
    job = pb.JobInfo.FromString(entry.value)
    job.end_unix_ms = job.start_unix_ms
    await store.put(key, job.SerializeToString(), expected_revision=entry.revision)
    await store.close()
    await cluster.start_gcs()
    assert (await cluster.until(group_id, REMOVED)).removal_reason == "its job has finished"
    await eventually(lambda: not any(raylet.held for raylet in cluster.raylets), "its bundle is given back")
