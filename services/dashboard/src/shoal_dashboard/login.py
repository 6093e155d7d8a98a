"""Logging in and out by the cluster's token."""

from __future__ import annotations

import html
import time
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from shoal_dashboard.context import Context
from shoal_dashboard.links import is_inside
from shoal_dashboard.security.origins import from_own_page
from shoal_dashboard.security.tokens import RAY_COOKIE, SESSION_S, Tokens

#: Answered without a token.
OPEN_PATHS = frozenset({"/login", "/api/authentication_mode", "/api/authenticate"})

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<title>Shoal: log in</title></head>
<body>
<main>
<h1>Shoal</h1>
<form method="post" action="login">
<label for="token">Token of the cluster</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<input type="hidden" name="next" value="{next}">
<button>Log in</button>
</form>
<p role="alert">{problem}</p>
<p>It is in the file that <code>shoal dashboard</code> names, by default <code>~/.shoal/auth_token</code>.</p>
</main>
</body>
</html>
"""


def routes(_context: Context) -> list[BaseRoute]:
    return [
        Route("/login", _form, methods=["GET"]),
        Route("/login", _log_in, methods=["POST"]),
        Route("/logout", _log_out, methods=["POST"]),
        Route("/api/authentication_mode", _mode),
        Route("/api/authenticate", _authenticate, methods=["POST"]),
    ]


async def _form(request: Request) -> Response:
    return _page(request.query_params.get("next", "/"))


async def _log_in(request: Request) -> Response:
    # Not for other sites to do: whoever is logged in to another's cluster without knowing may tell it secrets.
    if not from_own_page(request.headers):
        return PlainTextResponse(
            "Forbidden: log in by the form of this page; programs send the token as a header\n", 403
        )
    fields = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10)
    token, wanted = (fields.get(name, [""])[0] for name in ("token", "next"))
    tokens: Tokens = request.state.tokens
    if not tokens.matches(token.strip()):
        return _page(wanted, "This is not the token of this cluster.", 403)
    answer = RedirectResponse("." + wanted if is_inside(wanted) else "./", 303)
    _set(answer, request, tokens.session_cookie, tokens.new_session(time.time()))
    return answer


async def _log_out(request: Request) -> Response:
    answer = RedirectResponse("./login", 303)
    for name in (request.state.tokens.session_cookie, RAY_COOKIE):
        answer.delete_cookie(name, httponly=True, samesite="strict")
    return answer


async def _mode(_request: Request) -> Response:
    return JSONResponse({"authentication_mode": "token"})


async def _authenticate(request: Request) -> Response:
    """As Ray's: the token comes in the header, and goes back as a cookie."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = (token if scheme.lower() == "bearer" else scheme).strip()
    if not token:
        return PlainTextResponse("Unauthorized: Missing authentication token", 401)
    if not request.state.tokens.matches(token):
        return PlainTextResponse("Forbidden: Invalid authentication token", 403)
    answer = JSONResponse({"status": "authenticated", "message": "Token is valid"})
    _set(answer, request, RAY_COOKIE, token)
    return answer


def _page(wanted: str, problem: str = "", status: int = 200) -> Response:
    return HTMLResponse(_PAGE.format(next=html.escape(wanted), problem=html.escape(problem)), status)


def _set(answer: Response, request: Request, name: str, value: str) -> None:
    # Behind a proxy that speaks HTTPS for us, it says so.
    https = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
    answer.set_cookie(name, value, max_age=SESSION_S, httponly=True, samesite="strict", secure=https)
