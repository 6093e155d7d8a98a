"""Several methods of one path: whoever asks with another is told 405, and which there are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def by_method(path: str, **endpoints: Callable[[Request], Awaitable[Response]]) -> Route:
    """``endpoints``: by methods in small letters. Not a ``Route`` each: the first one's methods would be told, and
    paths of others tried."""
    answers = {name: staticmethod(each) for name, each in endpoints.items()}
    return Route(path, type("Endpoint", (HTTPEndpoint,), answers))
