"""Stacks and profiles of processes, as Ray's page asks for them: ``GET /worker/traceback``, ``/worker/cpu_profile``,
``/memory_profile``, and the same of the process that runs a task.

They make a process pause, so another site's page cannot have them asked for with a login (``ACTING_PATHS``).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from shoal_common.errors import NO_ANSWER, InvalidRequest, NotFound, PreconditionFailed, ResourceExhausted
from shoal_dashboard.context import Context
from shoal_dashboard.events.rows import Filter, TaskRow
from shoal_dashboard.events.rows import QueryError as TaskQueryError
from shoal_dashboard.hanging_up import unless_hung_up
from shoal_dashboard.profiles.profiles import Profiles
from shoal_dashboard.profiles.rendering import MEDIA_TYPES, rendered
from shoal_dashboard.profiles.request import MAX_SECONDS, SECONDS, Form, Kind, RequestError, Wanted, pid_of, wanted

#: Asked with ``GET``, and yet for our own pages only.
ACTING_PATHS = frozenset(
    {"/worker/traceback", "/worker/cpu_profile", "/memory_profile", "/task/traceback", "/task/cpu_profile"}
)


def routes(context: Context) -> list[BaseRoute]:
    async def enabled(_request: Request) -> Response:
        defaults = {"cpuDuration": SECONDS, "memoryDuration": SECONDS, "maxDuration": MAX_SECONDS, "native": False}
        data = {"profilingEnabled": True, "profilingDefaults": {**defaults, "cpuFormat": "flamegraph"}}
        return JSONResponse({"result": True, "msg": "", "data": data})

    async def of_worker(request: Request, what: Wanted) -> bytes:
        given = request.query_params
        return await Profiles(context.cluster).of(what, pid_of(given), given.get("node_id", ""), given.get("ip", ""))

    async def of_task(request: Request, what: Wanted) -> bytes:
        row = await _running(context, request.query_params.get("task_id", ""), request)
        return await Profiles(context.cluster).of(what, row.worker_pid, row.node_id)

    async def of_either(request: Request, what: Wanted) -> bytes:
        return await (of_task if "task_id" in request.query_params else of_worker)(request, what)

    return [
        Route("/api/profiling_enabled", enabled),
        Route("/worker/traceback", _answered(Kind.STACKS, of_worker)),
        Route("/worker/cpu_profile", _answered(Kind.CPU, of_worker)),
        Route("/memory_profile", _answered(Kind.MEMORY, of_either)),
        Route("/task/traceback", _answered(Kind.STACKS, of_task)),
        Route("/task/cpu_profile", _answered(Kind.CPU, of_task)),
    ]


async def _running(context: Context, task_id: str, request: Request) -> TaskRow:
    """Raises: RequestError, NotFound."""
    if not task_id:
        raise RequestError("task_id is required")
    attempt = request.query_params.get("attempt_number", "")
    if context.tasks is None:
        raise NotFound("no cluster has been found yet")
    try:
        page = await context.tasks.query([Filter("task_id", "=", task_id)], limit=100)
    except TaskQueryError as error:
        raise RequestError(str(error)) from error
    rows = [row for row in page.rows if attempt in ("", str(row.attempt_number))]
    if not rows:
        raise NotFound(f"nothing is known of an attempt {attempt} of task {task_id}".replace("attempt  ", "attempt "))
    row = max(rows, key=lambda each: each.attempt_number)
    if row.state != "RUNNING" or not row.worker_pid:
        raise NotFound(f"that attempt does not run: its state is {row.state}")
    return row


def _answered(
    kind: Kind, look: Callable[[Request, Wanted], Coroutine[Any, Any, bytes]]
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def answer(request: Request) -> Response:
        try:
            what = wanted(kind, request.query_params)
            found = await unless_hung_up(request, look(request, what))
        except ClientDisconnect:
            return Response(status_code=499)  # for nobody
        except (RequestError, InvalidRequest) as error:
            return PlainTextResponse(f"{error}\n", 400)
        except NotFound as error:
            return PlainTextResponse(f"{error}\n", 404)
        except ResourceExhausted as error:
            return PlainTextResponse(f"{error}\n", 429)
        except PreconditionFailed as error:
            return PlainTextResponse(f"{error}\n", 501)
        except NO_ANSWER as error:
            return PlainTextResponse(f"The node does not answer: {error}\n", 503)
        if kind is Kind.STACKS:
            return PlainTextResponse(found)
        given = request.query_params
        name = f"{kind} of process {given.get('pid') or given.get('task_id')}"
        ending = {Form.FLAME_GRAPH: "svg", Form.SPEEDSCOPE: "speedscope.json", Form.RAW: "txt"}[what.form]
        headers = {"Content-Disposition": f'inline; filename="profile.{ending}"'}
        return Response(rendered(kind, found, what.form, name), media_type=MEDIA_TYPES[what.form], headers=headers)

    return answer
