"""Nodes that lose their cluster: fenced and back, a head that is away, replaced, or has moved."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.clusters import ProcessCluster, RayletProcess
from support.processes import all_gone, eventually

import shoal


@pytest.fixture
def cluster() -> Iterator[ProcessCluster]:
    """Two nodes: the driver's with the resource ``home``, and one with ``there``."""
    with ProcessCluster() as cluster:
        cluster.add_node(cpus=1, resources={"home": 1})
        cluster.add_node(cpus=1, resources={"there": 1})
        yield cluster


@shoal.remote
class Counter:
    def __init__(self) -> None:
        self.value = 0

    def add(self) -> tuple[int, int]:
        self.value += 1
        return self.value, os.getpid()


def living() -> set[str]:
    return {node["NodeID"] for node in shoal.nodes() if node["Alive"]}


def test_a_node_that_comes_to_after_it_was_given_up_joins_anew(cluster: ProcessCluster) -> None:
    """What it had runs elsewhere by then: all of it ends before anything new begins there."""
    home, victim = cluster.nodes
    with cluster.connected():
        actor = Counter.options(num_cpus=0, resources={"there": 1}, max_restarts=1).remote()  # type: ignore[attr-defined]
        value, pid = shoal.get(actor.add.remote())
        assert value == 1
        left = victim.processes()
        victim.freeze()
        eventually(lambda: living() == {home.node_id}, "the node is given up")
        victim.thaw()
        all_gone(left)
        eventually(lambda: living() == {home.node_id, victim.node_id}, "the node is back")
        # A new incarnation, on the node that has joined anew.
        value, another_pid = eventually(lambda: added(actor), "the actor is back")
        assert value == 1 and another_pid != pid and another_pid in victim.processes()
        assert "has declared this node dead" in victim.text()
    victim.terminate()
    assert victim.wait() == 0


def added(actor: object) -> tuple[int, int] | None:
    try:
        answer: tuple[int, int] = shoal.get(actor.add.remote())  # type: ignore[attr-defined]
        return answer
    except shoal.exceptions.ActorUnavailableError:
        return None


def test_a_head_that_is_started_again_finds_its_nodes_and_they_never_notice(cluster: ProcessCluster) -> None:
    with cluster.connected(namespace="mine"):
        kept = Counter.options(name="kept", num_cpus=0, resources={"there": 1}).remote()  # type: ignore[attr-defined]
        first = shoal.get(kept.add.remote())
        group = shoal.util.placement_group([{"CPU": 1}], name="bundles")
        assert group.wait(60)
        cluster.gcs.kill()
        assert shoal.get(kept.add.remote()) == (2, first[1])
        cluster.start_the_gcs()
        assert shoal.get(shoal.get_actor("kept").add.remote()) == (3, first[1])
        assert shoal.util.get_placement_group("bundles") == group
        assert shoal.util.placement_group_table(group)["state"] == "CREATED"
        assert living() == {node.node_id for node in cluster.nodes}
        another = Counter.options(num_cpus=0).remote()  # type: ignore[attr-defined]
        assert shoal.get(another.add.remote())[0] == 1


def ends(nodes: list[RayletProcess], because: str) -> None:
    """With an error, so that whoever supervises it starts it anew."""
    for node in nodes:
        assert node.wait() == 1
        assert because in node.text()


def test_a_raylet_ends_that_finds_another_cluster_at_its_heads_address(cluster: ProcessCluster) -> None:
    left = {pid for node in cluster.nodes for pid in node.processes()}
    cluster.gcs.kill()
    cluster.start_the_gcs(store="another.sqlite")
    ends(cluster.nodes, "does not know this node: it is another cluster's")
    all_gone(left)


def test_a_raylet_ends_that_finds_no_head_for_long() -> None:
    with ProcessCluster() as cluster:
        node = cluster.add_node(cpus=1, rejoin_timeout_s=0.5)
        left = node.processes()
        cluster.gcs.kill()
        ends([node], "no GCS at")
        all_gone(left)
