"""The page that looks for a word in the logs of all nodes: a form and links, which need no script."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from shoal_dashboard.context import Context
from shoal_dashboard.hanging_up import unless_hung_up
from shoal_dashboard.logs.matching import MAX_BYTES, LogFile
from shoal_dashboard.logs.query import QueryError
from shoal_dashboard.logs.search import READ_S, Found, TooManySearches
from shoal_dashboard.pages.columns import VIEW
from shoal_dashboard.pages.layout import Layout

#: Files, and of what was not looked at.
_FILES, _LEFT = 100, 20
_NAMES = ("word", "node_id", "files")


def routes(context: Context) -> list[BaseRoute]:
    layout = Layout()

    async def page(request: Request) -> Response:
        given = {name: request.query_params.get(name, "") for name in _NAMES}
        problem, status, found = "", 200, None
        try:
            if given["word"]:
                search = context.log_search.run(given["word"], given["node_id"].strip(), given["files"].strip())
                found = await unless_hung_up(request, search)
        except ClientDisconnect:
            return Response(status_code=499)  # for nobody
        except QueryError as error:
            problem, status = str(error), 400
        except TooManySearches as error:
            problem, status = str(error), 503
        values = {**given, "problem": problem, "found": found and _shown(found), "bounds": (MAX_BYTES >> 20, READ_S)}
        return layout.page(request, "log_search.html", values, status)

    return [Route(f"/{VIEW}/logs/search", page)]


def _shown(found: Found) -> dict[str, Any]:
    left = [(f"{file.name} of {_node(file)}", _link(file), why) for file, why in found.left]
    left += [
        (f"{node.host} {node.node_id.hex()}", f"{VIEW}/logs/{node.node_id.hex()}", why)
        for node, why in found.left_nodes
    ]
    return {
        "lines": sum(matching.count for _, matching in found.files),
        "files": [
            {
                "name": file.name,
                "node": _node(file),
                "link": _link(file),
                "count": matching.count,
                "hits": matching.hits,
            }
            for file, matching in found.files[:_FILES]
        ],
        "having": len(found.files),
        "read_files": found.read_files,
        "read_mib": found.read_bytes / (1 << 20),
        "left": left[:_LEFT],
        "left_count": len(left),
    }


def _node(file: LogFile) -> str:
    return f"{file.host} {file.node_id.hex()}" + (", which is gone" if file.kept else "")


def _link(file: LogFile) -> str:
    return f"{VIEW}/logs/{file.node_id.hex()}/{quote(file.name)}"
