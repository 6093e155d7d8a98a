"""``shoal.timeline``: what ran when, as the dashboard has recorded it."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlencode

from shoal import _current


def timeline(filename: str | os.PathLike[str] | None = None) -> list[dict[str, Any]] | None:
    """A Chrome trace of this cluster's tasks and actor calls, of all jobs: a list of its events, or, with ``filename``,
    a file for https://ui.perfetto.dev or chrome://tracing, and None.

    It has what the dashboard keeps singly: whatever ran for more than a second, each failure, and some of the others.
    What ``get`` has returned of before is among it.

    Raises: ConnectionError (the cluster has no dashboard: ``init(include_dashboard=True)`` or ``shoal dashboard``
    starts one), DashboardError, AuthenticationError, TypeError (``filename`` is no path), OSError (the file).
    """
    if filename is not None and not isinstance(filename, str | os.PathLike):
        # Open would take an int for a descriptor of this process, and close it in the end.
        raise TypeError(f"filename must be a path or None, not {type(filename).__name__}")
    from shoal._session.dashboards import (  # bring HTTP along, which ``import shoal`` does not need
        dashboard_client,
        own_tasks_mark,
    )

    _current.current()
    dashboard = dashboard_client("auto")
    trace: list[dict[str, Any]] = dashboard.get(f"api/v0/tasks/timeline?{urlencode(own_tasks_mark())}")
    if filename is None:
        return trace
    with open(filename, "w") as file:
        json.dump(trace, file)
    return None
