"""Look at the cluster: lists, single rows and counts of actors, tasks, nodes and more, with Ray's names and columns.

Its dashboard tells them: `shoal dashboard`, ``init(include_dashboard=True)`` or ``shoal start --head
--include-dashboard=true`` start one. ``address`` is ``http(s)://host:port`` of a dashboard, or host:port of a GCS; None
= what SHOAL_DASHBOARD_ADDRESS names, else this session's, else the one on this machine. Filters are tuples
``(column, "=" or "!=", value)``; they come before ``limit``.
"""

from __future__ import annotations

from shoal.util.state.api import (
    StateApiClient,
    get_actor,
    get_job,
    get_node,
    get_objects,
    get_placement_group,
    get_task,
    get_worker,
    list_actors,
    list_cluster_events,
    list_jobs,
    list_nodes,
    list_objects,
    list_placement_groups,
    list_runtime_envs,
    list_tasks,
    list_workers,
    summarize_actors,
    summarize_objects,
    summarize_tasks,
)
from shoal.util.state.logs import get_log, list_logs

__all__ = [
    "StateApiClient",
    "get_actor",
    "get_job",
    "get_log",
    "get_node",
    "get_objects",
    "get_placement_group",
    "get_task",
    "get_worker",
    "list_actors",
    "list_cluster_events",
    "list_jobs",
    "list_logs",
    "list_nodes",
    "list_objects",
    "list_placement_groups",
    "list_runtime_envs",
    "list_tasks",
    "list_workers",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
]
