"""``shoal.timeline``: what ran when, as the dashboard has recorded it."""

from __future__ import annotations

import json
from typing import Any

from shoal import _current


def timeline(filename: str | None = None) -> list[dict[str, Any]] | None:
    """A Chrome trace of this cluster's tasks and actor calls, of all jobs: a list of its events, or, with ``filename``,
    a file for https://ui.perfetto.dev or chrome://tracing, and None.

    It has what the dashboard keeps singly: whatever ran for more than a second, each failure, and some of the others.

    Raises: ConnectionError (the cluster has no dashboard: ``init(include_dashboard=True)`` or ``shoal dashboard``
    starts one), DashboardError, AuthenticationError, OSError (the file).
    """
    from shoal._session.dashboards import dashboard_client  # brings HTTP along, which ``import shoal`` does not need

    core = _current.current()
    core.task_reports.flush()
    trace: list[dict[str, Any]] = dashboard_client("auto").get("api/v0/tasks/timeline")
    if filename is None:
        return trace
    with open(filename, "w") as file:
        json.dump(trace, file)
    return None
