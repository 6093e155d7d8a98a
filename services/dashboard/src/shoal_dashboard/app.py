"""The web application: families of endpoints, put together, behind the guard.

A family is a module with ``routes(context) -> list[BaseRoute]``. A new one is named in ``FAMILIES``, and nowhere else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from shoal_common.errors import NO_ANSWER, ServiceError
from shoal_dashboard import login
from shoal_dashboard.context import Context
from shoal_dashboard.pages import charts as chart_pages
from shoal_dashboard.pages import configuration as configuration_pages
from shoal_dashboard.pages import errors as error_pages
from shoal_dashboard.pages import graph as graph_pages
from shoal_dashboard.pages import log_search
from shoal_dashboard.pages import profiles as profile_pages
from shoal_dashboard.pages import routes as pages
from shoal_dashboard.pages import timeline as timeline_pages
from shoal_dashboard.rest import (
    cluster,
    health,
    jobs,
    logs,
    metrics,
    openapi,
    packages,
    profiles,
    state,
    timeline,
    version,
)
from shoal_dashboard.security.bodies import BodyLimit
from shoal_dashboard.security.guard import Guard
from shoal_dashboard.security.headers import SecurityHeaders
from shoal_dashboard.security.tokens import Tokens

#: In the order in which they are asked for a path.
FAMILIES = (
    health,
    login,
    version,
    openapi,
    cluster,
    timeline,
    state,
    jobs,
    packages,
    logs,
    metrics,
    profiles,
    profile_pages,
    timeline_pages,
    chart_pages,
    graph_pages,
    error_pages,
    configuration_pages,
    log_search,
    pages,
)


def create_app(context: Context) -> Starlette:
    """Its lifespan is that of ``context``."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with context:
            yield

    return Starlette(
        routes=[route for family in FAMILIES for route in family.routes(context)],
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(
                Guard,
                tokens=Tokens(context.config.token),
                open_paths=login.OPEN_PATHS | health.OPEN_PATHS,
                acting_paths=profiles.ACTING_PATHS,
            ),
            Middleware(BodyLimit, larger=packages.BODY_LIMITS),
        ],
        exception_handlers=dict.fromkeys(NO_ANSWER, _cluster_away),
        lifespan=lifespan,
    )


async def _cluster_away(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return PlainTextResponse(f"The cluster does not answer: {error}\n", 503, headers={"Retry-After": "2"})
