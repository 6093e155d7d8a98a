"""What ran when: a page with the lanes as a table, and the cells and tasks of a window for its canvas."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
from collections import OrderedDict
from functools import partial
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from shoal_common.errors import Unavailable
from shoal_dashboard.context import Context
from shoal_dashboard.events.rows import QueryError
from shoal_dashboard.events.sheet import MAX_COLUMNS, Lane, Lanes, grid
from shoal_dashboard.events.store import TaskStore
from shoal_dashboard.events.timeline_queries import Sheet
from shoal_dashboard.pages.columns import VIEW, cell
from shoal_dashboard.pages.following import followed
from shoal_dashboard.pages.layout import Layout

#: Lanes in the table.
_ROWS = 200
#: What the lanes of a job are is found out anew after so many seconds, and not more often than a tenth of the time.
_LANES_S, _SHARE = 2.0, 0.1
#: Jobs whose lanes are remembered.
_JOBS = 16


def routes(context: Context) -> list[BaseRoute]:
    timeline = _Timeline(context)
    return [
        Route(f"/{VIEW}/timeline", followed(context, timeline.page)),
        Route(f"/{VIEW}/timeline/sheet", _answered(timeline.sheet)),
        Route(f"/{VIEW}/timeline/at", _answered(timeline.at)),
    ]


class _Timeline:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._layout = Layout()
        #: By job: until when they are good, and they.
        self._lanes: OrderedDict[str, tuple[float, Lanes]] = OrderedDict()

    async def page(self, request: Request) -> Response:
        job_id = request.query_params.get("job_id", "")
        show = partial(self._layout.page, request)
        try:
            there = await self._there(job_id)
        except QueryError as error:
            return show("missing.html", {"problem": str(error)}, 404)
        whole = max(1, there.last_ms - there.first_ms)
        rows = [
            (
                cell("node_id", lane.node_id),
                cell("worker_id", lane.worker_id),
                lane.pid if lane.worker_id else f"{lane.workers} workers",
                f"{lane.tasks:,}",
                f"{100 * lane.busy_ms / whole / max(1, lane.workers):.0f} %",
                cell("start_time_ms", lane.first_ms),
                cell("end_time_ms", lane.last_ms),
            )
            for lane in there.lanes[:_ROWS]
        ]
        values = {"job_id": job_id, "there": there, "rows": rows, "query": urlencode({"job_id": job_id})}
        return show("timeline.html", values)

    async def sheet(self, request: Request) -> Response:
        """``job_id``, ``start_ms``, ``end_ms`` (since 1970; else all), ``columns``: at most so many. Returns, packed,
        the length of a head, four bytes, little-endian; the head, as JSON; the shares and the kinds of all cells."""
        job_id = request.query_params.get("job_id", "")
        there = await self._there(job_id)
        start_ms = _number(request, "start_ms", there.first_ms)
        end_ms = _number(request, "end_ms", there.last_ms + 1)
        columns = _number(request, "columns", 1_000, MAX_COLUMNS)
        found = await self._store().sheet(job_id, there, grid(start_ms, end_ms, columns, len(there.lanes)))
        data = await asyncio.to_thread(_packed, there, found)
        return Response(data, media_type="application/octet-stream", headers={"Content-Encoding": "gzip"})

    async def at(self, request: Request) -> Response:
        """Leads to the page of what ran there then, or else back."""
        asked = request.query_params
        job_id, worker_id = asked.get("job_id", ""), asked.get("worker_id", "")
        lane_id = worker_id or asked.get("node_id", "")
        at_ms, near_ms = _number(request, "at_ms", 0), _number(request, "near_ms", 0)
        task = await self._store().task_at(job_id, lane_id, at_ms, near_ms, by_worker=bool(worker_id))
        back = f"../timeline?{urlencode({'job_id': job_id})}" if job_id else "../timeline"
        return RedirectResponse(f"../tasks/{task}" if task else back, 303)

    async def _there(self, job_id: str) -> Lanes:
        clock = asyncio.get_running_loop().time
        until, there = self._lanes.get(job_id, (0.0, None))
        began = clock()
        if there is None or began > until:
            there = await self._store().lanes(job_id)
            self._lanes[job_id] = clock() + max(_LANES_S, (clock() - began) / _SHARE), there
            self._lanes.move_to_end(job_id)
            if len(self._lanes) > _JOBS:
                self._lanes.popitem(last=False)
        return there

    def _store(self) -> TaskStore:
        if self._context.tasks is None:
            raise Unavailable("the cluster has not been found yet")
        return self._context.tasks


def _answered(answer: Any) -> Any:
    async def endpoint(request: Request) -> Response:
        try:
            response: Response = await answer(request)
        except QueryError as error:
            return PlainTextResponse(f"{error}\n", 400)
        return response

    return endpoint


def _packed(there: Lanes, sheet: Sheet) -> bytes:
    names = {mark.name: 0 for mark in sheet.marks or ()}
    names = dict(zip(names, range(len(names)), strict=True))
    head = {
        "lanes": [{"name": _name(lane), "node_id": lane.node_id, "worker_id": lane.worker_id} for lane in there.lanes],
        "functions": there.functions,
        "running": there.running,
        "first_ms": there.first_ms,
        "last_ms": there.last_ms,
        "start_ms": sheet.grid.start_ms,
        "column_ms": sheet.grid.column_ms,
        "columns": sheet.grid.columns,
        "names": list(names),
        "marks": None
        if sheet.marks is None
        else [
            (mark.lane, mark.kind, mark.start_ms, mark.end_ms, names[mark.name], int(mark.failed))
            for mark in sheet.marks
        ],
    }
    encoded = json.dumps(head).encode()
    return gzip.compress(struct.pack("<I", len(encoded)) + encoded + sheet.shares + sheet.kinds, 1)


def _name(lane: Lane) -> str:
    return f"{lane.node_id[:8]} · {lane.pid}" if lane.worker_id else f"node {lane.node_id[:12]}"


def _number(request: Request, name: str, default: int, most: int = 10**14) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise QueryError(f"{name}={text[:100]} is not a whole number from 0 on")
    return min(int(text), most)
