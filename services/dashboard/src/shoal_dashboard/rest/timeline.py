"""``GET /api/v0/tasks/timeline``: what ran when, as a Chrome trace, which Perfetto opens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from shoal_dashboard.context import Context
from shoal_dashboard.events.chrome_trace import chrome_trace
from shoal_dashboard.events.rows import QueryError, TaskRow

#: Beyond so many a browser takes no more: the longest ones are told.
MAX_ATTEMPTS = 200_000


def routes(context: Context) -> list[BaseRoute]:
    async def timeline(request: Request) -> Response:
        """``job_id``, ``start_ms``, ``end_ms`` (since 1970) narrow it down; ``download=1``: to be saved as a file."""
        asked = request.query_params
        try:
            await context.caught_up(asked.get("after", ""))
            if context.tasks is None:
                return PlainTextResponse("The cluster has not been found yet\n", 503, headers={"Retry-After": "2"})
            start_ms, end_ms = (_number(asked.get(name, "0")) for name in ("start_ms", "end_ms"))
            rows = await context.tasks.timeline(asked.get("job_id", ""), start_ms, end_ms, MAX_ATTEMPTS)
        except QueryError as error:
            return PlainTextResponse(f"{error}\n", 400)
        headers = {}
        if asked.get("download") == "1":
            name = f"timeline-{asked.get('job_id') or 'all'}-{time.strftime('%Y-%m-%d_%H-%M-%S')}.json"
            headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return Response(await asyncio.to_thread(_encoded, rows), media_type="application/json", headers=headers)

    return [Route("/api/v0/tasks/timeline", timeline)]


def _encoded(rows: Sequence[TaskRow]) -> bytes:
    return json.dumps(chrome_trace(rows, int(time.time() * 1_000))).encode()


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 15:
        raise QueryError(f"{text[:100]!r} is not a time in milliseconds since 1970.")
    return int(text)
