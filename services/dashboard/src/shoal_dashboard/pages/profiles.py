"""The page that looks into a process: its stacks now, a flame graph of its time or its memory."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from markupsafe import Markup
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from shoal_common.errors import ServiceError
from shoal_dashboard.context import Context
from shoal_dashboard.hanging_up import unless_hung_up
from shoal_dashboard.logs.query import QueryError, nodes_to_ask
from shoal_dashboard.pages.columns import VIEW
from shoal_dashboard.pages.layout import Layout
from shoal_dashboard.profiles.profiles import Profiles
from shoal_dashboard.profiles.rendering import rendered
from shoal_dashboard.profiles.request import MAX_SECONDS, SECONDS, Form, Kind, RequestError, Wanted, pid_of, wanted

_NOTHING: Mapping[str, Any] = {"problem": "", "text": None, "graph": None, "speedscope": ""}
_IDLE = "It did nothing all the time: threads that wait are not counted unless they are asked for."


def routes(context: Context) -> list[BaseRoute]:
    pages = _ProfilePages(context)
    path = f"/{VIEW}/profile"
    return [Route(path, pages.form, methods=["GET"]), Route(path, pages.look, methods=["POST"])]


class _ProfilePages:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._layout = Layout()

    async def form(self, request: Request) -> Response:
        given = dict(request.query_params)
        if not given.get("pid") or not given.get("node_id"):
            return RedirectResponse("workers", 303)  # one of those is to be chosen
        try:
            pid_of(given)
            nodes_to_ask(await self._context.cluster.nodes(), given["node_id"].lower(), "")
        except (RequestError, QueryError) as error:
            return self._page(request, given, {"problem": str(error)}, 400)
        return self._page(request, given, {})

    async def look(self, request: Request) -> Response:
        """A POST: another site cannot have it sent with a login."""
        fields = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=20)
        given = {name: values[-1] for name, values in fields.items()}
        try:
            pid, node_id = pid_of(given), given.get("node_id", "")
            kind = given.get("kind", "")
            if kind not in tuple(Kind):
                raise RequestError(f"kind={kind} is none of {', '.join(Kind)}")
            what = wanted(Kind(kind), given)
            looking = Profiles(self._context.cluster).of(what, pid, node_id)
            found = await unless_hung_up(request, looking)
        except ClientDisconnect:
            return Response(status_code=499)  # for nobody
        except (RequestError, ServiceError) as error:
            return self._page(request, given, {"problem": str(error)}, 400)
        return self._page(request, given, _shown(what, found, f"{what.kind} of process {pid}"))

    def _page(
        self, request: Request, given: Mapping[str, str], shown: Mapping[str, Any], status: int = 200
    ) -> Response:
        values = {
            "pid": given.get("pid", ""),
            "node_id": given.get("node_id", ""),
            "given": given,
            "kinds": {
                Kind.STACKS: "Stacks, now",
                Kind.CPU: "Flame graph of its time",
                Kind.MEMORY: "Flame graph of its memory",
            },
            "seconds": SECONDS,
            "most_seconds": MAX_SECONDS,
        }
        return self._layout.page(request, "profile.html", {**values, **_NOTHING, **shown}, status)


def _shown(what: Wanted, found: bytes, name: str) -> dict[str, Any]:
    if what.kind is Kind.STACKS:
        return {"text": found.decode("utf-8", "replace")}
    if not found:
        return {"problem": _IDLE if what.kind is Kind.CPU else "It allocated nothing meanwhile."}
    document = rendered(what.kind, found, Form.SPEEDSCOPE, name)
    return {
        # Made of escaped text by ourselves.
        "graph": Markup(rendered(what.kind, found, Form.FLAME_GRAPH, name)),
        "speedscope": "data:application/json;base64," + base64.b64encode(document.encode()).decode(),
    }
