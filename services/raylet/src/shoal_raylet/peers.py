"""The processes and raylets that are connected to this node: who may be, which is which, whose messages go where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from shoal_common.channel import frames
from shoal_raylet.channel.connection import Connection
from shoal_raylet.leases.worker_pool import WorkerPool, WorkerState

Handlers = Mapping[type[frames.Message], Callable[[Connection, Any], None]]


class Processes(Protocol):
    """Is told of drivers, workers, and owners of other nodes."""

    def connected(self, hello: frames.Hello, *, again: bool) -> None:
        """``again``: an earlier connection of this owner has been given up for it."""

    def closed(self, hello: frames.Hello) -> None: ...


class Raylets(Protocol):
    """Serves the raylets of other nodes."""

    def connected(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection) -> None: ...


class Peers:
    """Handles what comes over the framed channel (``ChannelHandler``). Belongs to one event loop."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._stopping = False
        #: Processes by worker id.
        self._connections: dict[bytes, Connection] = {}
        #: What all have been told of this node's leaving.
        self._drains: frames.NodeDrains | None = None

    def serve(self, processes: Processes, handlers: Handlers, raylets: Raylets, handlers_of_raylets: Handlers) -> None:
        """``handlers``: of the messages of processes; what is in none of them ends its connection."""
        self._processes = processes
        self._handlers = handlers
        self._raylets = raylets
        self._handlers_of_raylets = handlers_of_raylets

    def stop(self) -> None:
        """Nobody connects any more; those that are connected stay."""
        self._stopping = True

    # --- for the node's parts ---

    def __contains__(self, peer: bytes) -> bool:
        return peer in self._connections

    def send(self, peer: bytes, message: frames.Message) -> None:
        """A peer that is gone has no use for it."""
        connection = self._connections.get(peer)
        if connection is not None:
            connection.send(message)

    def drain(self, peer: bytes) -> None:
        """Its process is dead: handle what it had sent, then close."""
        connection = self._connections.get(peer)
        if connection is not None:
            connection.drain()

    def catch_up(self, peer: bytes) -> None:
        """Handle what it has sent so far."""
        connection = self._connections.get(peer)
        if connection is not None:
            connection.catch_up()

    def hellos(self) -> list[frames.Hello]:
        """Of all processes."""
        return [connection.hello for connection in self._connections.values() if connection.hello is not None]

    def job_of(self, hello: frames.Hello) -> bytes:
        """For which a driver or worker works now; empty = for none."""
        worker = self._pool.workers.get(hello.worker_id)
        return worker.job_id if worker is not None else hello.job_id

    def process_here(self, pid: int) -> bytes:
        """The worker id of the driver or worker that has this pid on this machine; empty = none has."""
        for worker_id, connection in self._connections.items():
            hello = connection.hello
            # One without the arena comes through the gateway: its pid is another machine's.
            runs_here = connection.role in ("driver", "worker") and connection.shares_arena
            if runs_here and hello is not None and hello.pid == pid:
                return worker_id
        return b""

    def collect_garbage(self) -> None:
        for connection in self._connections.values():
            connection.send(frames.CollectGarbage())

    def node_lost(self, node_id: bytes, reason: str) -> None:
        """Whoever holds leases there learns it from its own node, in case the other one still seems to answer."""
        for connection in list(self._connections.values()):
            assert connection.hello is not None
            if connection.role in ("driver", "worker"):
                connection.send(frames.NodeLost(node_id, reason))
            elif connection.role == "owner" and connection.hello.node_id == node_id:
                connection.close(f"its node is dead: {reason}")

    def node_drains(self, deadline_unix_ms: int) -> None:
        """This node is going to leave: its drivers and workers are told, those that come later too."""
        news = frames.NodeDrains(deadline_unix_ms)
        if news != self._drains:
            self._drains = news
            for connection in self._connections.values():
                self._tell_of_drain(connection)

    def _tell_of_drain(self, connection: Connection) -> None:
        if self._drains is not None and connection.role in ("driver", "worker"):
            connection.send(self._drains)

    # --- for the channel ---

    def refuse(self, hello: frames.Hello, local: bool) -> str:
        if self._stopping:
            return "this node is stopping"
        if hello.role == "owner":
            return "" if hello.job_id else "an owner must have a job"
        if hello.role == "raylet" and not local:
            return ""
        if hello.worker_id in self._connections:
            return "a process with this worker id is connected already"
        if not local:
            return f"a {hello.role} connects over the Unix socket of its node"
        if hello.role == "driver":
            return "" if hello.job_id else "a driver must have a job: call StartJob of the GCS first"
        if hello.role == "worker":
            worker = self._pool.workers.get(hello.worker_id)
            if worker is None or worker.state is not WorkerState.STARTING:
                return "this worker is not expected (any more): it took too long to start, or its node has restarted"
            return ""
        return f"processes with the role {hello.role!r} have no business here"

    def connected(self, connection: Connection) -> None:
        hello = connection.hello
        assert hello is not None
        if reason := self.refuse(hello, connection.local):
            # The state has changed between its hello and its proof.
            connection.close(reason)
            return
        if hello.role == "raylet":
            self._raylets.connected(connection)
            return
        before = self._connections.get(hello.worker_id)
        self._connections[hello.worker_id] = connection
        if before is not None:
            before.close("the owner has connected again")
        self._processes.connected(hello, again=before is not None)
        self._tell_of_drain(connection)

    def closed(self, connection: Connection) -> None:
        hello = connection.hello
        assert hello is not None
        if hello.role == "raylet":
            self._raylets.closed(connection)
        elif self._connections.get(hello.worker_id) is connection:
            del self._connections[hello.worker_id]
            self._processes.closed(hello)

    def received(self, connection: Connection, message: frames.Message) -> None:
        handlers = self._handlers_of_raylets if connection.role == "raylet" else self._handlers
        handler = handlers.get(type(message))
        if handler is None:
            connection.close(f"unexpected message {type(message).__name__}")
        else:
            handler(connection, message)
