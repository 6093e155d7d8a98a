"""Whether the dashboard lives, and its cluster: asked by container runtimes and proxies, without a token."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from shoal_common.errors import NO_ANSWER
from shoal_dashboard.context import Context

#: Answered without a token.
OPEN_PATHS = frozenset({"/api/healthz", "/api/gcs_healthz"})


def routes(context: Context) -> list[BaseRoute]:
    async def gcs_healthz(_request: Request) -> Response:
        try:
            await context.cluster.about()
        except NO_ANSWER:
            # Where the GCS would be is not everybody's to know.
            return PlainTextResponse("the GCS does not answer", 503)
        return PlainTextResponse("success")

    return [Route("/api/healthz", _healthz), Route("/api/gcs_healthz", gcs_healthz)]


async def _healthz(_request: Request) -> Response:
    return PlainTextResponse("success")
