"""What the services of the cluster run with, and where each setting comes from."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from shoal_common.service.settings import settings_of
from shoal_dashboard.context import Context
from shoal_dashboard.pages.columns import VIEW, Cell
from shoal_dashboard.pages.layout import Layout
from shoal_proto.v1.settings_pb2 import GetSettingsResponse

#: Services that are asked at most.
_MOST = 50


def routes(context: Context) -> list[BaseRoute]:
    layout = Layout()

    async def page(request: Request) -> Response:
        about = await context.cluster.about()
        places = [
            *(("gcs", each) for each in context.config.gcs_address.split(",")),
            *(("scheduler", each) for each in about.scheduler_addresses),
            *(("objectstore", each) for each in about.objectstore_addresses),
        ][:_MOST]
        answers = await context.cluster.settings_at([address for _service, address in places])
        services = [service(*place, answer) for place, answer in zip(places, answers, strict=True)]
        services.append(service("dashboard", context.url, settings_of(context.config)))
        values = {"about": about, "services": services}
        return layout.page(request, "configuration.html", values)

    return [Route(f"/{VIEW}/configuration", page)]


def service(name: str, address: str, answer: GetSettingsResponse | str) -> dict[str, Any]:
    """For the template ``parts.settings``: those that somebody has set first."""
    problem = answer if isinstance(answer, str) else ""
    settings = [] if isinstance(answer, str) else sorted(answer.settings, key=lambda each: each.source == "default")
    rows = [
        (each.name, [Cell(each.name), Cell(f"{each.value} {each.unit}".strip()), Cell(each.source), Cell(each.doc)])
        for each in settings
    ]
    table = {"columns": ("setting", "value", "comes_from", "meaning"), "rows": rows}
    return {"name": name, "address": address, "problem": problem, "table": table}
