"""``GET /openapi.json``: how jobs, packages, logs, the state interface and what looks into processes are asked, and
what they answer: for programs that make clients of them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from shoal_dashboard.context import Context
from shoal_dashboard.jobs import openapi as job_openapi
from shoal_dashboard.logs import openapi as log_openapi
from shoal_dashboard.rest.version import SHOAL_VERSION
from shoal_dashboard.state.openapi import document


def routes(_context: Context) -> list[BaseRoute]:
    return [Route("/openapi.json", _openapi)]


async def _openapi(_request: Request) -> Response:
    return JSONResponse(document(SHOAL_VERSION, {**job_openapi.paths(), **log_openapi.read_paths()}))
