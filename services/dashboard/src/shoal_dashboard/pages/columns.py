"""What the pages show of each resource: columns, in their order, and where an id leads. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shoal_dashboard.state.amounts import size
from shoal_dashboard.state.query import Row

#: States in which something has gone wrong, in which it goes on, and in which it waits; others have ended well. Events
#: are as severe.
_BAD = frozenset({"FAILED", "DEAD", "REMOVED", "ERROR"})
_RUNNING = frozenset({"RUNNING", "ALIVE", "CREATED"})
_WAITING = frozenset(
    {
        "PENDING",
        "PENDING_ARGS_AVAIL",
        "PENDING_NODE_ASSIGNMENT",
        "SUBMITTED_TO_WORKER",
        "DEPENDENCIES_UNREADY",
        "PENDING_CREATION",
        "RESTARTING",
        "RESCHEDULING",
        "PREPARED",
        "WARNING",
    }
)


@dataclass(frozen=True, slots=True)
class Resource:
    """``name``: in addresses. ``key``: the column that names a row, by which its page is found. ``columns``: of a
    list."""

    name: str
    title: str
    key: str
    columns: tuple[str, ...]
    #: What this is, in a sentence.
    about: str
    #: Its name in `shoal_common.state_rows`, where that is another one.
    rows_name: str = ""
    #: Columns that are not Ray's.
    also: tuple[str, ...] = ()


#: Lists and pages of things are below this path: Ray's interface has names like theirs at the root.
VIEW = "view"

RESOURCES: Mapping[str, Resource] = {
    each.name: each
    for each in (
        Resource(
            "jobs",
            "Jobs",
            "submission_id",
            ("submission_id", "job_id", "status", "entrypoint", "start_time", "end_time", "message"),
            "Programs that run or ran on the cluster: handed in, or started by somebody.",
        ),
        Resource(
            "tasks",
            "Tasks",
            "task_id",
            (
                "task_id",
                "name",
                "state",
                "attempt_number",
                "job_id",
                "node_id",
                "error_type",
                "start_time_ms",
                "end_time_ms",
            ),
            "Attempts of tasks and actor calls, the newest first. Counts are exact; short tasks may be counted only.",
        ),
        Resource(
            "actors",
            "Actors",
            "actor_id",
            ("actor_id", "class_name", "name", "state", "job_id", "node_id", "pid", "calls", "queue", "num_restarts"),
            "Instances of actor classes, the newest first. Calls are those that are recorded singly, the queue such of "
            "them as have not begun.",
        ),
        Resource(
            "nodes",
            "Nodes",
            "node_id",
            (
                "node_id",
                "node_ip",
                "state",
                "is_head_node",
                "resources_total",
                "labels",
                "start_time_ms",
                "state_message",
            ),
            "Machines of the cluster, those that have left too.",
        ),
        Resource(
            "workers",
            "Workers",
            "worker_id",
            ("worker_id", "worker_type", "node_id", "ip", "pid"),
            "Processes that run tasks and actors, and drivers.",
        ),
        Resource(
            "objects",
            "Objects",
            "object_id",
            ("object_id", "object_size", "node_id", "place", "owner_id", "type", "pid", "kept"),
            "What the nodes' stores hold, in memory or spilled: whose it is, and why it is not freed.",
            also=("node_id", "place", "owner_id", "kept"),
        ),
        Resource(
            "placement_groups",
            "Placement groups",
            "placement_group_id",
            ("placement_group_id", "name", "state", "creator_job_id", "bundles"),
            "Resources that are reserved together.",
        ),
        Resource(
            "events",
            "Events",
            "event_id",
            ("time", "severity", "source_type", "message", "event_id"),
            "What has happened to nodes, processes, actors and jobs, the newest first.",
            rows_name="cluster_events",
        ),
    )
}
#: Column -> the resource whose page its value leads to.
_LEADS = {
    "submission_id": "jobs",
    "job_id": "jobs",
    "creator_job_id": "jobs",
    "task_id": "tasks",
    "parent_task_id": "tasks",
    "actor_id": "actors",
    "node_id": "nodes",
    "driver_node_id": "nodes",
    "worker_id": "workers",
    "owner_id": "workers",
    "placement_group_id": "placement_groups",
    "event_id": "events",
}
_TIMES = ("_time", "_time_ms")
_TITLES = {
    "node_ip": "address",
    "ip": "address",
    "is_head_node": "head",
    "attempt_number": "attempt",
    "num_restarts": "restarts",
    "kept": "why it is kept",
}


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    #: The page that it leads to, below the dashboard's root; "" = none.
    link: str = ""
    #: Of a state: bad, running, waiting or ended; "" = it is none.
    mood: str = ""


def title(column: str) -> str:
    if column.endswith(_TIMES):
        return column.removesuffix("_ms").replace("_", " ") + " (UTC)"
    return _TITLES.get(column, column.removesuffix("_id").replace("_", " "))


def cell(column: str, value: Any) -> Cell:
    if value in (None, "", {}, []) or (value == 0 and column.endswith(_TIMES)):
        return Cell("")
    if column in ("state", "status", "task_status", "severity"):
        return Cell(str(value), mood=mood(str(value)))
    if column.endswith(_TIMES) and isinstance(value, int):
        return Cell(moment(value))
    if column.endswith(("_size", "_bytes")) and isinstance(value, int):
        return Cell(size(value))
    if column in ("resources_total", "unit_resources", "required_resources") and isinstance(value, dict):
        return Cell(resources(value))
    if column in _LEADS:
        return Cell(str(value), link=f"{VIEW}/{_LEADS[column]}/{value}")
    if isinstance(value, dict | list):
        return Cell(json.dumps(value, ensure_ascii=False, default=str))
    return Cell({True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value))


def mood(state: str) -> str:
    if state in _BAD:
        return "bad"
    if state in _RUNNING:
        return "running"
    return "waiting" if state in _WAITING else "ended"


def moment(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def resources(amounts: Mapping[str, float]) -> str:
    shown = {name: amount for name, amount in amounts.items() if not name.startswith("node:") and "_group_" not in name}
    return ", ".join(
        f"{size(int(amount))} {name}" if "memory" in name else f"{amount:.4g} {name}" for name, amount in shown.items()
    )


def cells(columns: Sequence[str], row: Row) -> list[Cell]:
    return [cell(column, row.get(column)) for column in columns]
