"""How much a request may bring."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 1024 * 1024


class BodyLimit:
    """413 for a body above ``MAX_BODY_BYTES``, or above what ``larger`` allows below a path: prefix → bytes."""

    def __init__(self, app: ASGIApp, larger: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._larger = dict(larger or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = next((n for prefix, n in self._larger.items() if scope["path"].startswith(prefix)), MAX_BODY_BYTES)
        stated = Headers(scope=scope).get("content-length", "0")
        if stated.isdecimal() and int(stated) > limit:
            await PlainTextResponse(_too_large(limit), 413)(scope, receive, send)
            return
        got = 0

        async def receive_bounded() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > limit:
                raise HTTPException(413, _too_large(limit))
            return message

        await self._app(scope, receive_bounded, send)


def _too_large(limit: int) -> str:
    return f"the request has more than {limit} bytes\n"
