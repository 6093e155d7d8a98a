"""Charts of the last hour, of the cluster and of each node: the last values as a table, all of them for the browser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from shoal_common.events.node_events import NodeLoad
from shoal_dashboard.charts.ring import STEP_S, STEPS, Last, Ring
from shoal_dashboard.context import Context
from shoal_dashboard.pages.columns import VIEW, cell
from shoal_dashboard.pages.following import followed
from shoal_dashboard.pages.layout import Layout
from shoal_dashboard.state.amounts import size

#: Nodes in the table, the busiest first.
_NODES = 100


@dataclass(frozen=True, slots=True)
class Chart:
    """``lines``: series of the ring, and what they are called. ``unit``: bytes, or none."""

    title: str
    unit: str
    lines: Mapping[str, str]


_OF_ALL = (
    Chart("CPUs", "", {"cpus_busy": "busy", "cpus": "there are"}),
    Chart("Memory", "bytes", {"memory_used": "used", "memory": "there is"}),
    Chart("Object store", "bytes", {"store_used": "used", "store": "there is"}),
    Chart("Leases", "", {"running": "held", "waiting": "waited for"}),
)
_OF_CLUSTER = (
    *_OF_ALL,
    Chart("Tasks", "", {"tasks_running": "running", "tasks_waiting": "waiting"}),
    Chart("Tasks ended a second", "", {"tasks_finished": "finished", "tasks_failed": "failed"}),
)


def routes(context: Context) -> list[BaseRoute]:
    layout = Layout()

    async def page(request: Request) -> Response:
        loads = sorted(context.ring.nodes().values(), key=lambda load: -load.cpu_percent * load.cpus)
        values = {
            "last": last_values(context.ring),
            "nodes": [_row(load) for load in loads[:_NODES]],
            "all": len(loads),
        }
        return layout.page(request, "charts.html", values)

    async def data(request: Request) -> Response:
        """``node_id``: of one node; ``after``: only steps behind that one."""
        try:
            node_id = bytes.fromhex(request.query_params.get("node_id", ""))
            after = int(request.query_params.get("after", "-1"))
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 400)
        span = context.ring.span(node_id, after)
        charts = _OF_ALL if node_id else _OF_CLUSTER
        return JSONResponse(
            {
                "step_s": STEP_S,
                "steps": STEPS,
                "newest": span.newest,
                "charts": [{"title": each.title, "unit": each.unit, "lines": dict(each.lines)} for each in charts],
                "series": span.series,
            }
        )

    return [Route(f"/{VIEW}/charts", followed(context, page)), Route(f"/{VIEW}/charts/data", data)]


def last_values(ring: Ring, node_id: bytes = b"") -> list[tuple[str, str, str, str]]:
    """Of each series: its name, its last value, the mean of the last minute, and the most of the hour."""
    known = ring.last(node_id)
    return [
        (f"{chart.title}: {called}", *_shown(known[name], chart.unit))
        for chart in (_OF_ALL if node_id else _OF_CLUSTER)
        for name, called in chart.lines.items()
        if name in known
    ]


def _shown(last: Last, unit: str) -> tuple[str, str, str]:
    def shown(value: float | None) -> str:
        if value is None:
            return "–"
        return size(int(value)) if unit == "bytes" else f"{value:,.4g}"

    return shown(last.now), shown(last.minute), shown(last.most)


def _row(load: NodeLoad) -> tuple[Any, ...]:
    return (
        cell("node_id", load.node_id.hex()),
        f"{load.cpu_percent:.0f} % of {load.cpus}",
        f"{size(load.memory_used)} of {size(load.memory)}",
        f"{size(load.store_used)} of {size(load.store)}",
        f"{load.running:,}",
        f"{load.waiting:,}",
    )
