"""What happens to nodes, actors, jobs and workers: told once, and as bad as it is."""

from __future__ import annotations

from shoal_common.events.node_events import ProcessInfo
from shoal_common.kinds import ExitKind
from shoal_dashboard.events.cluster_events import ClusterEvents, of_process
from shoal_proto.v1 import common_pb2
from shoal_proto.v1 import gcs_pb2 as pb

NODE, ACTOR, JOB = b"n" * 16, b"a" * 16, b"\0\0\0\1"


def test_a_node_comes_drains_and_is_gone() -> None:
    events = ClusterEvents()
    node = pb.NodeInfo(node_id=NODE, state=pb.NODE_STATE_ALIVE, host="h", incarnation=1, start_unix_ms=5)
    told = [events.of_node(node, 9), events.of_node(node, 10)]
    node.state = pb.NODE_STATE_DRAINING
    told.append(events.of_node(node, 11))
    node.state, node.death_reason, node.end_unix_ms = pb.NODE_STATE_DEAD, "killed", 12
    told.append(events.of_node(node, 20))
    found = [(event.at_ms, event.kind, event.severity) for event in told if event is not None]
    assert found == [(5, "NODE_ALIVE", "INFO"), (11, "NODE_DRAINING", "WARNING"), (12, "NODE_DEAD", "ERROR")]


def test_an_actor_that_crashes_and_one_that_is_killed() -> None:
    events = ClusterEvents()
    actor = pb.ActorInfo(actor_id=ACTOR, job_id=JOB, class_name="A", state=pb.ACTOR_STATE_PENDING_CREATION)
    assert events.of_actor(actor, 1) is None
    actor.state, actor.incarnation, actor.pid = pb.ACTOR_STATE_ALIVE, 1, 77
    alive = events.of_actor(actor, 2)
    actor.state = pb.ACTOR_STATE_RESTARTING
    actor.exit.CopyFrom(common_pb2.WorkerExit(detail="killed by SIGKILL"))
    restarting = events.of_actor(actor, 3)
    actor.state, actor.incarnation, actor.death_reason = pb.ACTOR_STATE_DEAD, 2, "too many restarts"
    dead = events.of_actor(actor, 4)
    assert alive is not None and "77" in alive.message
    assert restarting is not None and "SIGKILL" in restarting.message
    assert dead is not None and (dead.severity, "too many restarts" in dead.message) == ("ERROR", True)
    other = pb.ActorInfo(actor_id=b"b" * 16, state=pb.ACTOR_STATE_DEAD, killed=True)
    killed = events.of_actor(other, 5)
    assert killed is not None and killed.severity == "INFO"


def test_a_job_begins_and_ends() -> None:
    events = ClusterEvents()
    job = pb.JobInfo(job_id=JOB, entrypoint="train.py", start_unix_ms=3)
    begun = events.of_job(job, 9)
    job.end_unix_ms = 8
    ended = events.of_job(job, 9)
    assert begun is not None and (begun.at_ms, begun.kind, "train.py" in begun.message) == (3, "JOB_STARTED", True)
    assert ended is not None and (ended.at_ms, ended.kind) == (8, "JOB_FINISHED")


def test_a_worker_that_was_not_to_end() -> None:
    def ended(kind: str) -> ProcessInfo:
        return ProcessInfo(b"w", 12, JOB, ACTOR, 1, 9, kind, "because")

    died = of_process(ended(ExitKind.SYSTEM_ERROR), NODE)
    assert died is not None
    assert (died.kind, died.at_ms, died.ids["actor_id"]) == ("WORKER_DIED", 9, ACTOR.hex())
    assert of_process(ended(ExitKind.INTENDED_SYSTEM_EXIT), NODE) is None
    assert of_process(ProcessInfo(b"w", 12, JOB, ACTOR, 1), NODE) is None, "it lives"


def test_a_placement_group_waits_is_placed_loses_a_bundle_and_is_removed() -> None:
    events = ClusterEvents()
    bundles = [pb.BundleInfo(), pb.BundleInfo()]
    group = pb.PlacementGroupInfo(group_id=b"g" * 16, name="g", bundles=bundles, state=pb.PLACEMENT_GROUP_STATE_PENDING)
    told = [events.of_group(group, 1), events.of_group(group, 2)]
    for bundle in group.bundles:
        bundle.node_id = NODE
    for state in (pb.PLACEMENT_GROUP_STATE_PREPARED, pb.PLACEMENT_GROUP_STATE_CREATED):
        group.state = state
        told.append(events.of_group(group, 3))
    group.state = pb.PLACEMENT_GROUP_STATE_RESCHEDULING
    group.bundles[1].node_id = b""
    told.append(events.of_group(group, 4))
    group.state, group.removal_reason = pb.PLACEMENT_GROUP_STATE_REMOVED, "its job has finished"
    told.append(events.of_group(group, 5))
    assert [(event.severity, event.message) for event in told if event is not None] == [
        ("INFO", "Placement group 'g' waits for its 2 bundles"),
        ("INFO", "Placement group 'g' has its 2 bundles, on 1 nodes"),
        ("WARNING", "Placement group 'g' has lost 1 of 2 bundles with their node, and seeks places for them"),
        ("INFO", "Placement group 'g' was removed: its job has finished"),
    ]
