"""An active GCS and a standby on real etcd and NATS: what a program sees when one is killed, stopped or paused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest
from support.actors import Counter
from support.deployed import DeployedCluster
from support.processes import PATIENCE_S, eventually

import shoal
from shoal.exceptions import VersionConflictError
from shoal.util import kv
from shoal_common.service.healthcheck import check
from shoal_proto.v1 import gcs_pb2 as pb


@pytest.fixture(scope="module")
def cluster() -> Iterator[DeployedCluster]:
    with DeployedCluster() as cluster:
        cluster.add_node(cpus=2)
        yield cluster


@pytest.fixture
def connected(cluster: DeployedCluster) -> Iterator[None]:
    with cluster.connected():
        yield


@shoal.remote
def increment(value: int) -> int:
    return value + 1


def alive_nodes() -> set[str]:
    return {node["NodeID"] for node in shoal.nodes() if node["Alive"]}


def rows(cluster: DeployedCluster, table: str) -> dict[str, bytes]:
    """What lies in etcd, as its own client sees it."""
    prefix = f"{table}/"
    return {key.removeprefix(prefix): row for key, row in cluster.rows().items() if key.startswith(prefix)}


def actor_states(cluster: DeployedCluster) -> list[int]:
    return [pb.ActorInfo.FromString(row).state for row in rows(cluster, "actor").values()]


@pytest.mark.parametrize("how", ["killed", "stopped", "paused"])
@pytest.mark.usefixtures("connected")
def test_a_standby_takes_over_and_a_program_goes_on(cluster: DeployedCluster, how: str) -> None:
    before = Counter.remote()
    assert shoal.get(before.add.remote()) == 1
    leader = next(number for number in range(2) if cluster.listens(number))
    standby = 1 - leader
    active = cluster.replicas[leader]
    under_way = [Counter.remote() for _ in range(5)]
    match how:
        case "killed":
            active.kill()
        case "stopped":
            active.end()
        case "paused":
            active.stop()
    during = [Counter.remote() for _ in range(5)]
    # What runs needs no GCS.
    assert shoal.get([before.add.remote(), increment.remote(1)]) == [2, 2]
    cluster.leads(standby)
    if how == "paused":
        active.resume()
        eventually(lambda: "gcs_leads_no_more" in active.text(), "it finds that it has been replaced")
    assert shoal.get([counter.add.remote() for counter in (*under_way, *during)]) == [1] * 10
    assert shoal.get(before.add.remote()) == 3
    assert alive_nodes() == {cluster.nodes[0].node_id}
    assert actor_states(cluster).count(pb.ACTOR_STATE_ALIVE) >= 11
    del before, under_way, during
    eventually(lambda: pb.ACTOR_STATE_ALIVE not in actor_states(cluster), "the actors without handles have ended")
    if how != "paused":
        cluster.replicas[leader] = cluster.start_gcs(leader)
    assert not cluster.listens(leader), "a standby does not listen"
    if how == "paused":
        cluster.replicas[standby].kill()
        cluster.leads(leader)
        assert shoal.get(Counter.remote().add.remote()) == 1, "the one that had lost the lead has it again"
        cluster.replicas[standby] = cluster.start_gcs(standby)


@pytest.mark.usefixtures("connected")
def test_named_actors_jobs_and_nodes_are_known_to_the_next_one(cluster: DeployedCluster) -> None:
    kept = Counter.options(name="kept", lifetime="detached", namespace="space").remote()
    assert shoal.get(kept.add.remote()) == 1
    leader = next(number for number in range(2) if cluster.listens(number))
    cluster.replicas[leader].kill()
    found = shoal.get_actor("kept", namespace="space")
    assert shoal.get(found.add.remote()) == 2
    assert cluster.listens(1 - leader)
    cluster.replicas[leader] = cluster.start_gcs(leader)
    shoal.kill(kept)
    with pytest.raises(ValueError, match="kept"):
        shoal.get_actor("kept", namespace="space")


@pytest.mark.usefixtures("connected")
def test_the_map_of_programs_is_in_etcd(cluster: DeployedCluster) -> None:
    version = kv.put("k", b"1")
    brief = kv.put("brief", b"x", ttl_s=2)
    seen: list[kv.Entry | None] = []
    watch = threading.Thread(target=lambda: seen.append(kv.watch("k", version, timeout_s=PATIENCE_S)))
    watch.start()
    leader = next(number for number in range(2) if cluster.listens(number))
    cluster.replicas[leader].kill()
    assert kv.get("k") == kv.Entry(b"1", version)
    assert kv.watch("brief", brief, timeout_s=PATIENCE_S) is None, "its time is over"
    with pytest.raises(VersionConflictError):
        kv.put("k", b"2", expected_version=version + 1)
    other = kv.put("k", b"2", expected_version=version)
    watch.join()
    assert seen == [kv.Entry(b"2", other)], "its question is asked again where the new one listens"
    cluster.replicas[leader] = cluster.start_gcs(leader)


def test_a_program_that_starts_while_nobody_leads_waits(cluster: DeployedCluster) -> None:
    leader = next(number for number in range(2) if cluster.listens(number))
    cluster.replicas[leader].kill()
    with cluster.connected():
        assert shoal.get(increment.remote(1)) == 2
    cluster.replicas[leader] = cluster.start_gcs(leader)


@pytest.mark.usefixtures("connected")
def test_a_large_function_lies_in_chunks_on_all_shards(cluster: DeployedCluster) -> None:
    weights = bytes(range(256)) * 12_000

    @shoal.remote(num_cpus=0)
    class Model:
        def total(self) -> int:
            return sum(weights[:1000]) + len(weights)

    first = Model.remote()
    assert shoal.get(first.total.remote()) == sum(weights[:1000]) + len(weights)
    chunks = [key for key in rows(cluster, "function") if key.count("/") == 2]
    assert len(chunks) == 3
    leader = next(number for number in range(2) if cluster.listens(number))
    cluster.replicas[leader].end()
    cluster.leads(1 - leader)
    node = cluster.add_node(cpus=2, resources={"second": 1})
    second = Model.options(resources={"second": 1}).remote()
    assert shoal.get(second.total.remote()) == sum(weights[:1000]) + len(weights)
    node.end()
    cluster.replicas[leader] = cluster.start_gcs(leader)


@pytest.mark.usefixtures("connected")
def test_while_a_shard_is_away_creation_waits_and_running_work_goes_on(cluster: DeployedCluster) -> None:
    before = Counter.remote()
    assert shoal.get(before.add.remote()) == 1
    cluster.etcd[1].kill()
    waiting = [Counter.remote() for _ in range(4)]
    assert shoal.get(before.add.remote()) == 2
    cluster.etcd[1].start()
    assert shoal.get([counter.add.remote() for counter in waiting]) == [1] * 4


@pytest.mark.usefixtures("connected")
def test_nats_killed_and_started_again_kills_nobody(cluster: DeployedCluster) -> None:
    before = Counter.remote()
    assert shoal.get(before.add.remote()) == 1
    cluster.nats.kill()
    eventually(lambda: "lost, connecting again" in cluster.nodes[0].text(), "the raylet has noticed")
    # For longer than the silence after which raylets are asked directly, and the checks that would have to fail then.
    outage_over = time.monotonic() + 4
    while time.monotonic() < outage_over:
        assert alive_nodes() == {cluster.nodes[0].node_id}
        time.sleep(0.2)
    after = Counter.remote()
    assert shoal.get([before.add.remote(), after.add.remote()]) == [2, 1]
    cluster.nats.start()
    eventually(lambda: "connected to NATS" in cluster.nodes[0].text(), "the raylet is back")
    # Placement by the scheduler, which hears of resources in heartbeats only.
    assert shoal.get(Counter.options(num_cpus=2).remote().add.remote()) == 1
    node = pb.NodeInfo.FromString(rows(cluster, "node")[cluster.nodes[0].node_id])
    assert node.state == pb.NODE_STATE_ALIVE


def test_the_output_of_a_program_is_shown_again_after_a_failover(cluster: DeployedCluster) -> None:
    from support.drivers import Driver

    code = """
    ray.init()

    @ray.remote(num_cpus=0)
    class Speaker:
        def say(self, text):
            print(text)

    speaker = Speaker.remote()
    while (text := command()) != "end":
        ray.get(speaker.say.remote(text))
        report(said=text)
    """
    with Driver(code, env=cluster.environment) as driver:
        driver.tell("before")
        driver.report()
        leader = next(number for number in range(2) if cluster.listens(number))
        cluster.replicas[leader].kill()
        cluster.leads(1 - leader)

        def heard() -> bool:
            driver.tell("after")
            driver.report()
            return any("after" in line for line in driver.output)

        eventually(heard, "the driver shows what its actor says")
        driver.tell("end")
        assert driver.wait() == 0
    cluster.replicas[leader] = cluster.start_gcs(leader)


def test_both_roles_are_healthy_and_the_leader_is_named_in_etcd(cluster: DeployedCluster) -> None:
    leader = next(number for number in range(2) if cluster.listens(number))
    assert str(cluster.replicas[leader].pid) in (cluster.etcd[0].value("/shoal/leader") or b"").decode()
    markers = [json.loads(server.value("/shoal/shard") or b"") for server in cluster.etcd]
    assert [(m["index"], m["count"], m["cluster_id"]) for m in markers] == [(0, 2, "test"), (1, 2, "test")]
    assert [check(address) for address in cluster.health_addresses] == ["", ""]
