"""The state is where it survives, looked up with the servers' own clients."""

from __future__ import annotations

import asyncio

import nats
from support.processes import eventually
from support.stack import Stack

from shoal_proto.v1 import gcs_pb2 as pb

#: Puts more into a store of 256 MiB than it holds; spills some, tells its job, and reads all back when asked.
SPILLING = """
import numpy as np
ray.init()
refs = [ray.put(np.full(8_000_000, number)) for number in range(8)]
report(job=ray.get_runtime_context().get_job_id())
assert command() == "read"
report(values=[int(ray.get(ref)[-1]) for ref in refs])
assert command() == "forget"
del refs
report(forgotten=True)
command()
"""


#: Has an actor of a given name until it is told to end.
NAMED_ACTORS = """
@ray.remote(num_cpus=0)
class Named:
    def ping(self):
        return "pong"
ray.init()
actors = [Named.options(name=f"named-{number}").remote() for number in range(16)]
assert ray.get([actor.ping.remote() for actor in actors]) == ["pong"] * 16
report(job=ray.get_runtime_context().get_job_id(), actors=[actor._actor_id.hex() for actor in actors])
command()
"""


def test_what_the_cluster_must_not_forget_is_in_etcd_each_row_in_one_shard(stack: Stack) -> None:
    with stack.driver(NAMED_ACTORS) as driver:
        facts = driver.report()
        tables = {
            table: (stack.keys("etcd-1", table), stack.keys("etcd-2", table))
            for table in ("config", "node", "job", "actor", "function")
        }
    for first, second in tables.values():
        assert not set(first) & set(second)
    first, second = tables["actor"]
    assert set(facts["actors"]) <= {*first, *second}
    # By chance all of 16 are in one shard twice in 65,536 runs.
    assert set(first) & set(facts["actors"]) and set(second) & set(facts["actors"])
    assert facts["job"] in {*tables["job"][0], *tables["job"][1]}
    assert len([*tables["node"][0], *tables["node"][1]]) >= 3
    assert [*tables["config"][0], *tables["config"][1]] == ["cluster"]
    assert any(key.startswith(facts["job"]) for key in (*tables["function"][0], *tables["function"][1]))


#: Has a placement group on two nodes until it is told to end.
PLACEMENT_GROUP = """
ray.init()
group = ray.util.placement_group([{"CPU": 0.1}] * 2, strategy="STRICT_SPREAD", name="reserved")
assert group.wait(60)
report(group=group.id.hex(), nodes=list(ray.util.placement_group_table(group)["bundles_to_node_id"].values()))
command()
"""


def test_a_placement_group_and_its_nodes_are_in_etcd(stack: Stack) -> None:
    with stack.driver(PLACEMENT_GROUP) as driver:
        facts = driver.report()
        [shard] = [s for s in ("etcd-1", "etcd-2") if facts["group"] in stack.keys(s, "placement_group")]
        row = stack.row(shard, "placement_group", facts["group"])
        group = pb.PlacementGroupInfo.FromString(row)
        assert (group.name, group.state) == ("reserved", pb.PLACEMENT_GROUP_STATE_CREATED)
        assert [bundle.node_id.hex() for bundle in group.bundles] == facts["nodes"]
        assert len(set(facts["nodes"])) == 2

    def state() -> int:
        return pb.PlacementGroupInfo.FromString(stack.row(shard, "placement_group", facts["group"])).state

    eventually(lambda: state() == pb.PLACEMENT_GROUP_STATE_REMOVED, "it ends with its driver")


def test_both_shards_know_the_epoch_of_the_leader(stack: Stack) -> None:
    epochs = {stack.etcdctl(shard, "get", "/shoal/epoch", "--print-value-only") for shard in ("etcd-1", "etcd-2")}
    assert len(epochs) == 1 and epochs != {""}
    assert stack.active_gcs().status == "running"


async def test_heartbeats_of_every_node_are_on_nats(stack: Stack) -> None:
    heard: set[str] = set()
    complete = asyncio.Event()

    async def hear(message: nats.aio.msg.Msg) -> None:
        heard.add(message.subject.rpartition(".")[2])
        if len(heard) == 4:
            complete.set()

    client = await nats.connect(
        f"nats://{stack.address('nats')}:4222", token=stack.read("gcs", "/run/shoal/token"), allow_reconnect=False
    )
    try:
        await client.subscribe("shoal.default.heartbeat.*", cb=hear)
        await asyncio.wait_for(complete.wait(), timeout=60)
    finally:
        await client.close()
    known = {node for shard in ("etcd-1", "etcd-2") for node in stack.keys(shard, "node")}
    assert heard <= known


def test_spilled_objects_are_in_minio_until_their_last_reference_goes(stack: Stack) -> None:
    with stack.driver(SPILLING) as driver:
        job = driver.report()["job"]
        eventually(lambda: stack.spilled(job), "something is spilled")
        driver.tell("read")
        assert driver.report()["values"] == list(range(8))
        driver.tell("forget")
        assert driver.report()["forgotten"]
        eventually(lambda: not stack.spilled(job), "MinIO has nothing of it any more")


def test_what_a_dead_driver_spilled_is_swept(stack: Stack) -> None:
    with stack.driver(SPILLING) as driver:
        job = driver.report()["job"]
        eventually(lambda: stack.spilled(job), "something is spilled")
    eventually(lambda: not stack.spilled(job), "MinIO has nothing of the job any more")


def test_any_objectstore_replica_restores(shaken: Stack) -> None:
    with shaken.driver(SPILLING) as driver:
        job = driver.report()["job"]
        eventually(lambda: shaken.spilled(job), "something is spilled")
        shaken.running("objectstore")[0].kill()
        driver.tell("read")
        assert driver.report()["values"] == list(range(8))
        driver.tell("forget")
        driver.report()
