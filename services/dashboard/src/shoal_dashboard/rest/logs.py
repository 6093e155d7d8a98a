"""``GET /api/v0/logs`` and ``/api/v0/logs/{file|stream}``: what was printed on the nodes, as Ray's clients ask for it.

``format=json`` is ours: each line is a JSON object that says whose it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from shoal_common.errors import NO_ANSWER, InvalidRequest, NotFound
from shoal_dashboard.context import Context
from shoal_dashboard.logs.logs import Logs
from shoal_dashboard.logs.query import QueryError, parse
from shoal_dashboard.rest.envelope import NotKept, enveloped
from shoal_dashboard.state.query import QueryError as StateQueryError


def routes(context: Context) -> list[BaseRoute]:
    async def list_logs(request: Request) -> Any:
        given = request.query_params
        try:
            return await Logs(context.cluster).files(
                given.get("node_id", ""), given.get("node_ip", ""), given.get("glob", "*")
            )
        except QueryError as error:
            raise StateQueryError(str(error)) from error
        except NotFound as error:
            raise NotKept(str(error)) from error

    async def read(request: Request) -> Response:
        try:
            query = parse(request.query_params, request.path_params["media_type"])
        except QueryError as error:
            return PlainTextResponse(f"{error}\n", 400)
        if query.submission_id:
            return RedirectResponse(f"../../jobs/{quote(query.submission_id, safe='')}/logs", 307)
        lines = Logs(context.cluster).read(query)
        try:
            # What is wrong shows before the first line; from then on the answer has begun.
            first = await anext(lines, b"")
        except (QueryError, InvalidRequest) as error:
            return PlainTextResponse(f"{error}\n", 400)
        except NotFound as error:
            return PlainTextResponse(f"{error}\n", 404)
        except NO_ANSWER as error:
            return PlainTextResponse(f"The node does not answer: {error}\n", 503)
        return StreamingResponse(
            _rest(first, lines),
            media_type="application/x-ndjson" if query.json else "text/plain",
            headers={"Content-Disposition": f'attachment; filename="{query.download_name}"'},
        )

    return [Route("/api/v0/logs", enveloped(list_logs)), Route("/api/v0/logs/{media_type}", read)]


async def _rest(first: bytes, lines: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(lines):
        yield first
        async for piece in lines:
            yield piece
