"""``/api/packages/``: what clients upload for their jobs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from shoal_common.errors import InvalidRequest
from shoal_common.placement.runtime_env import MAX_PACKAGE_BYTES
from shoal_dashboard.context import Context
from shoal_dashboard.rest.methods import by_method

#: Of a body, by the beginning of its path.
BODY_LIMITS = {"/api/packages/": MAX_PACKAGE_BYTES}


def routes(context: Context) -> list[BaseRoute]:
    async def exists(request: Request) -> Response:
        packages = await context.jobs.packages()
        try:
            there = await packages.exists(request.path_params["protocol"], request.path_params["name"])
        except InvalidRequest as error:
            return PlainTextResponse(str(error), 400)
        return Response(status_code=200 if there else 404)

    async def store(request: Request) -> Response:
        packages = await context.jobs.packages()
        try:
            await packages.store(request.path_params["protocol"], request.path_params["name"], request.stream())
        except InvalidRequest as error:
            return PlainTextResponse(str(error), 400)
        return Response(status_code=200)

    path = "/api/packages/{protocol}/{name}"
    return [by_method(path, get=exists, put=store)]
