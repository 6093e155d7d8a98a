"""The drivers and workers that this process talks to: one connection each, opened by whoever needs it first."""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import socket
import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal._net.connection import Connection, Identity
from shoal._net.dialer import Dialer
from shoal._net.interrupts import GuardedLock
from shoal._net.reactor import Reactor
from shoal._wire.peer_frames import PeerMessage
from shoal_common.channel import unix
from shoal_common.channel.frame_socket import AnySocket
from shoal_common.channel.frames import Message, WorkerAddress
from shoal_common.channel.handshake import Accepting, Connecting
from shoal_common.channel.listener import Listener
from shoal_common.surroundings import raise_open_files

if TYPE_CHECKING:
    from shoal_common.tls import Tls

logger = logging.getLogger("shoal")

#: Whoever connects must have shown the token by then, in seconds. Long, because a process whose Python code is held up
#: by a C function answers late.
ACCEPT_TIMEOUT_S = 60.0
#: A full message of arguments or values comes in one read, if the peer has sent it all.
READ_BYTES = 256 * 1024
#: That descriptors are missing is said no more often, in seconds.
COMPLAIN_EVERY_S = 60.0


class Peers:
    """Everything for one peer goes over one connection, so that it arrives in the order in which it was sent.

    ``on_messages(connection, messages)`` runs in the leading thread, ``on_gone(worker_id, why)`` too and with the
    core's lock, which callers of the other methods hold.
    """

    def __init__(
        self,
        reactor: Reactor,
        identity: Identity,
        lock: GuardedLock,
        dialer: Dialer,
        listeners: list[socket.socket],
        tls: Tls | None,
        on_messages: Callable[[Connection, list[Any]], None],
        on_gone: Callable[[bytes, str], None],
    ) -> None:
        """``listeners`` are a Unix socket, and perhaps a TCP one for other nodes; they end with this."""
        self._reactor = reactor
        self._identity = identity
        self._lock = lock
        self._dialer = dialer
        self._on_messages = on_messages
        self._on_gone = on_gone
        #: Pages of it come into being when so much is read at once.
        self._read_into = memoryview(mmap.mmap(-1, READ_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self._connections: dict[bytes, Connection] = {}
        #: Every open connection: where both sides connect at once, one of the two is in no other table.
        self._open: set[Connection] = set()
        self._addresses: dict[bytes, WorkerAddress] = {}
        self._complain_at = 0.0
        self._listeners = [
            Listener(sock, reactor, tls, self._accept, _out_of_descriptors, ACCEPT_TIMEOUT_S) for sock in listeners
        ]

    def connect(self, address: WorkerAddress) -> Connection | None:
        """The connection to a driver or worker, opened if need be; None when it is dead.

        It may still be on its way; when that fails, ``on_gone`` tells.
        """
        connection = self._connections.get(address.worker_id)
        if connection is not None:
            return connection
        try:
            side = self._identity.connecting((address.node_id, address.worker_id))
            connection = self._make(partial(self._dial, address), side)
        except OSError:
            return None
        connection.peer_worker_id = address.worker_id
        connection.peer_address = address
        self._connections[address.worker_id] = connection
        self._addresses[address.worker_id] = address
        return connection

    def _dial(self, address: WorkerAddress) -> AnySocket:
        """Raises: OSError."""
        try:
            return self._dialer.peer(address)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            if raise_open_files():
                return self._dialer.peer(address)
            now = time.monotonic()
            if now >= self._complain_at:
                self._complain_at = now + COMPLAIN_EVERY_S
                logger.error("Other processes cannot be reached for now: %s. Raise ulimit -n.", error)
            raise

    def known(self, connection: Connection) -> None:
        """A connection that the peer opened serves both directions, unless there is one already."""
        if connection.peer_address is not None:
            self._connections.setdefault(connection.peer_worker_id, connection)
            self._addresses.setdefault(connection.peer_worker_id, connection.peer_address)

    def address_of(self, worker_id: bytes) -> WorkerAddress | None:
        return self._addresses.get(worker_id)

    def send(self, worker_id: bytes, message: Message) -> None:
        """To a peer that has a connection; dropped when it has gone."""
        connection = self._connections.get(worker_id)
        if connection is not None:
            connection.send(message)

    def has_room(self, worker_id: bytes) -> bool:
        """As ``Connection.has_room``; from any thread, without the lock."""
        connection = self._connections.get(worker_id)
        return connection is None or connection.has_room()

    def has_unsent(self) -> bool:
        """As ``Connection.has_unsent``, of any peer that was reached; from any thread, without the lock."""
        return any(connection.authenticated and connection.has_unsent() for connection in list(self._open))

    def when_drained(self, worker_id: bytes, asker: Hashable, callback: Callable[[], None]) -> bool:
        """As ``Connection.when_drained``; False for a peer that has gone."""
        connection = self._connections.get(worker_id)
        return connection is not None and connection.when_drained(asker, callback)

    def nodes(self) -> set[bytes]:
        """Where the peers are."""
        return {address.node_id for address in self._addresses.values()}

    def node_lost(self, node_id: bytes, reason: str) -> None:
        """Whoever is on that node counts as dead, even if its end of the connection still seems to be there."""
        for connection in list(self._open):
            if connection.peer_address is not None and connection.peer_address.node_id == node_id:
                connection.close(reason)

    def _make(self, sock: AnySocket | Callable[[], AnySocket], side: Connecting | Accepting) -> Connection:
        connection = Connection(
            self._reactor,
            sock,
            side,
            PeerMessage,
            self._on_messages,
            self._on_closed,
            self._authenticated,
            self._read_into,
        )
        with self._lock:
            self._open.add(connection)
        return connection

    def _accept(self, sock: AnySocket, peer: str) -> Connection | None:
        if isinstance(sock, socket.socket) and sock.family == socket.AF_UNIX:
            if unix.user_of(sock) not in (os.getuid(), 0):
                sock.close()
                return None
        return self._make(sock, self._identity.accepting())

    def _authenticated(self, connection: Connection) -> None:
        self._settled(connection)
        with self._lock:
            before = self._connections.get(connection.peer_worker_id)
        # One connection each way at most: who makes another one has lost the first, which may still seem to be there
        # when only one side was told. Answers that went over it would be lost.
        if before is not None and before is not connection and before.accepted and connection.accepted:
            before.close("the peer has lost it, and has connected again")

    def _settled(self, connection: Connection) -> None:
        for listener in self._listeners:
            listener.settled(connection)

    def _on_closed(self, connection: Connection, reason: str) -> None:
        self._settled(connection)
        with self._lock:
            # Only now: a refused connection may end while ``connect``, under this lock, has not named its peer yet.
            worker_id = connection.peer_worker_id
            self._open.discard(connection)
            if self._connections.get(worker_id) is connection:
                del self._connections[worker_id]
                self._addresses.pop(worker_id, None)
                self._on_gone(worker_id, reason)

    def close(self) -> None:
        """Close all connections without telling, and remove the socket."""
        for connection in self._open:
            connection.close_quietly()
        for listener in self._listeners:
            path = listener.sock.getsockname() if listener.sock.family == socket.AF_UNIX else None
            listener.close()
            if path is not None:
                with contextlib.suppress(FileNotFoundError):  # the session's directory went first
                    os.unlink(path)

    def detach(self) -> None:
        """In a forked child: let go of the copied descriptors."""
        for connection in self._open:
            connection.detach()
        for listener in self._listeners:
            listener.sock.close()  # not the poller's entry, which is the parent's


def _out_of_descriptors(error: OSError) -> None:
    if not raise_open_files():
        logger.error("No connection can be accepted for now: %s. Raise the limit of open files (ulimit -n).", error)
