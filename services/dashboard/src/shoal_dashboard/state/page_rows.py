"""What Ray's own page asks for besides the state interface, in its own forms. Pure: records of the GCS go in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shoal_common.placement.resources import GRAINS
from shoal_dashboard.state import cluster_rows
from shoal_proto.v1 import gcs_pb2 as pb

_BYTES = {"memory": 2**30, "object_store_memory": 2**30}


def node_summary(info: pb.NodeInfo) -> dict[str, Any]:
    row = cluster_rows.node(info)
    free = info.available.grains.get("object_store_memory", 0)
    return {
        "hostname": row["node_name"],
        "ip": row["node_ip"],
        "raylet": {
            "nodeId": row["node_id"],
            "state": row["state"],
            "stateMessage": row["state_message"],
            "isHeadNode": row["is_head_node"],
            "labels": row["labels"],
            "startTimeMs": row["start_time_ms"],
            "terminateTimeMs": row["end_time_ms"],
            "nodeManagerAddress": row["node_ip"],
            "nodeManagerPort": int(info.raylet_address.rpartition(":")[2] or 0),
            "resourcesTotal": row["resources_total"],
            "objectStoreAvailableMemory": free // GRAINS,
            "objectStoreUsedMemory": info.object_store_bytes - free // GRAINS,
        },
    }


def resource_lines(nodes: Iterable[pb.NodeInfo]) -> list[str]:
    """Used of total, of all these nodes together, a line for each resource."""
    total: dict[str, float] = {}
    free: dict[str, float] = {}
    for info in nodes:
        for amounts, sums in ((info.total, total), (info.available, free)):
            for name, amount in cluster_rows.units(amounts).items():
                sums[name] = sums.get(name, 0.0) + amount
    lines = []
    for name in sorted(total):
        if not name.startswith("node:"):
            unit = _BYTES.get(name, 1)
            used, whole = (total[name] - free.get(name, 0.0)) / unit, total[name] / unit
            lines.append(f"{used:.4g}/{whole:.4g}{'GiB' if unit > 1 else ''} {name}")
    return lines


def cluster_status(nodes: Sequence[pb.NodeInfo]) -> str:
    """For humans."""
    living = [info for info in nodes if info.state != pb.NODE_STATE_DEAD]
    dead = [info for info in nodes if info.state == pb.NODE_STATE_DEAD]
    return "\n".join(
        [
            "Active:",
            *(f" {info.node_id.hex()} at {info.host}" for info in living),
            *(["Failed:"] if dead else []),
            *(f" {info.node_id.hex()} at {info.host}: {info.death_reason}" for info in dead),
            "Usage:",
            *(f" {line}" for line in resource_lines(living)),
        ]
    )


def actor(info: pb.ActorInfo, hosts: Mapping[bytes, str]) -> dict[str, Any]:
    row = cluster_rows.actor(info)
    return {
        "actorId": row["actor_id"],
        "jobId": row["job_id"],
        "state": row["state"],
        "name": row["name"],
        "actorClass": row["class_name"],
        "rayNamespace": row["ray_namespace"],
        "pid": row["pid"],
        "numRestarts": str(row["num_restarts"]),
        "isDetached": row["is_detached"],
        "exitDetail": info.exit.detail or info.death_reason or "-",
        "address": {
            "rayletId": info.address.node_id.hex(),
            "ipAddress": hosts.get(info.address.node_id, ""),
            "port": info.address.port,
            "workerId": info.address.worker_id.hex(),
        },
        "requiredResources": {},
    }


def driver_activity(jobs: Sequence[pb.JobInfo], now: float) -> dict[str, Any]:
    """Whether any driver runs; ``now``: seconds since 1970."""
    running = sum(not job.end_unix_ms for job in jobs)
    last = max((job.end_unix_ms for job in jobs), default=0) / 1000
    return {
        "is_active": "ACTIVE" if running else "INACTIVE",
        "reason": f"Number of active drivers: {running}" if running else None,
        "timestamp": now,
        "last_activity_at": now if running else last or None,
    }
