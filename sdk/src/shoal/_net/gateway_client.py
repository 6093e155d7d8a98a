"""A driver outside of the cluster: all its connections are streams of one tunnel to a gateway.

The rest of the driver notices nothing of that: it gets plain sockets (`GatewayClient` is its `Dialer`), its gRPC goes
to a Unix socket in a directory of this client's, and whoever calls it from inside arrives at another one there. One
thread moves the bytes, and connects again when the connection to the gateway breaks. Other gateways, where the driver
knows of some, are asked then whether the cluster has given up the node of this one: a machine that is gone does not
say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from shoal_common.channel import handshake, tcp, unix
from shoal_common.channel.frame_socket import AnySocket
from shoal_common.channel.frames import Hello, WorkerAddress
from shoal_common.channel.gateway_handshake import (
    ROLE,
    SESSION_ID_BYTES,
    Greeting,
    SessionOpen,
    SessionOpened,
    Target,
    ToGcs,
    ToPath,
    ToPort,
    ToRaylet,
    encode_target,
)
from shoal_common.channel.handshake import HandshakeError
from shoal_common.channel.tunnel import Tunnel
from shoal_common.channel.tunnel_sockets import TunnelSockets
from shoal_common.tls import Tls

logger = logging.getLogger("shoal")

#: A connection to the gateway must be there by then, in seconds.
CONNECT_TIMEOUT_S = 5.0
#: Pauses between two attempts to connect again, in seconds.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_JOIN_TIMEOUT_S = 5.0

T = TypeVar("T")


class SessionOverError(HandshakeError):
    """No gateway has the session any more."""


class GatewayClient:
    """One session, from ``connect`` to ``close``. Thread-safe."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        token: str,
        tls: Tls | None,
        worker_id: bytes,
        directory: Path,
        on_end: Callable[[str], None],
        others: Sequence[tuple[str, int]] = (),
    ) -> None:
        """``directory`` is private and holds the two sockets. ``on_end`` is told, in this client's thread, why the
        session is over if that was not ``close``: from then on every connection of the driver is closed. ``others``:
        host and port of more gateways of this cluster."""
        self._at = (host, port)
        self._others = others
        self._token = token
        self._tls = tls
        self._worker_id = worker_id
        self._on_end = on_end
        self._session_id = secrets.token_bytes(SESSION_ID_BYTES)
        self._gcs_path = os.fspath(directory / "gcs")
        #: Where the driver's own listener is to be.
        self.peers_path = os.fspath(directory / "peers")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="shoal-gateway", daemon=True)
        self._sockets: TunnelSockets | None = None
        self._gcs_listener: socket.socket | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._closing = False
        self._node_id = b""

    @property
    def gcs_address(self) -> str:
        """For gRPC."""
        return f"unix:{self._gcs_path}"

    def connect(self) -> SessionOpened:
        """Begin the session; what the gateway says of itself.

        Raises: OSError (nobody there), HandshakeError (refused, or it is no gateway of ours).
        """
        self._thread.start()
        try:
            return self._call(self._begin())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the session, and the job with it at once if the gateway can be reached now. Idempotent."""
        if not self._thread.is_alive():
            return
        self._call(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_TIMEOUT_S)

    # -- Dialer -------------------------------------------------------------------------------------

    def home(self) -> socket.socket:
        return self._dial(ToRaylet())

    def raylet(self, host: str, port: int) -> socket.socket:
        return self._dial(ToPort(host, port))

    def peer(self, address: WorkerAddress) -> socket.socket:
        if address.node_id == self._node_id:
            return self._dial(ToPath(address.path))
        if not address.port:
            raise OSError(f"the process listens for its own node {address.node_id.hex()} only")
        return self._dial(ToPort(address.host, address.port))

    def abandon(self) -> None:
        """In a forked child: let go of the copied descriptors; nothing else of this may be used there."""
        if self._sockets is not None:
            self._sockets.abandon()
        if self._gcs_listener is not None:
            self._gcs_listener.close()

    def _dial(self, target: Target) -> socket.socket:
        """Raises: OSError when the session is over."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        try:
            self._loop.call_soon_threadsafe(self._open, target, theirs)
        except RuntimeError as error:
            ours.close()
            theirs.close()
            raise ConnectionError("the session with the gateway is over") from error
        return ours

    # -- in the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _open(self, target: Target, sock: socket.socket) -> None:
        assert self._sockets is not None
        self._sockets.open(encode_target(target), sock)

    async def _begin(self) -> SessionOpened:
        connection, opened, early = await self._join(self._at, SessionOpen(self._session_id, resumes=False, received=0))
        self._node_id = opened.node_id
        tunnel = Tunnel(client=True, grace_s=opened.grace_s, now=self._loop.time())
        self._sockets = TunnelSockets(tunnel, on_open=self._called, on_lost=self._lost, on_end=self._ended)
        self._sockets.attach(connection, opened.received, early)
        listener = self._gcs_listener = unix.listen(self._gcs_path)
        self._loop.add_reader(listener.fileno(), self._accept_grpc, listener)
        return opened

    async def _finish(self) -> None:
        self._closing = True
        await self._stop_reconnecting()
        if self._sockets is not None:
            await self._sockets.finish("the driver has ended")
        if self._gcs_listener is not None:
            self._loop.remove_reader(self._gcs_listener.fileno())
            self._gcs_listener.close()

    async def _join(self, gateway: tuple[str, int], session: SessionOpen) -> tuple[AnySocket, SessionOpened, bytes]:
        """A connection on which the gateway has agreed. Raises: OSError (also: it knows nothing of the session),
        HandshakeError."""
        sock: AnySocket | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                sock = await self._reach(gateway)
            async with asyncio.timeout(handshake.HANDSHAKE_TIMEOUT_S):
                greeting = Greeting(sock)
                opened = await greeting.request(self._token, self._hello(), session)
            if opened.over:
                raise SessionOverError(opened.error)
            if opened.error and session.resumes:
                raise ConnectionError(opened.error)
            if opened.error:
                raise HandshakeError(opened.error)
            return sock, opened, greeting.rest
        except TimeoutError:
            if sock is not None:
                sock.close()
            raise TimeoutError("it does not answer") from None
        except BaseException:
            if sock is not None:
                sock.close()
            raise

    async def _reach(self, gateway: tuple[str, int]) -> AnySocket:
        """Raises: OSError."""
        problem: OSError | None = None
        try:
            found = await self._loop.getaddrinfo(*gateway, type=socket.SOCK_STREAM)
        except RuntimeError:  # the interpreter ends: its threads for such work take no more
            found = socket.getaddrinfo(*gateway, type=socket.SOCK_STREAM)
        for family, _, _, _, address in found:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                await self._loop.sock_connect(sock, address)
            except OSError as error:
                sock.close()
                problem = error
            except BaseException:
                sock.close()
                raise
            else:
                return tcp.connected(sock, self._tls)
        assert problem is not None
        raise problem

    def _hello(self) -> Hello:
        return handshake.hello(ROLE, worker_id=self._worker_id)

    # -- the connection breaks ------------------------------------------------------------------------

    def _lost(self, reason: str) -> None:
        logger.warning("The connection to the gateway at %s:%d broke, connecting again: %s", *self._at, reason)
        self._reconnecting = self._loop.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        """Until it succeeds, or the tunnel says that it has taken too long."""
        assert self._sockets is not None
        pause = _FIRST_PAUSE_S
        while not self._sockets.ended:
            for gateway in (self._at, *self._others):
                session = SessionOpen(self._session_id, True, self._sockets.received, self._node_id)
                try:
                    connection, opened, early = await self._join(gateway, session)
                except OSError:
                    continue
                except HandshakeError as error:
                    if gateway == self._at or isinstance(error, SessionOverError):
                        self._sockets.end(f"the gateway refused to resume it: {error}")
                        return
                else:
                    logger.info("The session with the gateway at %s:%d goes on", *self._at)
                    self._sockets.attach(connection, opened.received, early)
                    return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _stop_reconnecting(self) -> None:
        if self._reconnecting is not None and not self._reconnecting.done():
            self._reconnecting.cancel()
            await asyncio.wait([self._reconnecting])

    def _ended(self, reason: str) -> None:
        if not self._closing:
            self._on_end(reason)

    # -- streams from the inside, and gRPC ------------------------------------------------------------

    def _called(self, stream: int, target: bytes) -> None:
        """Somebody calls this driver."""
        assert self._sockets is not None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(self.peers_path)
        except OSError as error:  # it does not listen yet, or any more
            sock.close()
            self._sockets.refuse(stream, str(error))
        else:
            self._sockets.join(stream, sock)

    def _accept_grpc(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            sock, _ = listener.accept()
            sock.setblocking(False)
            self._open(ToGcs(), sock)
