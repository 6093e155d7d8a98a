"""Rows out of what the GCS and raylets tell: they have all columns of their kind, and Ray's words."""

from __future__ import annotations

from shoal_common.state_rows import (
    ActorState,
    JobState,
    NodeState,
    ObjectState,
    PlacementGroupState,
    RuntimeEnvState,
    StateRow,
    TaskState,
    WorkerState,
)
from shoal_dashboard.events.rows import FunctionCounts, LineageNode, TaskRow
from shoal_dashboard.jobs import details
from shoal_dashboard.state import cluster_rows, node_rows, page_rows, task_rows
from shoal_dashboard.state.query import Filter, Query, QueryError, Row
from shoal_proto.v1 import common_pb2, raylet_pb2
from shoal_proto.v1 import gcs_pb2 as pb

NODE = pb.NodeInfo(
    node_id=b"n" * 16,
    state=pb.NODE_STATE_ALIVE,
    host="10.0.0.1",
    raylet_address="10.0.0.1:6384",
    total=common_pb2.ResourceAmounts(grains={"CPU": 40_000, "node:__internal_head__": 10_000}),
    available=common_pb2.ResourceAmounts(grains={"CPU": 25_000}),
    labels={"zone": "a"},
    start_unix_ms=5,
)
JOB = pb.JobInfo(job_id=b"\0\0\0\1", driver_id=b"d" * 16, pid=7, entrypoint="python x.py", node_id=b"n" * 16)
HOSTS = {b"n" * 16: "10.0.0.1"}


def columns(row: Row, kind: type[StateRow]) -> Row:
    assert set(row) == set(kind.columns())
    return row


def test_a_node() -> None:
    row = columns(cluster_rows.node(NODE), NodeState)
    assert (row["state"], row["is_head_node"], row["resources_total"]["CPU"]) == ("ALIVE", True, 4.0)
    draining = pb.NodeInfo(node_id=b"m" * 16, state=pb.NODE_STATE_DRAINING)
    row = cluster_rows.node(draining)
    assert row["state"] == "ALIVE" and row["state_message"].startswith("draining")
    dead = pb.NodeInfo(node_id=b"m" * 16, state=pb.NODE_STATE_DEAD, death_reason="it was silent", end_unix_ms=9)
    row = cluster_rows.node(dead)
    assert (row["state"], row["state_message"], row["end_time_ms"]) == ("DEAD", "it was silent", 9)


def test_a_job_of_a_driver() -> None:
    ended = pb.JobInfo(job_id=b"\0\0\0\2", start_unix_ms=10, end_unix_ms=12)
    newest, first = details.of_all([], [JOB, ended], HOSTS)
    assert set(JobState.columns()) <= set(first)
    assert (first["status"], first["type"], first["end_time"]) == ("RUNNING", "DRIVER", None)
    assert first["driver_info"] == {"id": "00000001", "node_ip_address": "10.0.0.1", "pid": "7"}
    assert (newest["status"], newest["message"]) == ("SUCCEEDED", None)
    ended.pid, ended.failure = 7, "KeyError: 'x'"
    failed = details.of_driver(ended, HOSTS)
    assert (failed["status"], failed["message"]) == ("FAILED", "The driver, pid 7, has failed: KeyError: 'x'.")


def test_a_job_with_a_name() -> None:
    named = pb.JobInfo(job_id=b"\0\0\0\2", namespace="space", name="nightly")
    assert details.of_driver(named, HOSTS)["message"] == (
        "The job 'nightly' of namespace 'space' is attached to this driver."
    )
    named.end_unix_ms, named.kept_until_unix_ms = 1_000, 86_400_000
    away = details.of_driver(named, HOSTS)["message"]
    assert away.endswith("is away: what it has left is kept until 1970-01-02 00:00:00 UTC.")
    named.kept_until_unix_ms = 0
    assert details.of_driver(named, HOSTS)["message"].endswith("was attached to this driver.")
    assert details.of_driver(JOB, HOSTS)["message"] is None


def test_an_actor() -> None:
    alive = pb.ActorInfo(actor_id=b"a" * 16, state=pb.ACTOR_STATE_ALIVE, class_name="A", pid=3, restarts=2)
    row = columns(cluster_rows.actor(alive), ActorState)
    assert (row["state"], row["num_restarts"], row["death_cause"], row["node_id"]) == ("ALIVE", 2, None, None)
    assert (row["required_resources"], row["placement_group_id"], row["serialized_runtime_env"]) == ({}, None, None)
    alive.held.grains["CPU"], alive.group_id, alive.runtime_env = 20_000, b"g" * 18, '{"env_vars": {}}'
    row = columns(cluster_rows.actor(alive), ActorState)
    assert (row["required_resources"], row["placement_group_id"]) == ({"CPU": 2.0}, (b"g" * 18).hex())
    assert row["serialized_runtime_env"] == '{"env_vars": {}}'
    end = common_pb2.WorkerExit(kind=common_pb2.EXIT_KIND_MEMORY_LIMIT, detail="it grew")
    dead = pb.ActorInfo(actor_id=b"a" * 16, state=pb.ACTOR_STATE_DEAD, death_reason="it died", exit=end)
    cause = cluster_rows.actor(dead)["death_cause"]
    assert cause == {"reason": "it died", "exit_type": "NODE_OUT_OF_MEMORY", "exit_detail": "it grew"}


def test_a_placement_group() -> None:
    bundle = pb.BundleInfo(resources=common_pb2.ResourceAmounts(grains={"CPU": 10_000}), node_id=b"n" * 16)
    info = pb.PlacementGroupInfo(
        group_id=b"g" * 16,
        state=pb.PLACEMENT_GROUP_STATE_CREATED,
        strategy=pb.PLACEMENT_STRATEGY_STRICT_PACK,
        bundles=[bundle],
    )
    row = columns(cluster_rows.placement_group(info), PlacementGroupState)
    assert (row["state"], row["stats"]) == ("CREATED", {"strategy": "STRICT_PACK"})
    assert row["bundles"][0]["unit_resources"] == {"CPU": 1.0}


def test_workers_drivers_and_what_they_own() -> None:
    worker = columns(node_rows.worker(raylet_pb2.WorkerStats(worker_id=b"w" * 16, pid=8), NODE), WorkerState)
    driver = columns(node_rows.driver(JOB, HOSTS), WorkerState)
    assert (worker["worker_type"], driver["worker_type"]) == ("WORKER", "DRIVER")
    owners = node_rows.owners([worker, driver])
    stats = raylet_pb2.ObjectStats(object_id=b"o" * 24, size_bytes=2**20, owner_id=b"d" * 16, sealed=True, pins=1)
    stored = node_rows.stored_object(stats, NODE, owners)
    assert (stored["owner_id"], stored["node_id"]) == ((b"d" * 16).hex(), NODE.node_id.hex())
    assert stored["kept"].startswith("1 process uses its bytes")
    row = {name: stored[name] for name in ObjectState.columns()}
    assert (row["type"], row["pid"], row["reference_type"]) == ("DRIVER", 7, "PINNED_IN_MEMORY")
    written = raylet_pb2.ObjectStats(object_id=b"p" * 24, owner_id=b"x" * 16)
    stranger = node_rows.stored_object(written, NODE, owners)
    assert (stranger["pid"], stranger["task_status"]) == (-1, "RUNNING")
    assert (stranger["owner_id"], stranger["kept"]) == (None, "it is being written or fetched")
    summary = node_rows.object_summary([row, row])
    assert (summary["total_objects"], summary["total_size_mb"]) == (2, 2.0)
    assert summary["summary"]["disabled"]["ref_type_counts"] == {"PINNED_IN_MEMORY": 2}


def test_a_runtime_environment() -> None:
    stats = raylet_pb2.EnvironmentStats(document='{"pip": {"packages": ["x"]}}', error="no such package")
    row = columns(node_rows.runtime_env(stats, NODE), RuntimeEnvState)
    assert (row["success"], row["error"]) == (False, "no such package")


def attempt(**given: object) -> TaskRow:
    fields: dict[str, object] = {
        name: "" if "id" in name or name.endswith(("name", "type", "class", "message")) else 0
        for name in TaskRow.__dataclass_fields__
    }
    fields |= {"type": "NORMAL_TASK", "state": "RUNNING", "required_resources": {}, "state_times_ms": {"RUNNING": 4}}
    return TaskRow(**(fields | given))  # type: ignore[arg-type]


def test_an_attempt_of_a_task() -> None:
    row = columns(task_rows.row(attempt(task_id="ab", start_time_ms=4), detail=True), TaskState)
    assert (row["task_id"], row["node_id"], row["start_time_ms"], row["end_time_ms"]) == ("ab", None, 4, None)
    assert row["events"] == [{"state": "RUNNING", "created_ms": 4}]
    assert "events" not in task_rows.row(attempt(), detail=False)


def test_filters_of_tasks_are_those_of_the_store() -> None:
    [found] = task_rows.filters(Query([Filter("state", "!=", "RUNNING")]))
    assert (found.column, found.operator, found.value) == ("state", "!=", "RUNNING")
    for bad in (Filter("error_class", "=", "x"), Filter("language", "=", "x"), Filter("state", "<", "x")):
        try:
            task_rows.filters(Query([bad]))
        except QueryError:
            continue
        raise AssertionError(bad)


def test_tasks_are_summarized_by_function_over_all_jobs() -> None:
    counts = [
        FunctionCounts(job, "f", "NORMAL_TASK", {"FINISHED": 2, "FAILED": 0}, 0, 0, 0.0, 0.0, 0.0) for job in ("1", "2")
    ]
    summary = task_rows.by_function([*counts, FunctionCounts("1", "A.m", "ACTOR_TASK", {"RUNNING": 1}, 0, 0, 0, 0, 0)])
    assert summary["summary"]["f"]["state_counts"] == {"FINISHED": 4}
    assert (summary["total_tasks"], summary["total_actor_tasks"], summary["total_actor_scheduled"]) == (4, 1, 0)


def test_tasks_are_summarized_by_lineage() -> None:
    child = LineageNode("g", "NORMAL_TASK", {"FINISHED": 10, "FAILED": 1})
    summary = task_rows.by_lineage([LineageNode("f", "NORMAL_TASK", {"FINISHED": 1}, [child])])
    [root] = summary["summary"]
    assert root["state_counts"] == {"FINISHED": 11, "FAILED": 1}
    assert root["children"][0]["key"] == "f/g"
    assert summary["total_tasks"] == 12


def test_what_rays_page_shows_of_the_cluster() -> None:
    text = page_rows.cluster_status([NODE, pb.NodeInfo(node_id=b"m" * 16, state=pb.NODE_STATE_DEAD)])
    assert "1.5/4 CPU" in text and "Failed:" in text
    assert page_rows.node_summary(NODE)["raylet"]["nodeManagerPort"] == 6384
    assert page_rows.driver_activity([JOB], now=3.0)["is_active"] == "ACTIVE"
    idle = page_rows.driver_activity([pb.JobInfo(end_unix_ms=2000)], now=3.0)
    assert (idle["is_active"], idle["last_activity_at"]) == ("INACTIVE", 2.0)
