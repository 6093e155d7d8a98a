"""One client's session at its gateway: the streams that the client opens, and the address at which it is called."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import structlog

from shoal_common.channel import tcp, unix
from shoal_common.channel.frame_socket import AnySocket
from shoal_common.channel.frames import WorkerAddress
from shoal_common.channel.gateway_handshake import Target, ToGcs, ToPath, ToPort, ToRaylet, decode_target
from shoal_common.channel.listener import Listener
from shoal_common.channel.tunnel import Tunnel
from shoal_common.channel.tunnel_sockets import TunnelSockets
from shoal_common.service.background import Background
from shoal_common.tls import Tls
from shoal_raylet.gateway.targets import GatewayTargets

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Inside:
    """What the gateway's node knows of its cluster."""

    node_id: bytes
    #: Where this node's sockets are.
    sockets_dir: Path
    #: Where other nodes reach this one, and where it listens for them; empty = there are none.
    host: str
    listen_host: str
    #: (host, port) of each GCS.
    gcs: Sequence[tuple[str, int]]
    #: Between the nodes.
    tls: Tls | None
    targets: GatewayTargets
    #: Why the cluster has given up a node; "" = it has not, as far as is known here.
    why_dead: Callable[[bytes], str]
    #: Gives this node's raylet a connection.
    connect_raylet: Callable[[socket.socket], None]


class GatewaySession:
    """Belongs to one event loop. Begins without a connection: ``attach``."""

    def __init__(self, worker_id: bytes, inside: Inside, grace_s: float, on_end: Callable[[], None]) -> None:
        """``on_end`` is told once, when the session is over. Raises: OSError when it cannot listen."""
        self._worker_id = worker_id
        self._inside = inside
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._path = os.fspath(inside.sockets_dir / f"c-{worker_id.hex()[:16]}")
        self._connecting = Background()
        self._listeners: list[Listener] = []
        self._listen(unix.listen(self._path))
        port = 0
        if inside.listen_host:
            try:
                self._listen(tcp.listen(inside.listen_host, 0))
            except OSError:
                self._stop_listening()
                raise
            port = self._listeners[1].sock.getsockname()[1]
        #: Where the others in the cluster reach the client.
        self.address = WorkerAddress(inside.node_id, worker_id, self._path, inside.host if port else "", port)
        self._sockets = TunnelSockets(
            Tunnel(client=False, grace_s=grace_s, now=self._loop.time()),
            on_open=self._opened,
            on_lost=lambda reason: log.info("client_disconnected", client=worker_id.hex(), reason=reason),
            on_end=self._ended,
        )

    def detach(self) -> int:
        """The client comes again: its earlier connection is dead. Returns how many bytes have come until now."""
        self._sockets.detach()
        return self._sockets.received

    def attach(self, connection: AnySocket, received: int, early: bytes) -> None:
        self._sockets.attach(connection, received, early)

    async def finish(self, reason: str) -> None:
        """End it; the client is told why, if it can be reached."""
        await self._sockets.finish(reason)
        await self._connecting.wait()

    # -- streams to the inside ------------------------------------------------------------------------

    def _opened(self, stream: int, data: bytes) -> None:
        try:
            target = decode_target(data)
        except msgspec.DecodeError as error:
            self._sockets.refuse(stream, f"not a target: {error}")
            return
        if reason := self._inside.targets.refuse(target):
            log.warning("client_target_refused", client=self._worker_id.hex(), reason=reason)
            self._sockets.refuse(stream, reason)
        elif isinstance(target, ToRaylet):
            ours, theirs = socket.socketpair(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self._inside.connect_raylet(theirs)
            self._sockets.join(stream, ours)
        else:
            self._connecting.spawn(self._connect(stream, target))

    async def _connect(self, stream: int, target: Target) -> None:
        try:
            async with asyncio.timeout(tcp.CONNECT_TIMEOUT_S):
                sock = await self._dial(target)
        except TimeoutError:
            self._sockets.refuse(stream, f"no connection within {tcp.CONNECT_TIMEOUT_S:g} s")
        except OSError as error:
            self._sockets.refuse(stream, str(error))
        else:
            self._sockets.join(stream, sock)

    async def _dial(self, target: Target) -> AnySocket:
        """Raises: OSError."""
        match target:
            case ToPath(path):
                return await self._connected(socket.AF_UNIX, path)
            case ToPort(host, port):
                return tcp.dial(host, port, self._inside.tls)
            case ToGcs():
                problems: list[str] = []
                for host, port in self._inside.gcs:
                    try:
                        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                        return await self._connected(found[0][0], found[0][4])
                    except OSError as error:
                        problems.append(f"{host}:{port}: {error}")
                raise OSError("no GCS can be reached: " + "; ".join(problems))
        raise AssertionError(target)

    async def _connected(self, family: int, address: Any) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if family != socket.AF_UNIX:
                tcp.tune(sock)
            await self._loop.sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock

    # -- streams to the client ------------------------------------------------------------------------

    def _listen(self, sock: socket.socket) -> None:
        self._listeners.append(
            Listener(
                sock,
                self._loop,
                self._inside.tls,
                # The client itself asks for the proof.
                lambda accepted, _: self._sockets.open(b"", accepted),
                lambda error: log.error("client_accept_failed", reason=str(error)),
            )
        )

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        if os.path.exists(self._path):
            os.unlink(self._path)

    def _ended(self, reason: str) -> None:
        log.info("client_session_ended", client=self._worker_id.hex(), reason=reason)
        self._stop_listening()
        self._connecting.cancel()
        self._on_end()
