"""Rows of what the GCS keeps: nodes, actors, placement groups. Pure: its records go in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shoal_common.placement.resources import GRAINS
from shoal_dashboard.state.query import Row
from shoal_proto.v1 import common_pb2
from shoal_proto.v1 import gcs_pb2 as pb

#: A resource of the node that has the GCS beside it.
HEAD_RESOURCE = "node:__internal_head__"
#: Ray knows no such end: it is nearest to this one.
_EXIT_KINDS = {"MEMORY_LIMIT": "NODE_OUT_OF_MEMORY"}


def units(amounts: common_pb2.ResourceAmounts) -> dict[str, float]:
    return {name: grains / GRAINS for name, grains in sorted(amounts.grains.items())}


def node(info: pb.NodeInfo) -> Row:
    dead = info.state == pb.NODE_STATE_DEAD
    return {
        "node_id": info.node_id.hex(),
        "node_ip": info.host,
        "is_head_node": HEAD_RESOURCE in info.total.grains,
        "state": "DEAD" if dead else "ALIVE",
        "state_message": info.death_reason if dead else _leaving(info),
        "node_name": info.host,
        "resources_total": units(info.total),
        "labels": dict(info.labels),
        "start_time_ms": info.start_unix_ms,
        "end_time_ms": info.end_unix_ms or None,
    }


def _leaving(info: pb.NodeInfo) -> str | None:
    return "draining: it takes nothing new and is to leave" if info.state == pb.NODE_STATE_DRAINING else None


def actor(info: pb.ActorInfo) -> Row:
    return {
        "actor_id": info.actor_id.hex(),
        "class_name": info.class_name,
        "state": pb.ActorState.Name(info.state).removeprefix("ACTOR_STATE_"),
        "job_id": info.job_id.hex(),
        "name": info.name,
        "node_id": info.address.node_id.hex() or None,
        "pid": info.pid,
        "ray_namespace": info.namespace,
        "serialized_runtime_env": info.runtime_env or None,
        "required_resources": units(info.held),
        "death_cause": _death_cause(info),
        "is_detached": info.detached,
        "placement_group_id": info.group_id.hex() or None,
        "repr_name": "",
        "num_restarts": info.restarts,
        "num_restarts_due_to_lineage_reconstruction": 0,
        "num_restarts_due_to_node_preemption": 0,
        "call_site": None,
        "label_selector": None,
        "fallback_strategy": None,
    }


def _death_cause(info: pb.ActorInfo) -> dict[str, Any] | None:
    if info.state != pb.ACTOR_STATE_DEAD:
        return None
    cause = {"reason": info.death_reason}
    if info.HasField("exit"):
        cause |= {"exit_type": exit_type(info.exit), "exit_detail": info.exit.detail}
    return cause


def exit_type(end: common_pb2.WorkerExit) -> str:
    name = common_pb2.ExitKind.Name(end.kind).removeprefix("EXIT_KIND_")
    return _EXIT_KINDS.get(name, name)


def placement_group(info: pb.PlacementGroupInfo) -> Row:
    strategy = pb.PlacementStrategy.Name(info.strategy).removeprefix("PLACEMENT_STRATEGY_")
    removed = {"removal_reason": info.removal_reason} if info.removal_reason else {}
    return {
        "placement_group_id": info.group_id.hex(),
        "name": info.name,
        "creator_job_id": info.job_id.hex(),
        "state": pb.PlacementGroupState.Name(info.state).removeprefix("PLACEMENT_GROUP_STATE_"),
        "bundles": [
            {
                "bundle_id": {"placement_group_id": info.group_id.hex(), "bundle_index": index},
                "node_id": bundle.node_id.hex(),
                "unit_resources": units(bundle.resources),
                "label_selector": bundle.selector,
            }
            for index, bundle in enumerate(info.bundles)
        ],
        "is_detached": info.detached,
        "stats": {"strategy": strategy, **removed},
        "topology_strategy": {},
        "topology_assignments": {},
    }


def actor_summary(rows: Iterable[Row]) -> dict[str, Any]:
    """By class, how many are in which state."""
    summary: dict[str, dict[str, Any]] = {}
    total = 0
    for row in rows:
        total += 1
        name = row["class_name"]
        counts = summary.setdefault(name, {"class_name": name, "state_counts": {}})["state_counts"]
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    return {"summary": summary, "total_actors": total, "summary_by": "class"}
