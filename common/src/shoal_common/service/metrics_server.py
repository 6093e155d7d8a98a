"""Metrics over HTTP, for Prometheus: ``GET /metrics``, and nothing else.

No web server's worth of dependencies for one page without parameters: a request's head is read up to a bound, the page
is sent, the connection closes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Callable

from shoal_common.auth import METADATA_KEY, SCHEME
from shoal_common.service.background import Background
from shoal_common.service.metrics import CONTENT_TYPE, OPENMETRICS_TYPE
from shoal_common.tls import Tls

#: A request's head may have so many bytes.
_HEAD_BYTES = 8192
#: Whoever has not sent one and read the answer by then is hung up on, in seconds.
_ANSWERED_S = 10.0
#: Served at a time.
_CONNECTIONS = 16


class MetricsServer:
    """Whoever asks from elsewhere than this machine shows the cluster's token: ``Authorization: Bearer <token>``."""

    def __init__(self, token: str, tls: Tls | None, page: Callable[[bool], str]) -> None:
        """``page``: the text, as OpenMetrics if told so."""
        self._token = token
        self._tls = tls
        self._page = page
        self._background = Background()
        #: The oldest first.
        self._serving: dict[asyncio.Task[None], None] = {}
        self._server: asyncio.Server | None = None
        #: Known once started.
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """``port`` 0 takes a free one. Raises: OSError when it is taken."""
        self._context = self._tls.context(server=True) if self._tls is not None else None
        self._open = _is_loopback(host)
        self._server = await asyncio.start_server(self._accepted, host, port, limit=_HEAD_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Idempotent."""
        if self._server is not None:
            self._server.close()
        await self._background.stop()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._serving) >= _CONNECTIONS:
            # Who has been there longest says nothing or does not read: it must not keep others out.
            oldest = next(iter(self._serving))
            del self._serving[oldest]
            oldest.cancel()
        task = self._background.spawn(self._serve(reader, writer))
        self._serving[task] = None
        task.add_done_callback(lambda task: self._ended(task, writer))

    def _ended(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        self._serving.pop(task, None)
        writer.transport.abort()  # what has not gone out by now is kept for nobody

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_ANSWERED_S):
                if self._context is not None:
                    # Here and not by the listener, so that who never shakes hands is one of ``_CONNECTIONS``. It comes
                    # first: before a task's first step nothing has been read.
                    await writer.start_tls(self._context)
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = self._answer(head.decode("latin-1"))
                content = body.encode()
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
                    "Connection: close\r\n\r\n".encode()
                )
                writer.write(content)
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it is the asker's loss, who sees the connection's end

    def _answer(self, head: str) -> tuple[str, str, str]:
        """Status, type and content."""
        line, *fields = head.split("\r\n")
        method, _, rest = line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if not self._open and not any(self._authorizes(each) for each in fields):
            return "401 Unauthorized", "text/plain", "show the cluster's token: Authorization: Bearer <token>\n"
        if method != "GET":
            return "405 Method Not Allowed", "text/plain", "only GET is served\n"
        if path != "/metrics":
            return "404 Not Found", "text/plain", "only /metrics is served\n"
        # Prometheus reads both; it prefers this one, and says so.
        openmetrics = any(_accepts_openmetrics(each) for each in fields)
        return "200 OK", OPENMETRICS_TYPE if openmetrics else CONTENT_TYPE, self._page(openmetrics)

    def _authorizes(self, field: str) -> bool:
        name, _, value = field.partition(":")
        shown = value.strip()
        return name.strip().lower() == METADATA_KEY and secrets.compare_digest(
            shown.encode("latin-1"), (SCHEME + self._token).encode()
        )


def _accepts_openmetrics(field: str) -> bool:
    name, _, value = field.partition(":")
    return name.strip().lower() == "accept" and "application/openmetrics-text" in value


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
