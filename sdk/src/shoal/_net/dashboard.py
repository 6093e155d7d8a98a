"""The dashboard as programs ask it: JSON over HTTP, with the cluster's token. Belongs to no thread."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import IO, Any
from urllib.parse import urlsplit

from shoal import exceptions

#: The dashboard has answered by then, in seconds, unless the caller says otherwise.
DEADLINE_S = 60.0
#: Whether it lives, in seconds.
HEALTH_DEADLINE_S = 5.0
#: Of an answer that is no success, so much is told.
_LONGEST_REASON = 20_000
#: Read at a time, in bytes.
_PIECE = 64 * 1024


class DashboardError(RuntimeError):
    """The dashboard refused a request; the message says why. ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.message = message
        self.status = status

    def __str__(self) -> str:
        return self.message


class DashboardClient:
    """``address``: ``http(s)://host:port``, a path behind it included. ``verify``: False = take any certificate; a path
    = of the authority that signed it.

    Methods raise: DashboardError, ConnectionError (nobody there, or no answer in time), AuthenticationError.
    """

    def __init__(
        self,
        address: str,
        token: str,
        *,
        headers: Mapping[str, str] | None = None,
        verify: str | bool | None = True,
    ) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{address!r} is no address of a dashboard: it is like http://host:8265")
        self.address = address.rstrip("/")
        self._headers = dict(headers or {})
        if token:
            self._headers.setdefault("Authorization", f"Bearer {token}")
        self._context: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
            if verify is False:
                self._context.check_hostname = False
                self._context.verify_mode = ssl.CERT_NONE

    def get(self, path: str, timeout_s: float = DEADLINE_S) -> Any:
        """``path``: without a slash before it, with its query."""
        return self._json(self._open("GET", path, None, None, timeout_s))

    def post(self, path: str, document: Any, timeout_s: float = DEADLINE_S) -> Any:
        return self._json(self._open("POST", path, json.dumps(document).encode(), "application/json", timeout_s))

    def delete(self, path: str, timeout_s: float = DEADLINE_S) -> Any:
        return self._json(self._open("DELETE", path, None, None, timeout_s))

    def put(self, path: str, data: IO[bytes], size: int, timeout_s: float) -> None:
        self._open("PUT", path, data, "application/octet-stream", timeout_s, size).close()

    def stream(self, path: str, timeout_s: float) -> Iterator[bytes]:
        """An answer as it comes; ``timeout_s`` is how long the beginning may take, and each piece. Whole characters of
        UTF-8 only if the answer sends them so."""
        with self._open("GET", path, None, None, timeout_s) as response:
            try:
                while piece := response.read1(_PIECE):
                    yield piece
            except OSError as error:
                raise ConnectionError(f"The dashboard at {self.address} has stopped in the middle: {error}") from None

    def answers(self) -> bool:
        """Whether there is one, in `HEALTH_DEADLINE_S`. It is told no token, so it may be anybody."""
        try:
            self._open("GET", "api/healthz", None, None, HEALTH_DEADLINE_S).close()
        except (ConnectionError, DashboardError, exceptions.AuthenticationError):
            return False
        return True

    def exists(self, path: str) -> bool:
        try:
            self._open("GET", path, None, None, DEADLINE_S).close()
        except DashboardError as error:
            if error.status == 404:
                return False
            raise
        return True

    def _open(
        self, method: str, path: str, body: Any, kind: str | None, timeout_s: float, size: int | None = None
    ) -> Any:
        headers = dict(self._headers)
        if kind is not None:
            headers["Content-Type"] = kind
        if size is not None:
            headers["Content-Length"] = str(size)
        request = urllib.request.Request(f"{self.address}/{path}", body, headers, method=method)
        handlers: list[Any] = [urllib.request.ProxyHandler({})] if _is_local(self.address) else []
        if self._context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=self._context))
        try:
            return urllib.request.build_opener(*handlers).open(request, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                reason = error.read(_LONGEST_REASON).decode("utf-8", "replace").strip()
            if error.code in (401, 403):
                raise exceptions.AuthenticationError(
                    f"The dashboard at {self.address} refused this request: {reason or error.reason}"
                ) from None
            raise DashboardError(f"Request failed with status code {error.code}: {reason}", error.code) from None
        except (urllib.error.URLError, TimeoutError, OSError) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            raise ConnectionError(
                f"Failed to connect to Shoal at address: {self.address}: {cause}. Check that a dashboard runs there "
                "(`shoal dashboard` starts one) and is reachable."
            ) from None

    def _json(self, response: Any) -> Any:
        with response:
            try:
                return json.loads(response.read())
            except ValueError:
                raise DashboardError(f"{self.address} answers, but is no dashboard of Shoal's", 200) from None


def _is_local(address: str) -> bool:
    return urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1")
