"""How a page is answered: in time when the cluster is gone, and as a stream when somebody follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from shoal_common.errors import ServiceError
from shoal_dashboard.context import Context
from shoal_dashboard.streams import EventStream

Page = Callable[[Request], Awaitable[Response]]

#: In the layout, around what a page is.
_CONTENT_BEGINS, _CONTENT_ENDS = '<main id="content" tabindex="-1">', "</main>"
#: With a cluster that is gone, in seconds: it is asked again so long.
_PATIENCE_S = 1.5


def followed(context: Context, page: Page) -> Page:
    """As a stream of its content, when that is asked for: what the layout has around it stays the same."""
    streams = context.streams
    page = _in_time(context.cluster_away, page)

    async def answer(request: Request) -> Response:
        if "text/event-stream" not in request.headers.get("accept", ""):
            return await page(request)

        async def content() -> str:
            text = bytes((await page(request)).body).decode()
            return text.partition(_CONTENT_BEGINS)[2].rpartition(_CONTENT_ENDS)[0]

        if streams.are_full:
            return PlainTextResponse("Too many pages are watched\n", 503, headers={"Retry-After": "10"})
        key = f"{request.url.path}?{request.url.query}"
        if not streams.is_watched(key) and (first := await page(request)).status_code != 200:
            return first
        return EventStream(streams.follow(key, content, request.headers.get("last-event-id", "")))

    return answer


def _in_time(cluster_away: Callable[[], ServiceError | None], page: Page) -> Page:
    """A page that waits for a cluster that is gone is given up after ``_PATIENCE_S``; one that takes long otherwise is
    waited for: a GCS that is slow is not gone. Raises: what the page does, and why the cluster is away."""

    async def answer(request: Request) -> Response:
        read = asyncio.ensure_future(page(request))
        try:
            while not (await asyncio.wait({read}, timeout=_PATIENCE_S))[0]:
                if (away := cluster_away()) is not None:
                    raise away
            return read.result()
        finally:
            read.cancel()
            await asyncio.wait({read})

    return answer
