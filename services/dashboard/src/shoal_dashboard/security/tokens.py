"""Who shows the cluster's token, and how. Pure.

A request shows it as ``Authorization: Bearer <token>``; where something on the way needs that header for itself, as
``X-Ray-Authorization``; or by a cookie: Ray's, which holds the token, or the one of our login, which proves that its
maker knew the token and when. A token in an address is refused: addresses are kept in logs and histories.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from enum import Enum, auto
from urllib.parse import parse_qsl

#: Ray's cookie: ``POST api/authenticate`` sets it.
RAY_COOKIE = "ray-authentication-token"
#: A login is good for so long, in seconds.
SESSION_S = 7 * 24 * 3600
_HEADERS = ("authorization", "x-ray-authorization")
_QUERY_NAMES = frozenset({"token", "auth_token", "access_token", "authorization", RAY_COOKIE})


class Shown(Enum):
    """What a request shows."""

    NOTHING = auto()
    WRONG = auto()
    #: The token in a header, which no other site can make a browser send.
    HEADER = auto()
    #: A cookie, which the browser sends whoever makes it ask.
    COOKIE = auto()


class Tokens:
    """Of one cluster."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        #: Browsers do not tell ports apart: two clusters on one host have cookies of different names.
        self.session_cookie = f"shoal-session-{hashlib.sha256(b'cookie' + self._token).hexdigest()[:8]}"

    def matches(self, token: str) -> bool:
        return hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token)

    def shown(self, headers: Mapping[str, str], cookies: Mapping[str, str], now: float) -> Shown:
        """``headers`` by names in lower case; ``now``: seconds since 1970."""
        found = Shown.NOTHING
        for name in _HEADERS:
            scheme, _, token = headers.get(name, "").partition(" ")
            if scheme.lower() == "bearer":
                if self.matches(token.strip()):
                    return Shown.HEADER
                found = Shown.WRONG
        if found is Shown.WRONG:  # a cookie does not make up for it: whoever sends both means the header
            return found
        if RAY_COOKIE in cookies:
            found = Shown.COOKIE if self.matches(cookies[RAY_COOKIE]) else Shown.WRONG
        if found is not Shown.COOKIE and self.session_cookie in cookies:
            # One that has run out is as good as none: its owner is to log in again.
            found = Shown.COOKIE if self._good(cookies[self.session_cookie], now) else Shown.NOTHING
        return found

    def new_session(self, now: float) -> str:
        """The value of a cookie that is good for ``SESSION_S``."""
        end = int(now) + SESSION_S
        return f"{end}.{self._proof(end)}"

    def in_query(self, query: str) -> bool:
        """True = the query of an address has a token, or means to."""
        pairs: Iterable[tuple[str, str]] = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
        return any(name.lower() in _QUERY_NAMES or self.matches(name) or self.matches(value) for name, value in pairs)

    def _good(self, session: str, now: float) -> bool:
        end, _, proof = session.partition(".")
        if not (end.isascii() and end.isdecimal() and len(end) < 16):
            return False
        shown = proof.encode("utf-8", "surrogateescape")
        return now < int(end) and hmac.compare_digest(shown, self._proof(int(end)).encode())

    def _proof(self, end: int) -> str:
        return hmac.new(self._token, f"session {end}".encode(), hashlib.sha256).hexdigest()
