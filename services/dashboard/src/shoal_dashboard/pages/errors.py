"""What has gone wrong how often: failures by function, class of error and first line, the most frequent first."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from shoal_common.errors import Unavailable
from shoal_dashboard.context import Context
from shoal_dashboard.events.rows import ErrorGroup, Filter, QueryError
from shoal_dashboard.pages.columns import VIEW, Cell, cell
from shoal_dashboard.pages.following import followed
from shoal_dashboard.pages.layout import Layout

#: Groups, the most frequent.
_GROUPS = 100


def routes(context: Context) -> list[BaseRoute]:
    layout = Layout()

    async def page(request: Request) -> Response:
        job_id = request.query_params.get("job_id", "")
        if context.tasks is None:
            raise Unavailable("the cluster has not been found yet")
        try:
            groups = await context.tasks.errors([Filter("job_id", "=", job_id)] if job_id else [], _GROUPS)
        except QueryError as error:
            return layout.page(request, "missing.html", {"problem": str(error)}, 404)
        rows = [_row(group, job_id) for group in groups]
        columns = ("count", "function", "error", "message", "first_time_ms", "last_time_ms", "task_id")
        values = {"job_id": job_id, "table": {"columns": columns, "rows": rows}, "full": len(groups) == _GROUPS}
        return layout.page(request, "errors.html", values)

    return [Route(f"/{VIEW}/errors", followed(context, page))]


def _row(group: ErrorGroup, job_id: str) -> tuple[str, list[Cell]]:
    """With a key, and its count leading to the attempts."""
    wanted = {
        "state": "FAILED",
        "func_or_class_name": group.func_or_class_name,
        "error_type": group.error_type,
        **({"job_id": job_id} if job_id else {}),
    }
    cells = [
        Cell(f"{group.count:,}", link=f"{VIEW}/tasks?{urlencode(wanted)}"),
        Cell(group.func_or_class_name),
        Cell(group.error_class or group.error_type),
        Cell(group.first_line),
        cell("first_time_ms", group.first_ms),
        cell("last_time_ms", group.last_ms),
        cell("task_id", group.task_id),
    ]
    return f"{group.func_or_class_name}/{group.error_class}/{group.first_line}", cells
