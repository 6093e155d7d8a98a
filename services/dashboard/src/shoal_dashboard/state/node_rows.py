"""Rows of what raylets tell of their nodes: workers, objects, runtime environments. Pure: their answers go in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from shoal_common.events.node_events import ClusterEvent
from shoal_dashboard.state.amounts import counted
from shoal_dashboard.state.query import Row
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import raylet_pb2

_MIB = 1024**2


def worker(stats: raylet_pb2.WorkerStats, node: pb.NodeInfo) -> Row:
    return _worker(stats.worker_id, "WORKER", node.node_id, node.host, stats.pid)


def driver(job: pb.JobInfo, hosts: Mapping[bytes, str]) -> Row:
    """Of a job that runs."""
    return _worker(job.driver_id, "DRIVER", job.node_id, hosts.get(job.node_id, ""), job.pid) | {
        "start_time_ms": job.start_unix_ms
    }


def _worker(worker_id: bytes, kind: str, node_id: bytes, host: str, pid: int) -> Row:
    return {
        "worker_id": worker_id.hex(),
        "is_alive": True,
        "worker_type": kind,
        "exit_type": None,
        "node_id": node_id.hex(),
        "ip": host,
        "pid": pid,
        "exit_detail": None,
        "worker_launch_time_ms": None,
        "worker_launched_time_ms": None,
        "start_time_ms": None,
        "end_time_ms": None,
        "debugger_port": None,
        "num_paused_threads": None,
    }


def owners(workers: Iterable[Row]) -> dict[str, Row]:
    """By the id of the process."""
    return {row["worker_id"]: row for row in workers}


def stored_object(stats: raylet_pb2.ObjectStats, node: pb.NodeInfo, owners: Mapping[str, Row]) -> Row:
    """Ray's columns, and where it is, whose, and why it is not freed."""
    owner = owners.get(stats.owner_id.hex())
    return {
        "object_id": stats.object_id.hex(),
        "object_size": stats.size_bytes,
        "task_status": "FINISHED" if stats.sealed else "RUNNING",
        "attempt_number": 1,
        "reference_type": "PINNED_IN_MEMORY" if stats.pins else "LOCAL_REFERENCE",
        "call_site": "disabled",
        "type": owner["worker_type"] if owner else "WORKER",
        "pid": owner["pid"] if owner else -1,
        "ip": owner["ip"] if owner else "",
        "node_id": node.node_id.hex(),
        "place": _place(stats),
        "owner_id": stats.owner_id.hex() if owner else None,
        "kept": _kept(stats, known=owner is not None),
    }


def _place(stats: raylet_pb2.ObjectStats) -> str:
    if stats.in_memory:
        return "in memory and spilled" if stats.spilled else "in memory"
    return "spilled" if stats.spilled else "in a file of its own"


def _kept(stats: raylet_pb2.ObjectStats, *, known: bool) -> str:
    """Why it is not freed."""
    if not stats.sealed:
        return "it is being written or fetched"
    reasons = []
    if stats.pins:
        reasons.append(f"{counted(stats.pins, 'process uses', 'processes use')} its bytes where they are")
    if stats.secondary:
        reasons.append("a copy: it goes when its room is needed")
    elif known:
        reasons.append("its owner, or who has borrowed it, holds a reference")
    else:
        reasons.append("its owner is not among the processes that run, or did not answer")
    return "; ".join(reasons)


def runtime_env(stats: raylet_pb2.EnvironmentStats, node: pb.NodeInfo) -> Row:
    return {
        "runtime_env": json.loads(stats.document),
        "success": stats.ready,
        "creation_time_ms": None,
        "node_id": node.node_id.hex(),
        "ref_cnt": stats.workers,
        "error": stats.error or None,
    }


def object_summary(rows: Sequence[Row]) -> dict[str, Any]:
    """By call site, as Ray's; call sites are not kept, so there is one group."""
    summary: dict[str, dict[str, Any]] = {}
    workers: dict[str, set[int]] = {}
    hosts: dict[str, set[str]] = {}
    for row in rows:
        site = row["call_site"]
        group = summary.setdefault(
            site,
            {
                "total_objects": 0,
                "total_size_mb": 0.0,
                "task_state_counts": {},
                "task_attempt_number_counts": {},
                "ref_type_counts": {},
            },
        )
        group["total_objects"] += 1
        group["total_size_mb"] += row["object_size"] / _MIB
        for counts, key in (
            ("task_state_counts", row["task_status"]),
            ("task_attempt_number_counts", str(row["attempt_number"])),
            ("ref_type_counts", row["reference_type"]),
        ):
            group[counts][key] = group[counts].get(key, 0) + 1
        workers.setdefault(site, set()).add(row["pid"])
        hosts.setdefault(site, set()).add(row["ip"])
    for site, group in summary.items():
        group |= {"total_num_workers": len(workers[site]), "total_num_nodes": len(hosts[site])}
    return {
        "summary": summary,
        "total_objects": len(rows),
        "total_size_mb": sum(row["object_size"] for row in rows) / _MIB,
        "callsite_enabled": False,
        "summary_by": "callsite",
    }


def cluster_event(event_id: str, event: ClusterEvent) -> Row:
    """Of what has happened to nodes, workers, actors and jobs."""
    return {
        "severity": event.severity,
        "time": datetime.fromtimestamp(event.at_ms / 1_000).isoformat(" ", "milliseconds"),
        "source_type": event.source,
        "message": event.message,
        "event_id": event_id,
        "custom_fields": {"kind": event.kind, **event.ids},
    }
