"""``shoal.cluster_utils.Cluster``: several nodes on this machine, as Ray's tests use it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.drivers import Driver
from support.processes import PATIENCE_S, all_gone, descendants, eventually

import shoal
from shoal import cli, exceptions
from shoal.cluster_utils import NOT_IMPLEMENTED, Cluster
from shoal.util.scheduling_strategies import In, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    # What waits for a node to join waits for as long as a test does.
    grace = {"SHOAL_RAYLET_INFEASIBLE_GRACE_S": str(PATIENCE_S)}
    head = {"num_cpus": 1, "labels": {"zone": "a"}, "env_vars": grace}
    cluster = Cluster(initialize_head=True, head_node_args=head, _gcs_flags={"infeasible_grace_s": PATIENCE_S})
    yield cluster
    pids = {daemon.pid for node in cluster.list_all_nodes() for daemon in node.daemons}
    pids |= {child for pid in pids for child in descendants(pid)}
    cluster.shutdown()
    all_gone(pids)
    assert "SHOAL_AUTH_TOKEN" not in os.environ


@shoal.remote
def where() -> str:
    return shoal.get_runtime_context().get_node_id()


def test_programs_of_this_machine_find_it(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.add_node(num_cpus=2)
    assert cluster.head_node is not None
    for address in (None, "auto"):
        context = shoal.init(address)
        assert (context["gcs_address"], context["node_id"]) == (cluster.address, cluster.head_node.node_id)
        assert shoal.cluster_resources()["CPU"] == 3
        shoal.shutdown()
    monkeypatch.delenv("SHOAL_AUTH_TOKEN")  # of whoever is no child of this process
    with Driver("report(address=ray.init()['gcs_address'])") as other:
        assert other.report() == {"address": cluster.address}
        assert other.wait() == 0
    assert cli.main(["stop"]) == 0, "what `shoal start` has made, and nothing else"
    monkeypatch.setenv("SHOAL_AUTH_TOKEN", cluster.head_node.cluster.token)
    cluster.wait_for_nodes()


def test_a_node_that_leaves_is_seen_to(cluster: Cluster, tmp_path: Path) -> None:
    cluster.connect()
    leaving = cluster.add_node(num_cpus=1, resources={"there": 2}, env_vars={"SHOAL_RAYLET_DRAIN_S": "60"})
    running, end, told, told_elsewhere = (tmp_path / name for name in ("running", "end", "told", "told_elsewhere"))

    @shoal.remote(num_cpus=0, resources={"there": 1})
    def work() -> None:
        running.touch()
        while not end.exists():
            time.sleep(0.01)

    @shoal.remote(num_cpus=0, resources={"there": 1})
    class Watcher:
        def __init__(self) -> None:
            shoal.get_runtime_context().on_drain(lambda deadline: told.write_text(str(deadline)))

        def ready(self) -> None: ...

    def seen() -> dict[str, Any]:
        return next(node for node in shoal.nodes() if node["NodeID"] == leaving.node_id)

    shoal.get_runtime_context().on_drain(lambda deadline: told_elsewhere.touch())
    assert (seen()["State"], seen()["DrainDeadline"]) == ("ALIVE", None)
    watcher = Watcher.remote()
    shoal.get(watcher.ready.remote())
    ref = work.remote()
    eventually(running.exists, "the task runs")
    before = time.time()
    ending = threading.Thread(target=cluster.remove_node, args=[leaving])
    ending.start()
    eventually(lambda: seen()["State"] == "DRAINING", "the node is about to leave")
    assert before + 60 < seen()["DrainDeadline"] < time.time() + 600
    assert seen()["Alive"]
    eventually(lambda: told.exists() and told.read_text(), "the actor there is told")
    assert float(told.read_text()) == seen()["DrainDeadline"]
    assert not told_elsewhere.exists()
    end.touch()
    shoal.get(ref)
    ending.join()
    eventually(lambda: seen()["State"] == "DEAD", "the node has left")


def test_a_drained_node_grants_nothing_new_and_keeps_what_runs(cluster: Cluster) -> None:
    cluster.connect()
    assert cluster.head_node is not None

    @shoal.remote(num_cpus=0)
    class Where:
        def node_id(self) -> str:
            return shoal.get_runtime_context().get_node_id()

    told = threading.Event()
    shoal.get_runtime_context().on_drain(lambda deadline: told.set())
    stays = Where.remote()
    assert shoal.get([stays.node_id.remote(), where.remote()]) == [cluster.head_node.node_id] * 2
    assert cli.main(["drain", cluster.head_node.node_id, "--address", cluster.address]) == 0
    assert told.wait(PATIENCE_S)
    task, call = where.remote(), Where.remote().node_id.remote()
    eventually(lambda: "is draining: it takes nothing new" in str(shoal.explain(task)), "the task waits")
    eventually(lambda: "1 of 1 nodes drain" in str(shoal.explain(call)), "the actor waits")
    assert shoal.get(stays.node_id.remote()) == cluster.head_node.node_id
    with Driver("report(node_id=ray.init(LATER)['node_id'])".replace("LATER", repr(cluster.address))) as later:
        assert later.report() == {"node_id": cluster.head_node.node_id}, "there is no other to attach to"
        assert later.wait() == 0
    added = cluster.add_node(num_cpus=1)
    assert shoal.get([task, call]) == [added.node_id] * 2


def test_free_room_of_a_store_is_seen(cluster: Cluster) -> None:
    cluster.connect()

    def free() -> float:
        (node,) = shoal.nodes()
        return node["Available"]["object_store_memory"]

    room = free()
    ref = shoal.put(bytes(50_000_000))
    eventually(lambda: free() <= room - 50_000_000, "the object takes room")
    del ref
    eventually(lambda: free() == room, "the room is free again")


def test_nodes_come_and_go(cluster: Cluster) -> None:
    cluster.connect(namespace="n")
    big = cluster.add_node(num_cpus=2, resources={"disk": 4}, labels={"zone": "b"}, object_store_memory=80_000_000)
    cluster.wait_for_nodes()
    assert cluster.head_node is not None
    assert cluster.list_all_nodes() == [cluster.head_node, big]
    assert cluster.gcs_address == cluster.address == shoal.get_runtime_context().gcs_address
    assert shoal.cluster_resources()["CPU"] == 3
    assert {node["Labels"]["zone"] for node in shoal.nodes()} == {"a", "b"}

    here, there = cluster.head_node.node_id, big.node_id
    by_label = NodeLabelSchedulingStrategy({"zone": In("b", "c")})
    assert shoal.get(where.options(resources={"disk": 1}).remote()) == there
    assert shoal.get(where.options(label_selector={"zone": "!b"}).remote()) == here
    assert shoal.get(where.options(scheduling_strategy=by_label).remote()) == there
    assert (
        shoal.get(where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(there, soft=False)).remote())
        == there
    )
    fallback = where.options(label_selector={"zone": "z"}, fallback_strategy=[{"label_selector": {"zone": "b"}}])
    assert shoal.get(fallback.remote()) == there

    cluster.remove_node(big)
    cluster.wait_for_nodes()
    assert cluster.list_all_nodes() == [cluster.head_node]
    with pytest.raises(exceptions.TaskUnschedulableError):
        shoal.get(where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(there, soft=False)).remote())
    assert (
        shoal.get(where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(there, soft=True)).remote()) == here
    )


def test_a_node_lost_without_a_word_is_noticed(cluster: Cluster) -> None:
    node = cluster.add_node()
    shoal.init(cluster.address)
    cluster.remove_node(node, allow_graceful=False)
    cluster.wait_for_nodes()
    dead = next(each for each in shoal.nodes() if each["NodeID"] == node.node_id)
    assert not dead["Alive"]
    assert dead["DeathReasonMessage"]
    with pytest.raises(ValueError, match="not one of this cluster"):
        cluster.remove_node(node)


def test_a_node_of_its_own_environment_and_address(cluster: Cluster) -> None:
    node = cluster.add_node(
        num_cpus=0, resources={"there": 1}, env_vars={"OF_THE_NODE": "yes"}, node_ip_address="127.0.0.2"
    )
    assert node.unique_id == node.node_id

    @shoal.remote(num_cpus=0, resources={"there": 1})
    def environment() -> tuple[str | None, str]:
        return os.environ.get("OF_THE_NODE"), shoal.get_runtime_context().get_node_id()

    shoal.init(cluster.address)
    assert shoal.get(environment.remote(), timeout=60) == ("yes", node.node_id)
    addresses = {each["NodeID"]: each["NodeManagerAddress"] for each in shoal.nodes()}
    assert addresses[node.node_id] == "127.0.0.2"
    node.kill_raylet()
    assert [daemon.service for daemon in node.dead()] == ["raylet"]
    cluster.remove_node(node, allow_graceful=False)
    cluster.wait_for_nodes()


@shoal.remote(num_cpus=0)
def block_of_bytes(_: object = None) -> bytes:
    return bytes(2_000_000)


def test_wait_brings_objects_here_unless_told_otherwise(cluster: Cluster) -> None:
    """What has come to this node outlives its own."""
    other = cluster.add_node(num_cpus=1)
    shoal.init(cluster.address)
    strategy = NodeAffinitySchedulingStrategy(other.node_id, soft=False)
    there = block_of_bytes.options(scheduling_strategy=strategy, max_retries=0)
    brought, polled, left = there.remote(), there.remote(), there.remote()
    assert shoal.wait([left], timeout=60, fetch_local=False)[0] == [left]
    assert shoal.wait([brought], timeout=60)[0] == [brought]
    eventually(lambda: shoal.wait([polled], timeout=0)[0] == [polled], "an object that is asked for comes")
    cluster.remove_node(other, allow_graceful=False)
    cluster.wait_for_nodes()
    assert shoal.get([brought, polled], timeout=60) == [bytes(2_000_000)] * 2
    with pytest.raises(exceptions.ObjectReconstructionFailedError, match="max_retries=0"):
        shoal.get(left, timeout=60)


def test_wait_for_one_of_many_elsewhere(cluster: Cluster) -> None:
    other = cluster.add_node(num_cpus=1)
    shoal.init(cluster.address)
    there = block_of_bytes.options(scheduling_strategy=NodeAffinitySchedulingStrategy(other.node_id, soft=False))
    rest, seen = [there.remote(number) for number in range(30)], 0
    while rest:
        ready, rest = shoal.wait(rest, timeout=60)
        seen += len(ready)
        assert shoal.get(ready[0], timeout=60) == bytes(2_000_000)
    assert seen == 30


def test_waiting_for_nodes_has_an_end(cluster: Cluster) -> None:
    node = cluster.add_node()
    cluster.worker_nodes.remove(node)
    with pytest.raises(TimeoutError, match="2 nodes instead of 1"):
        cluster.wait_for_nodes(timeout=0.1)
    cluster.worker_nodes.append(node)


def test_arguments_are_checked(cluster: Cluster) -> None:
    with pytest.raises(TypeError, match="num_disks"):
        cluster.add_node(num_disks=1)
    with pytest.raises(ValueError, match="num_cpus"):
        cluster.add_node(num_cpus=-1)
    for name in NOT_IMPLEMENTED:
        with pytest.raises(ValueError, match=f"{name}=1 is not implemented by Shoal: [a-z]"):
            cluster.add_node(**{name: 1})
    with pytest.raises(ValueError, match="initialize_head"):
        Cluster(head_node_args={"num_cpus": 1})
    assert len(cluster.list_all_nodes()) == 1


def test_it_ends_with_the_process_that_made_it() -> None:
    program = """
    from shoal.cluster_utils import Cluster
    cluster = Cluster(initialize_head=True, connect=True)
    cluster.add_node()
    report(pids=[daemon.pid for node in cluster.list_all_nodes() for daemon in node.daemons], root=str(cluster._root))
    command()
    """
    with Driver(program) as driver:
        facts = driver.report()
        pids = set(facts["pids"])
        pids |= {child for pid in pids for child in descendants(pid)}
        driver.process.kill()
        all_gone(pids)
    eventually(lambda: not os.path.exists(facts["root"]), "the files of the cluster are gone")
