"""Lets nobody in without the cluster's token, and no other site act in a user's name."""

from __future__ import annotations

import time
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from shoal_dashboard.links import root_of
from shoal_dashboard.security.origins import SAFE_METHODS, from_own_page
from shoal_dashboard.security.tokens import Shown, Tokens

_MISSING = "Unauthorized: send the cluster's token: Authorization: Bearer <token>\n"
_WRONG = "Forbidden: this is not the token of this cluster\n"
_IN_ADDRESS = "A token does not belong into an address, which logs and histories keep: send it as a header, or log in\n"
_CROSS_SITE = "Forbidden: only pages of this dashboard may do that with a login; programs send the token as a header\n"


class Guard:
    """401 without a token, 403 with a wrong one or for another site's page, 400 for a token in the address.

    ``open_paths`` are answered to everybody. What ``acting_paths`` do is not harmless, whatever the method.
    """

    def __init__(
        self, app: ASGIApp, tokens: Tokens, open_paths: Collection[str], acting_paths: Collection[str] = ()
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._open_paths = frozenset(open_paths)
        self._acting_paths = frozenset(acting_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            scope.setdefault("state", {})["tokens"] = self._tokens
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refusal(scope, receive, send)
        else:
            await WebSocket(scope, receive, send).send_denial_response(refusal)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        harmless = scope["type"] == "http" and scope["method"] in SAFE_METHODS
        safe = harmless and scope["path"] not in self._acting_paths
        if self._tokens.in_query(scope["query_string"].decode("latin-1")):
            return PlainTextResponse(_IN_ADDRESS, 400)
        shown = self._tokens.shown(headers, _cookies(headers), time.time())
        if scope["path"] not in self._open_paths:
            if shown is Shown.NOTHING:
                return _ask_to_log_in(scope, headers)
            if shown is Shown.WRONG:
                return PlainTextResponse(_WRONG, 403)
        if not safe and shown is Shown.COOKIE and not from_own_page(headers):
            return PlainTextResponse(_CROSS_SITE, 403)
        return None


def _ask_to_log_in(scope: Scope, headers: Headers) -> Response:
    """A browser that opens a page is sent to the login, anybody else is told."""
    if scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
        query = scope["query_string"].decode("latin-1")
        path = scope["raw_path"].decode("latin-1")
        wanted = quote(path + (f"?{query}" if query else ""), safe="")
        return RedirectResponse(f"{root_of(path)}login?next={wanted}", 303)
    return PlainTextResponse(_MISSING, 401, headers={"WWW-Authenticate": "Bearer"})


def _cookies(headers: Headers) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}
