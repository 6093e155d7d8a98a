"""The raylet's sockets, for its own node and for others: accepts framed channels and hands their messages on."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import structlog

from shoal_common.channel import tcp, unix
from shoal_common.channel.frame_socket import AnySocket
from shoal_common.channel.handshake import Accepting
from shoal_common.channel.listener import Listener
from shoal_common.tls import Tls
from shoal_raylet.channel.connection import ChannelHandler, Connection, Identity

log = structlog.get_logger(__name__)

#: Longest path of a Unix socket on Linux, without the terminating zero.
_MAX_PATH = 107


class ChannelServer:
    """Listens on ``path``, where the arena's descriptor goes out with each handshake, and by TCP for other nodes."""

    def __init__(
        self,
        path: Path,
        tcp_at: tuple[str, int] | None,
        identity: Identity,
        tls: Tls | None,
    ) -> None:
        """``tcp_at``: host and port, 0 = a free one; None = no TCP. ``tls``: by TCP only."""
        if len(os.fsencode(path)) > _MAX_PATH:
            raise ValueError(f"the socket path {path} is longer than {_MAX_PATH} bytes: choose a shorter session_dir")
        self.path = path
        #: The TCP port, once started; 0 = none.
        self.port = 0
        self._tcp_at = tcp_at
        self._identity = identity
        self._tls = tls
        self._listeners: list[Listener] = []
        self._connections: set[Connection] = set()

    def start(self, handler: ChannelHandler) -> None:
        """Raises: OSError when the path is taken or cannot be made."""
        self._handler = handler
        self.refuse = handler.refuse
        self.received = handler.received
        self._loop = asyncio.get_running_loop()
        if self._tcp_at is not None:
            # First: a port in use must leave no socket file behind.
            self._listen(tcp.listen(*self._tcp_at))
            self.port = self._listeners[0].sock.getsockname()[1]
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._listen(unix.listen(os.fspath(self.path)))

    def stop_accepting(self) -> None:
        for listener in self._listeners:
            if listener.sock.family == socket.AF_UNIX:
                self.path.unlink(missing_ok=True)
            listener.close()
        self._listeners.clear()

    def _listen(self, sock: socket.socket) -> None:
        local = sock.family == socket.AF_UNIX
        self._listeners.append(
            Listener(
                sock,
                self._loop,
                self._tls,
                lambda accepted, _: self._serve(accepted, local=local, arena=self._identity if local else None),
                lambda error: log.error("channel_accept_failed", reason=str(error)),
            )
        )

    def _serve(self, sock: AnySocket, *, local: bool, arena: Identity | None) -> Connection:
        side = Accepting(self._identity.token, self._identity.node_id)
        connection = Connection(sock, self, self._loop, side, local=local, arena=arena)
        self._connections.add(connection)
        return connection

    def adopt(self, sock: socket.socket) -> None:
        """Serve a driver whose bytes this node's gateway carries. It counts as one of this node, but has no arena."""
        self._serve(sock, local=True, arena=None)

    def close(self) -> None:
        """End all connections and remove the socket."""
        self.stop_accepting()
        for connection in list(self._connections):
            connection.close()

    def connected(self, connection: Connection) -> None:
        self._settled(connection)
        self._handler.connected(connection)

    def closed(self, connection: Connection) -> None:
        self._settled(connection)
        self._connections.discard(connection)
        if connection.ready:
            self._remove_socket_of(connection)
            self._handler.closed(connection)

    def _remove_socket_of(self, connection: Connection) -> None:
        """A process of this node that was killed leaves the socket on which others reached it."""
        address = connection.hello.address if connection.hello is not None else None
        if address is not None and connection.shares_arena and Path(address.path).parent == self.path.parent:
            Path(address.path).unlink(missing_ok=True)

    def _settled(self, connection: Connection) -> None:
        for listener in self._listeners:
            listener.settled(connection)
