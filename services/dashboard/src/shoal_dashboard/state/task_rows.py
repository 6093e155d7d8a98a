"""Rows of the task store, with Ray's columns, and filters as the store knows them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shoal_common.state_rows import TaskState
from shoal_dashboard.events import rows as events
from shoal_dashboard.state.query import Query, QueryError, Row

#: Columns of Ray's by which the store cannot filter: what every row has there.
_SAME_EVERYWHERE = {"language": "PYTHON", "placement_group_id": None, "is_debugger_paused": None}


def filters(query: Query) -> list[events.Filter]:
    """Raises: QueryError."""
    found = []
    for each in query.filters:
        if each.column not in TaskState.filterable_columns() or each.column not in events.COLUMNS:
            there = [name for name in TaskState.filterable_columns() if name not in _SAME_EVERYWHERE]
            raise QueryError(
                f"The given filter column {each.column} is not supported. Supported filter columns: {', '.join(there)}"
            )
        if each.predicate == "=":
            found.append(events.Filter(each.column, "=", each.value))
        elif each.predicate == "!=":
            found.append(events.Filter(each.column, "!=", each.value))
        else:
            raise QueryError(f"Unsupported filter predicate {each.predicate} is given. Available predicates: =, !=.")
    return found


def row(attempt: events.TaskRow, *, detail: bool) -> Row:
    whole = {
        "task_id": attempt.task_id,
        "attempt_number": attempt.attempt_number,
        "name": attempt.name,
        "state": attempt.state,
        "job_id": attempt.job_id,
        "actor_id": attempt.actor_id or None,
        "type": attempt.type,
        "func_or_class_name": attempt.func_or_class_name,
        "parent_task_id": attempt.parent_task_id,
        "node_id": attempt.node_id or None,
        "worker_id": attempt.worker_id or None,
        "worker_pid": attempt.worker_pid or None,
        "error_type": attempt.error_type or None,
        **_SAME_EVERYWHERE,
        "required_resources": attempt.required_resources,
        "runtime_env_info": None,
        "events": [{"state": state, "created_ms": ms} for state, ms in attempt.state_times_ms.items()],
        "profiling_data": None,
        "creation_time_ms": attempt.creation_time_ms or None,
        "start_time_ms": attempt.start_time_ms or None,
        "end_time_ms": attempt.end_time_ms or None,
        "task_log_info": None,
        "error_message": attempt.error_message or None,
        "call_site": None,
        "label_selector": None,
        "fallback_strategy": None,
    }
    return {name: whole[name] for name in TaskState.columns(detail=detail)}


def by_function(functions: Iterable[events.FunctionCounts]) -> dict[str, Any]:
    """Exact, also for tasks that have no row. Jobs are added up."""
    summary: dict[str, dict[str, Any]] = {}
    totals = dict.fromkeys(("NORMAL_TASK", "ACTOR_TASK", "ACTOR_CREATION_TASK"), 0)
    for function in functions:
        name = function.func_or_class_name
        group = summary.setdefault(name, {"func_or_class_name": name, "type": function.type, "state_counts": {}})
        for state, count in function.states.items():
            if count:
                group["state_counts"][state] = group["state_counts"].get(state, 0) + count
                totals[function.type] += count
    return {"summary": summary, **_totals(totals), "summary_by": "func_name"}


def by_lineage(roots: Iterable[events.LineageNode]) -> dict[str, Any]:
    totals = dict.fromkeys(("NORMAL_TASK", "ACTOR_TASK", "ACTOR_CREATION_TASK"), 0)

    def group(node: events.LineageNode, key: str) -> dict[str, Any]:
        totals[node.type] += sum(node.states.values())
        children = [group(child, f"{key}/{child.func_or_class_name}") for child in node.children]
        counts = {state: count for state, count in node.states.items() if count}
        for child in children:
            for state, count in child["state_counts"].items():
                counts[state] = counts.get(state, 0) + count
        return {
            "name": node.func_or_class_name,
            "key": key,
            "type": node.type,
            "timestamp": None,
            "state_counts": counts,
            "children": children,
            "link": None,
        }

    summary = [group(root, root.func_or_class_name) for root in roots]
    return {"summary": summary, **_totals(totals), "summary_by": "lineage"}


def _totals(counts: dict[str, int]) -> dict[str, int]:
    return {
        "total_tasks": counts["NORMAL_TASK"],
        "total_actor_tasks": counts["ACTOR_TASK"],
        "total_actor_scheduled": counts["ACTOR_CREATION_TASK"],
    }
