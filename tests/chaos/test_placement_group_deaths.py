"""Placement groups whose nodes, GCS or driver die."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.clusters import ProcessCluster, RayletProcess
from support.deployed import DeployedCluster
from support.drivers import Driver
from support.processes import eventually

import shoal
from shoal.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from shoal.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from shoal_proto.v1 import gcs_pb2 as pb


@shoal.remote(num_cpus=1)
class Member:
    """Lives in a bundle."""

    def __init__(self) -> None:
        self.calls = 0

    def call(self) -> tuple[int, str]:
        """How often it was called, and its node."""
        self.calls += 1
        return self.calls, shoal.get_runtime_context().get_node_id()


@shoal.remote(num_cpus=1)
def where() -> str:
    return str(shoal.get_runtime_context().get_node_id())


def inside(group: PlacementGroup, index: int = -1) -> dict[str, Any]:
    return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, index)}


def state(group: PlacementGroup) -> str:
    return str(placement_group_table(group)["state"])


def nodes_of(group: PlacementGroup) -> dict[int, str]:
    return dict(placement_group_table(group)["bundles_to_node_id"])


def cpus_in_bundles() -> float:
    return sum(amount for name, amount in shoal.cluster_resources().items() if name.startswith("CPU_group_"))


@pytest.fixture
def cluster() -> Iterator[ProcessCluster]:
    """The driver's node, which holds no bundle, and three with 2 CPU."""
    with ProcessCluster() as cluster:
        cluster.add_node(cpus=0)
        for _ in range(3):
            cluster.add_node(cpus=2)
        yield cluster


def by_id(cluster: ProcessCluster, node_id: str) -> RayletProcess:
    return next(node for node in cluster.nodes if node.node_id == node_id)


def test_bundles_of_a_dead_node_move_and_the_others_keep_running(cluster: ProcessCluster) -> None:
    with cluster.connected():
        group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
        assert group.wait(60)
        before = nodes_of(group)
        staying = Member.options(**inside(group, 0)).remote()  # type: ignore[attr-defined]
        moving = Member.options(max_restarts=-1, max_task_retries=-1, **inside(group, 1)).remote()  # type: ignore[attr-defined]
        assert shoal.get(staying.call.remote()) == (1, before[0])
        assert shoal.get(moving.call.remote()) == (1, before[1])
        by_id(cluster, before[1]).kill()
        calls, node_id = shoal.get(moving.call.remote(), timeout=60)
        assert (calls, node_id) == (1, nodes_of(group)[1]), "it is restarted where its bundle is now"
        assert node_id not in before.values()
        assert shoal.get(staying.call.remote()) == (2, before[0])
        assert state(group) == "CREATED"


def test_a_group_without_a_node_to_go_to_waits_and_its_other_bundles_are_of_use(cluster: ProcessCluster) -> None:
    with cluster.connected():
        group = placement_group([{"CPU": 2}] * 3, strategy="STRICT_SPREAD")
        assert group.wait(60)
        before = nodes_of(group)
        by_id(cluster, before[1]).kill()
        eventually(lambda: state(group) == "RESCHEDULING", "the node is missed")
        waiting = where.options(**inside(group, 1)).remote()
        assert shoal.get(where.options(**inside(group, 0)).remote(), timeout=60) == before[0]
        assert shoal.get(where.options(**inside(group)).remote(), timeout=60) in (before[0], before[2])
        assert group.wait(0.2) is False
        spare = cluster.add_node(cpus=2)
        assert shoal.get(waiting, timeout=60) == spare.node_id
        assert nodes_of(group) == {0: before[0], 1: spare.node_id, 2: before[2]}


def test_a_group_that_lost_all_its_nodes_comes_back(cluster: ProcessCluster) -> None:
    with cluster.connected():
        group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_PACK")
        assert group.wait(60)
        (home,) = set(nodes_of(group).values())
        by_id(cluster, home).kill()
        assert shoal.get(where.options(**inside(group, 1)).remote(), timeout=60) != home
        assert len(set(nodes_of(group).values())) == 1


def test_the_groups_of_a_killed_driver_end(cluster: ProcessCluster) -> None:
    code = """
    ray.init(namespace="n")
    group = ray.util.placement_group([{"CPU": 2}] * 3, name="short")
    assert group.wait(60)
    report(ready=True)
    command()
    """
    with Driver(code, env=cluster.environment) as driver:
        driver.report()
    with cluster.connected():
        eventually(lambda: cpus_in_bundles() == 0, "the bundles are given back")
        assert placement_group([{"CPU": 2}] * 3).wait(30)


# --- the GCS ---


@pytest.fixture(scope="module")
def deployed() -> Iterator[DeployedCluster]:
    with DeployedCluster() as cluster:
        for _ in range(2):
            cluster.add_node(cpus=4)
        yield cluster


def rows(cluster: DeployedCluster) -> dict[str, pb.PlacementGroupInfo]:
    """What lies in etcd, as its own client sees it."""
    found = cluster.rows().items()
    table = "placement_group/"
    return {
        key.removeprefix(table): pb.PlacementGroupInfo.FromString(row) for key, row in found if key.startswith(table)
    }


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_groups_in_every_state_survive_their_gcs(deployed: DeployedCluster, how: str) -> None:
    with deployed.connected():
        running = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD", name="running")
        assert running.wait(60)
        before = nodes_of(running)
        member = Member.options(**inside(running, 1)).remote()  # type: ignore[attr-defined]
        assert shoal.get(member.call.remote()) == (1, before[1])
        pending = placement_group([{"CPU": 4}] * 2)
        removed = placement_group([{"CPU": 1}])
        assert removed.wait(60)
        assert not pending.wait(0.1)
        remove_placement_group(removed)
        assert rows(deployed)[running.id.hex()].state == pb.PLACEMENT_GROUP_STATE_CREATED
        leader = next(number for number in range(2) if deployed.listens(number))
        active = deployed.replicas[leader]
        under_way = [placement_group([{"CPU": 0.1}] * 2, strategy="STRICT_SPREAD") for _ in range(5)]
        active.kill() if how == "killed" else active.stop()
        during = placement_group([{"CPU": 0.1}])
        assert shoal.get(member.call.remote()) == (2, before[1])
        deployed.leads(1 - leader)
        if how == "paused":
            active.resume()
        assert all(group.wait(60) for group in (*under_way, during))
        assert (state(running), nodes_of(running), state(pending)) == ("CREATED", before, "PENDING")
        assert shoal.util.get_placement_group("running") == running
        for group in (*under_way, during, running):
            remove_placement_group(group)
        assert pending.wait(60), "all the others have given back what they had"
        remove_placement_group(pending)
        eventually(lambda: cpus_in_bundles() == 0, "nothing is left of any group")
        if how == "killed":
            deployed.replicas[leader] = deployed.start_gcs(leader)
