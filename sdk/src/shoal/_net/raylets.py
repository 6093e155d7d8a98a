"""The raylets that this process talks to: its own node's, and others' where it leases workers or owns objects.

A connection to another node's raylet is opened when it is first needed and kept: its end is how that raylet learns of
this process's end, and this process of the node's.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from shoal._net.connection import Connection, Identity
from shoal._net.dialer import Dialer
from shoal._net.interrupts import GuardedLock
from shoal._net.reactor import Reactor
from shoal_common.channel import frames
from shoal_common.channel.frames import Message

#: What waits for the address of a node, in messages.
_MAX_WAITING = 10_000
#: What was freed on another node may not have arrived there when it dies: it is freed again if the death becomes known
#: within so many seconds, as far as so many messages are kept.
_FREED_KEPT_S = 60.0
_FREED_KEPT = 10_000


class Raylets:
    """Callers hold the core's lock. ``home`` is set as soon as it is connected.

    ``on_messages(node_id, messages)`` runs in the leading thread and takes the lock itself. ``on_lost(node_id,
    reason)`` is called with it, for other nodes only.
    """

    def __init__(
        self,
        reactor: Reactor,
        identity: Identity,
        lock: GuardedLock,
        dialer: Dialer,
        on_messages: Callable[[bytes, list[Any]], None],
        on_lost: Callable[[bytes, str], None],
    ) -> None:
        self.home: Connection
        self._reactor = reactor
        self._identity = identity
        self._lock = lock
        self._dialer = dialer
        self._on_messages = on_messages
        self._on_lost = on_lost
        self._others: dict[bytes, Connection] = {}
        self._addresses: dict[bytes, tuple[str, int]] = {}
        #: Messages to nodes whose address has been asked for, and the questions.
        self._waiting: dict[bytes, list[Message]] = {}
        self._questions: dict[int, bytes] = {}
        self._numbers = itertools.count(1)
        #: (when, node, objects) of what was freed on other nodes lately.
        self._freed: deque[tuple[float, bytes, list[bytes]]] = deque(maxlen=_FREED_KEPT)
        self._closed = False

    def know(self, node_id: bytes, host: str, port: int) -> None:
        """The newest word about where that node's raylet listens."""
        self._addresses[node_id] = (host, port)

    def send(self, node_id: bytes, message: Message) -> None:
        """Connects if need be. To a node that is gone it is dropped: ``on_lost`` tells, later."""
        if node_id == self._identity.node_id:
            self.home.send(message)
            return
        connection = self._connection(node_id)
        if connection is not None:
            connection.send(message)
        elif len(waiting := self._waiting[node_id]) < _MAX_WAITING:
            waiting.append(message)

    def open(self, node_id: bytes) -> None:
        """Be known to that node: this process owns something there."""
        if node_id != self._identity.node_id:
            self._connection(node_id)

    def free(self, node_id: bytes, object_ids: list[bytes]) -> None:
        """Delete objects of this process that have that node as their home."""
        if node_id == self._identity.node_id:
            self.home.send(frames.ObjectFree(object_ids))
            return
        now = time.monotonic()
        self._freed.append((now, node_id, object_ids))
        while self._freed[0][0] < now - _FREED_KEPT_S:
            self._freed.popleft()
        connection = self._others.get(node_id)
        if connection is not None:
            connection.send(frames.ObjectFree(object_ids))
        else:
            # This node's raylet finds another way, also where the home is dead.
            self.home.send(frames.ObjectFree(object_ids, node_id))

    def reaches(self, node_id: bytes) -> bool:
        """Whether it is this node, or one to which there is a connection."""
        return node_id == self._identity.node_id or node_id in self._others

    def has_unsent(self) -> bool:
        """As ``Connection.has_unsent``, of any that was reached; from any thread, without the lock."""
        connections = (self.home, *list(self._others.values()))
        return any(connection.authenticated and connection.has_unsent() for connection in connections)

    def nodes(self) -> set[bytes]:
        """Other nodes to which there is a connection."""
        return set(self._others)

    def on_found(self, message: frames.NodeFound) -> None:
        node_id = self._questions.pop(message.request)
        waiting = self._waiting.pop(node_id, [])
        if not message.port:
            self._on_lost(node_id, "it is not in the cluster (any more)")
            return
        self.know(node_id, message.host, message.port)
        for each in waiting:
            self.send(node_id, each)
        self.open(node_id)

    def node_lost(self, node_id: bytes, reason: str) -> None:
        """It was declared dead."""
        since = time.monotonic() - _FREED_KEPT_S
        freed = [each for when, home, ids in self._freed if home == node_id and when >= since for each in ids]
        if freed:
            self.home.send(frames.ObjectFree(freed, node_id))
        self._addresses.pop(node_id, None)
        self._waiting.pop(node_id, None)
        connection = self._others.get(node_id)
        if connection is not None:
            connection.close(reason)

    def close(self) -> None:
        """Close all connections without telling."""
        self._closed = True
        for connection in (self.home, *self._others.values()):
            connection.close_quietly()

    def detach(self) -> None:
        """In a forked child: let go of the copied descriptors."""
        for connection in (self.home, *self._others.values()):
            connection.detach()

    def _connection(self, node_id: bytes) -> Connection | None:
        """None = its address is being asked for."""
        connection = self._others.get(node_id)
        if connection is not None:
            return connection
        if node_id in self._waiting:
            return None
        address = self._addresses.get(node_id)
        if address is None:
            self._waiting[node_id] = []
            number = next(self._numbers)
            self._questions[number] = node_id
            self.home.send(frames.NodeFind(number, node_id))
            return None
        try:
            sock = self._dialer.raylet(*address)
        except OSError as error:
            self._fail_later(node_id, str(error))
            return None
        connection = self._others[node_id] = Connection(
            self._reactor,
            sock,
            self._identity.with_role("owner").connecting((node_id, b"")),
            frames.RayletMessage,
            lambda _, messages: self._on_messages(node_id, messages),
            lambda closed, reason: self._on_close(node_id, closed, reason),
        )
        return connection

    def _fail_later(self, node_id: bytes, reason: str) -> None:
        """Callers of ``send`` are not prepared to lose their leases within it."""
        self._waiting[node_id] = []

        def fail() -> None:
            with self._lock:
                if not self._closed:
                    self._waiting.pop(node_id, None)
                    self._addresses.pop(node_id, None)
                    self._on_lost(node_id, reason)

        self._reactor.call_later(0.0, fail)

    def _on_close(self, node_id: bytes, connection: Connection, reason: str) -> None:
        with self._lock:
            if self._closed or self._others.get(node_id) is not connection:
                return
            del self._others[node_id]
            host, port = self._addresses.pop(node_id, ("", 0))
            self._on_lost(node_id, f"the connection to its raylet at {host}:{port} ended ({reason})")
