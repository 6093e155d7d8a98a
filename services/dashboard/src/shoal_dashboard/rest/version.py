"""``GET /api/version``: what Ray's clients ask first."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from shoal_dashboard.context import Context

#: Of the REST interface, as Ray counts.
REST_VERSION = "4"
#: The version of Ray whose interface this is; clients compare it.
RAY_VERSION = "2.60.0"
SHOAL_VERSION = "0.1.0"


def routes(context: Context) -> list[BaseRoute]:
    async def version(_request: Request) -> Response:
        about = await context.cluster.about()
        return JSONResponse(
            {
                "version": REST_VERSION,
                "ray_version": RAY_VERSION,
                "ray_commit": "",
                "session_name": about.session_name,
                "shoal_version": SHOAL_VERSION,
            }
        )

    return [Route("/api/version", version)]
