"""What happens to nodes, workers, actors, placement groups and jobs, as events for humans. Pure: what the GCS and
nodes tell goes in."""

from __future__ import annotations

from collections import OrderedDict

from shoal_common.events.node_events import ClusterEvent, ProcessInfo
from shoal_common.kinds import ExitKind
from shoal_proto.v1 import gcs_pb2 as pb

#: Things whose state is remembered, so that it is told once.
MAX_KNOWN = 100_000

_INTENDED = (ExitKind.INTENDED_SYSTEM_EXIT, ExitKind.INTENDED_USER_EXIT)
_ACTOR_STATES = {
    pb.ACTOR_STATE_ALIVE: "ALIVE",
    pb.ACTOR_STATE_RESTARTING: "RESTARTING",
    pb.ACTOR_STATE_DEAD: "DEAD",
}


class ClusterEvents:
    """Of the GCS's records, which come again whenever anything of them changes."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[bytes, int], int] = OrderedDict()

    def of_node(self, node: pb.NodeInfo, now_ms: int) -> ClusterEvent | None:
        if not self._is_new(node.node_id, node.incarnation, node.state):
            return None
        ids = {"node_id": node.node_id.hex()}
        if node.state == pb.NODE_STATE_DEAD:
            reason = node.death_reason or "it has left"
            at_ms = node.end_unix_ms or now_ms
            return ClusterEvent(at_ms, "NODE_DEAD", "ERROR", "GCS", f"Node {node.host} is gone: {reason}", ids)
        if node.state == pb.NODE_STATE_DRAINING:
            text = f"Node {node.host} takes nothing new and is to leave"
            return ClusterEvent(now_ms, "NODE_DRAINING", "WARNING", "GCS", text, ids)
        at_ms = node.start_unix_ms or now_ms
        return ClusterEvent(at_ms, "NODE_ALIVE", "INFO", "GCS", f"Node {node.host} has joined", ids)

    def of_actor(self, actor: pb.ActorInfo, now_ms: int) -> ClusterEvent | None:
        state = _ACTOR_STATES.get(actor.state)
        if state is None or not self._is_new(actor.actor_id, actor.incarnation, actor.state):
            return None
        ids = {"actor_id": actor.actor_id.hex(), "job_id": actor.job_id.hex()}
        at_ms = actor.state_unix_ms or now_ms
        name = f"Actor {actor.class_name}" + (f" {actor.name!r}" if actor.name else "")
        if state == "ALIVE":
            ids["node_id"] = actor.address.node_id.hex()
            return ClusterEvent(at_ms, "ACTOR_ALIVE", "INFO", "GCS", f"{name} is up, as process {actor.pid}", ids)
        if state == "RESTARTING":
            text = f"{name} is restarted: {actor.exit.detail or 'its process has ended'}"
            return ClusterEvent(at_ms, "ACTOR_RESTARTING", "WARNING", "GCS", text, ids)
        wanted = actor.killed or actor.out_of_scope or actor.owner_died
        severity = "INFO" if wanted else "ERROR"
        return ClusterEvent(at_ms, "ACTOR_DEAD", severity, "GCS", f"{name} is dead: {actor.death_reason}", ids)

    def of_group(self, group: pb.PlacementGroupInfo, now_ms: int) -> ClusterEvent | None:
        if not self._is_new(group.group_id, 0, group.state):
            return None
        ids = {"placement_group_id": group.group_id.hex(), "job_id": group.job_id.hex()}
        name = f"Placement group {group.name!r}" if group.name else f"Placement group {group.group_id.hex()}"
        bundles = len(group.bundles)
        if group.state == pb.PLACEMENT_GROUP_STATE_CREATED:
            nodes = len({bundle.node_id for bundle in group.bundles})
            text = f"{name} has its {bundles} bundles, on {nodes} nodes"
            return ClusterEvent(now_ms, "PLACEMENT_GROUP_CREATED", "INFO", "GCS", text, ids)
        if group.state == pb.PLACEMENT_GROUP_STATE_RESCHEDULING:
            lost = sum(not bundle.node_id for bundle in group.bundles)
            text = f"{name} has lost {lost} of {bundles} bundles with their node, and seeks places for them"
            return ClusterEvent(now_ms, "PLACEMENT_GROUP_RESCHEDULING", "WARNING", "GCS", text, ids)
        if group.state == pb.PLACEMENT_GROUP_STATE_REMOVED:
            text = f"{name} was removed: {group.removal_reason or 'nobody needs it any more'}"
            return ClusterEvent(now_ms, "PLACEMENT_GROUP_REMOVED", "INFO", "GCS", text, ids)
        if group.state == pb.PLACEMENT_GROUP_STATE_PENDING:
            text = f"{name} waits for its {bundles} bundles"
            return ClusterEvent(now_ms, "PLACEMENT_GROUP_PENDING", "INFO", "GCS", text, ids)
        return None

    def of_job(self, job: pb.JobInfo, now_ms: int) -> ClusterEvent | None:
        ended = bool(job.end_unix_ms)
        if not self._is_new(job.job_id, 0, int(ended)):
            return None
        ids = {"job_id": job.job_id.hex(), "node_id": job.node_id.hex()}
        if ended:
            text = f"The job's driver has failed: {job.failure}" if job.failure else "The job's driver has ended"
            severity = "ERROR" if job.failure else "INFO"
            return ClusterEvent(job.end_unix_ms, "JOB_FINISHED", severity, "GCS", text, ids)
        text = f"A job has begun: {job.entrypoint}"
        return ClusterEvent(job.start_unix_ms or now_ms, "JOB_STARTED", "INFO", "GCS", text, ids)

    def _is_new(self, id_: bytes, incarnation: int, state: int) -> bool:
        key = (id_, incarnation)
        if self._known.get(key) == state:
            return False
        self._known[key] = state
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return True


def of_process(process: ProcessInfo, node_id: bytes) -> ClusterEvent | None:
    """One that has ended otherwise than it was to."""
    if not process.ended_ms or not process.exit_kind or process.exit_kind in _INTENDED:
        return None
    ids = {"worker_id": process.worker_id.hex(), "node_id": node_id.hex(), "job_id": process.job_id.hex()}
    if process.actor_id:
        ids["actor_id"] = process.actor_id.hex()
    text = f"Worker process {process.pid} has ended: {process.exit_detail}"
    return ClusterEvent(process.ended_ms, "WORKER_DIED", "ERROR", "RAYLET", text, ids)
