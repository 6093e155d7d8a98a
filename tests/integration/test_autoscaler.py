"""The autoscaler, with nodes that are processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.processes import eventually

import shoal
from shoal.autoscaler.sdk import request_resources
from shoal.cluster_utils import AutoscalingCluster
from shoal.util.placement_group import placement_group


@pytest.fixture(scope="module")
def autoscaling() -> Iterator[AutoscalingCluster]:
    types = {
        "small": {"resources": {"CPU": 1, "object_store_memory": 80 * 2**20}, "node_config": {}, "max_workers": 2},
        "special": {
            "resources": {"CPU": 1, "gold": 1, "object_store_memory": 80 * 2**20},
            "labels": {"kind": "special"},
            "max_workers": 1,
        },
    }
    cluster = AutoscalingCluster({"CPU": 0}, types, idle_timeout_minutes=0.02)
    cluster.start()
    shoal.init(cluster.address)
    yield cluster
    cluster.shutdown()


def living() -> int:
    return sum(node["Alive"] for node in shoal.nodes())


@shoal.remote(num_cpus=1)
def where() -> str:
    return shoal.get_runtime_context().get_node_id()


@pytest.mark.usefixtures("autoscaling")
def test_nodes_come_for_what_waits_and_go_when_nobody_needs_them() -> None:
    assert len(set(shoal.get([where.remote() for _ in range(20)]))) >= 1
    eventually(lambda: living() == 1, "all but the head have gone")
    special = shoal.get([where.options(resources={"gold": 1}).remote() for _ in range(3)])
    assert len(set(special)) == 1
    kept = [shoal.put(bytes(1_000_000)), where.remote()]
    eventually(lambda: living() == 1, "all but the head have gone")
    assert len(shoal.get(kept[0])) == 1_000_000, "nothing is lost with a node that is ended"
    assert isinstance(shoal.get(kept[1]), str)


@pytest.mark.usefixtures("autoscaling")
def test_actors_groups_and_requests() -> None:
    @shoal.remote(num_cpus=1)
    class Actor:
        def where(self) -> str:
            return shoal.get_runtime_context().get_node_id()

    actor = Actor.remote()
    there = shoal.get(actor.where.remote())
    group = placement_group([{"CPU": 1}, {"gold": 1}], strategy="STRICT_SPREAD")
    shoal.get(group.ready())
    assert there in {node["NodeID"] for node in shoal.nodes() if node["Alive"]}, "an actor's node stays"
    del actor
    shoal.util.remove_placement_group(group)
    request_resources(bundles=[{"gold": 1}])
    eventually(lambda: living() == 2, "what is asked for stays without use")
    eventually(lambda: shoal.cluster_resources().get("gold") == 1, "and it is the node that was asked for")
    request_resources(num_cpus=0)
    eventually(lambda: living() == 1, "all but the head have gone")
