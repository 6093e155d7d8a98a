"""Attempts as a Chrome trace, which Perfetto and chrome://tracing open. Pure.

A process of the trace is a node, a thread a worker; what a worker runs at the same time, as an async actor does, has
threads beside one another, as slices of one may only nest. Arrows go from where a task was submitted to where it began.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shoal_dashboard.events.rows import FAILED, TaskRow

#: What makes it clear that a slice has failed (a name of Chrome's palette).
_FAILED_COLOUR = "terrible"


def chrome_trace(rows: Sequence[TaskRow], now_ms: int) -> list[dict[str, Any]]:
    """``rows``: those that have begun, in the order of their beginnings; what has not ended is drawn until now."""
    trace: list[dict[str, Any]] = []
    nodes: dict[str, int] = {}
    lanes: dict[tuple[str, str], list[tuple[int, int]]] = {}
    threads = 0
    drawn: dict[str, dict[str, Any]] = {}
    for row in rows:
        node = nodes.get(row.node_id)
        if node is None:
            node = nodes[row.node_id] = len(nodes) + 1
            trace.append(_named("process_name", node, 0, f"node {row.node_id[:12] or 'unknown'}"))
        end_ms = max(row.end_time_ms or now_ms, row.start_time_ms)
        free = lanes.setdefault((row.node_id, row.worker_id), [])
        lane = next((at for at, (_, busy_until) in enumerate(free) if busy_until <= row.start_time_ms), len(free))
        if lane == len(free):
            threads += 1
            free.append((threads, end_ms))
            trace.append(_named("thread_name", node, threads, f"worker {row.worker_pid or row.worker_id[:12]}"))
        free[lane] = (free[lane][0], end_ms)
        drawn[row.task_id] = slice_ = _slice(row, node, free[lane][0], end_ms)
        trace.append(slice_)
    trace += _arrows(rows, drawn)
    return trace


def _slice(row: TaskRow, node: int, thread: int, end_ms: int) -> dict[str, Any]:
    slice_: dict[str, Any] = {
        "ph": "X",
        "cat": row.type,
        "name": row.name,
        "pid": node,
        "tid": thread,
        "ts": row.start_time_ms * 1_000,
        "dur": (end_ms - row.start_time_ms) * 1_000,
        "args": {
            "task_id": row.task_id,
            "attempt_number": row.attempt_number,
            "job_id": row.job_id,
            "state": row.state,
            "func_or_class_name": row.func_or_class_name,
        },
    }
    if row.actor_id:
        slice_["args"]["actor_id"] = row.actor_id
    if row.state == FAILED:
        slice_["cname"] = _FAILED_COLOUR
        slice_["args"]["error_type"], slice_["args"]["error"] = row.error_type, row.error_message
    return slice_


def _arrows(rows: Sequence[TaskRow], drawn: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    arrows: list[dict[str, Any]] = []
    for number, row in enumerate(rows, 1):
        parent = drawn.get(row.parent_task_id)
        if parent is None:
            continue
        child = drawn[row.task_id]
        # An arrow begins within a slice, or is not drawn; clocks of machines differ.
        begins = min(max(row.creation_time_ms * 1_000, parent["ts"]), parent["ts"] + parent["dur"])
        arrow = {"cat": "submission", "name": "submits", "id": number}
        arrows.append({**arrow, "ph": "s", "pid": parent["pid"], "tid": parent["tid"], "ts": begins})
        arrows.append({**arrow, "ph": "f", "bp": "e", "pid": child["pid"], "tid": child["tid"], "ts": child["ts"]})
    return arrows


def _named(what: str, node: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": node, "tid": thread, "args": {"name": name}}
