"""The service's process: the application behind uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from shoal_common.channel import tcp
from shoal_common.rpc.server import join_address
from shoal_common.service.config import ConfigError
from shoal_dashboard.app import create_app
from shoal_dashboard.config import DashboardConfig
from shoal_dashboard.connections import Connection
from shoal_dashboard.context import Context

#: Requests under way have this long to finish when the service stops, in seconds; streams are ended then.
STOP_GRACE_S = 2
#: Connections at a time; whoever comes then gets 503.
MAX_CONNECTIONS = 1000
#: A connection without requests is closed after so many seconds.
KEEP_ALIVE_S = 30
#: What is sent to whoever takes nothing for so long, in seconds, ends its connection.
UNREAD_S = 60
#: The head of a request, in bytes.
MAX_HEAD_BYTES = 64 * 1024


class DashboardServer:
    """`shoal_common.service.lifecycle.App` and `CanFail`."""

    def __init__(self, config: DashboardConfig) -> None:
        if (config.https_cert is None) != (config.https_key is None):
            raise ConfigError("--https-cert and --https-key go together")
        self._config = config
        self._context = Context(config)
        self.address = ""

    async def start(self) -> None:
        """Raises: OSError when the port cannot be bound."""
        config = self._config
        self._parent = os.pidfd_open(config.ends_with) if config.ends_with else None
        listening = _listen(config.host, config.port, config.port_retries if config.port else 0)
        port = listening.getsockname()[1]
        self.address = join_address(config.host, port)
        self._context.url = config.public_url or _url(config, port)
        self._server = _Server(create_app(self._context), config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        up = asyncio.create_task(self._server.up.wait())
        try:
            await asyncio.wait({self._serving, up}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            up.cancel()
        if self._serving.done():
            self._serving.result()
            raise RuntimeError("the application did not start; its log says why")

    async def failed(self) -> str:
        ended = asyncio.create_task(self._parent_ended())
        try:
            await asyncio.wait({self._serving, ended}, return_when=asyncio.FIRST_COMPLETED)
            return "the process that it ends with has ended" if ended.done() else "the web server has ended"
        finally:
            ended.cancel()

    async def stop(self) -> None:
        self._context.streams.end()
        self._server.should_exit = True
        await asyncio.wait({self._serving})
        if self._parent is not None:
            os.close(self._parent)

    async def _parent_ended(self) -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        if self._parent is None:
            await ended.wait()
            return
        loop.add_reader(self._parent, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._parent)


class _Server(uvicorn.Server):
    """Tells when it is up, and leaves signals to `shoal_common.service.lifecycle`."""

    def __init__(self, app: Any, config: DashboardConfig) -> None:
        cert, key = config.certificate or (None, None)
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                loop="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                # What a proxy says of the client is not asked for.
                proxy_headers=False,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=STOP_GRACE_S,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                ssl_certfile=cert,
                ssl_keyfile=key,
            )
        )
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _url(config: DashboardConfig, port: int) -> str:
    scheme = "http" if config.certificate is None else "https"
    return f"{scheme}://{join_address(_reachable(config), port)}"


def _reachable(config: DashboardConfig) -> str:
    """By which others reach it: where it listens, or where it listens everywhere the address towards the GCS."""
    if config.host not in ("0.0.0.0", "::"):
        return config.host
    gcs_host, _, gcs_port = config.gcs_address.partition(",")[0].rpartition(":")
    try:
        return tcp.local_address(gcs_host.strip("[]"), int(gcs_port))
    except OSError:  # its name is not known yet
        return socket.gethostname()


def _listen(host: str, port: int, retries: int) -> socket.socket:
    """On ``port``, or on the first free one of ``retries`` above it. Raises: OSError naming the address."""
    while True:
        try:
            listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not retries:
                at = join_address(host, port)
                raise OSError(error.errno, f"cannot listen on {at}: {os.strerror(error.errno or 0)}") from error
            port, retries = port + 1, retries - 1
        else:
            # Connections have it from here: whoever is gone, or reads nothing of a stream, is hung up on.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(UNREAD_S * 1000))
            return listening
