"""The graph of a job's tasks, collapsed by function: a drawing that needs no script, and the same as a table."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from shoal_common.errors import Unavailable
from shoal_dashboard.charts.call_graph import CallGraph, Function, call_graph
from shoal_dashboard.charts.graph_layout import BOX_HEIGHT, BOX_WIDTH, Box, drawing
from shoal_dashboard.context import Context
from shoal_dashboard.events.rows import QueryError
from shoal_dashboard.pages.columns import VIEW, mood
from shoal_dashboard.pages.following import followed
from shoal_dashboard.pages.layout import PATIENCE_S, Layout
from shoal_dashboard.state.amounts import counted

#: Of a name, in a box.
_LETTERS = 24
_MOODS = ("ended", "running", "waiting", "bad")


def routes(context: Context) -> list[BaseRoute]:
    layout = Layout()

    async def page(request: Request) -> Response:
        job_id = request.query_params.get("job_id", "")
        if context.tasks is None:
            raise Unavailable("the cluster has not been found yet")
        try:
            counts, calls = await asyncio.gather(context.tasks.counts(job_id), context.calls.of(job_id, PATIENCE_S))
        except QueryError as error:
            return layout.page(request, "missing.html", {"problem": str(error)}, 404)
        graph = call_graph(counts, calls)
        drawn = drawing([each.name for each in graph.functions], graph.calls)
        functions = [_function(each, box, job_id) for each, box in zip(graph.functions, drawn.boxes, strict=True)]
        values = {"job_id": job_id, "drawing": drawn, "functions": functions, "rows": _rows(graph)}
        return layout.page(request, "graph.html", values)

    return [Route(f"/{VIEW}/graph", followed(context, page))]


def _function(function: Function, box: Box, job_id: str) -> dict[str, Any]:
    """With a bar of its states: what each kind of them has of the box's width."""
    moods = dict.fromkeys(_MOODS, 0)
    for state, count in function.states.items():
        moods[mood(state)] += count
    bar, x = [], box.x
    for name, count in moods.items():
        width = round(BOX_WIDTH * count / function.tasks) if function.tasks else 0
        if width:
            bar.append((name, x, min(width, box.x + BOX_WIDTH - x)))
            x += width
    query = urlencode({"func_or_class_name": function.name, **({"job_id": job_id} if job_id else {})})
    return {
        "box": box,
        "label": function.name if len(function.name) <= _LETTERS else f"…{function.name[1 - _LETTERS :]}",
        "text": counted(function.tasks, "task") if function.states else "",
        "title": f"{function.name}: {_told(function.states)}" if function.states else function.name,
        "link": "" if function.collapsed else f"{VIEW}/tasks?{query}",
        "bar": bar,
        "bar_y": box.y + BOX_HEIGHT - 8,
    }


def _rows(graph: CallGraph) -> list[tuple[str, str, str, str]]:
    """Of each function: its tasks, who calls it and how often, and their states."""
    callers: dict[str, list[str]] = {}
    for (caller, callee), count in sorted(graph.calls.items(), key=lambda each: -each[1]):
        callers.setdefault(callee, []).append(f"{caller} ({count:,})")
    return [
        (each.name, f"{each.tasks:,}", ", ".join(callers.get(each.name, ())), _told(each.states))
        for each in graph.functions
        if each.states
    ]


def _told(states: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in states.items())
