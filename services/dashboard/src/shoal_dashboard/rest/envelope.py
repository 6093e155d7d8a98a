"""The form of Ray's answers: ``{"result": bool, "msg": text, "data": {"result": ...}}``."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from shoal_common.errors import NO_ANSWER
from shoal_dashboard.events.rows import QueryError as TaskQueryError
from shoal_dashboard.state.query import QueryError

#: What an endpoint of Ray's answers: the ``result``.
Answer = Callable[[Request], Awaitable[Any]]


class NotKept(Exception):
    """What is asked for is not kept here; the message says why, and what to do."""


def enveloped(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    """400 for a question that makes no sense, 503 when the cluster does not answer, 501 for what is not kept."""

    @functools.wraps(answer)
    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse({"result": True, "msg": "", "data": {"result": await answer(request)}})
        except (QueryError, TaskQueryError) as error:
            return _failed(str(error), 400)
        except NotKept as error:
            return _failed(str(error), 501)
        except NO_ANSWER as error:
            return _failed(f"The cluster does not answer: {error}", 503)

    return endpoint


def _failed(reason: str, status: int) -> Response:
    return JSONResponse({"result": False, "msg": reason, "data": {"result": None}}, status)
