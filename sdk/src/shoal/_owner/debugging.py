"""Breakpoints: code of a worker waits at one, and a terminal anywhere in the cluster talks to its debugger.

All of a cluster's breakpoints are one entry of the map of ``shoal.util.kv``, so that they are found. The terminal is a
driver, and comes over the channel by which processes call each other, for which it needs the cluster's token. When it
goes away the conversation is over, and the code goes on.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from shoal import exceptions
from shoal._net.connection import Connection
from shoal._wire.peer_frames import DebugAttach, DebugInput, DebugOutput
from shoal_common.channel.frames import WorkerAddress

if TYPE_CHECKING:
    from shoal._owner.process import Process

logger = logging.getLogger("shoal")

#: Where they lie in that map.
NAMESPACE = "shoal.debug"
KEY = "breakpoints"
#: Code that comes to one more goes on.
MAX_BREAKPOINTS = 500
#: Others write that entry too: so often it is tried again.
_WRITES = 50
#: Kept for the terminal that comes, in characters; what is older goes.
_MAX_UNREAD = 64 * 1024


class Breakpoint(msgspec.Struct, frozen=True):
    """Where some code waits."""

    id: str
    worker: WorkerAddress
    pid: int
    hostname: str
    #: Of the task or call.
    task: str
    #: "file:line".
    where: str
    #: What it has raised; empty = it came to ``breakpoint()``.
    error: str
    #: Since when, in seconds since 1970.
    since: float


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Breakpoint]).decode


class Conversation:
    """What is typed at one breakpoint and what is answered: the debugger's standard input and output."""

    encoding = "utf-8"

    def __init__(self, process: Process, at: Breakpoint) -> None:
        self.at = at
        self._process = process
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._unread = ""
        #: Who is at it; None = nobody yet.
        self.terminal: Connection | None = None

    # -- from the terminal, with the process's lock -------------------------------------------------

    def attached(self, terminal: Connection) -> None:
        self.terminal = terminal
        terminal.send(DebugOutput(self.at.id, self._unread))
        self._unread = ""

    def typed(self, line: str) -> None:
        """Empty = it has gone away."""
        self._lines.put(line)

    # -- of the debugger ----------------------------------------------------------------------------

    def readline(self) -> str:
        """Empty when nobody is there any more."""
        return self._lines.get()

    def write(self, text: str) -> int:
        with self._process.lock:
            if self.terminal is not None:
                self.terminal.send(DebugOutput(self.at.id, text))
            else:
                self._unread = (self._unread + text)[-_MAX_UNREAD:]
        return len(text)

    def flush(self) -> None:
        """All of it is out."""


class Debugging:
    """Of one process: its breakpoints, and those of others that it is a terminal of."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._open: dict[str, Conversation] = {}
        #: By breakpoint: its worker, who takes its text, and who is told the end.
        self._attached: dict[str, tuple[bytes, Callable[[str], None], Callable[[bool], None]]] = {}

    # -- in a worker, in the thread that waits ------------------------------------------------------

    def begin(self, task: str, where: str, error: str) -> Conversation | None:
        """None, and it is logged, when nobody could find the breakpoint."""
        identity = os.urandom(4).hex(), self._process.address, os.getpid(), socket.gethostname()
        conversation = Conversation(self._process, Breakpoint(*identity, task, where, error, time.time()))
        with self._process.lock:
            self._open[conversation.at.id] = conversation
        try:
            self._change(lambda found: [*found, conversation.at])
        except (exceptions.RpcError, RuntimeError) as problem:
            logger.warning("The breakpoint at %s is passed over: %s", where, problem)
            self._forget(conversation)
            return None
        return conversation

    def end(self, conversation: Conversation) -> None:
        """It is told to the terminal."""
        self._forget(conversation)
        try:
            self.remove({conversation.at.id})
        except (exceptions.RpcError, RuntimeError) as problem:
            logger.info("A breakpoint that is over is still listed: %s", problem)

    def _forget(self, conversation: Conversation) -> None:
        with self._process.lock:
            del self._open[conversation.at.id]
            if conversation.terminal is not None:
                conversation.terminal.send(DebugOutput(conversation.at.id, "", ended=True))

    # -- the list -----------------------------------------------------------------------------------

    def breakpoints(self) -> list[Breakpoint]:
        """Of the cluster; workers may have died meanwhile. Raises: RpcError."""
        found = self._process.gcs.kv.get(NAMESPACE, KEY)
        return _decode(found[0]) if found is not None else []

    def remove(self, identities: set[str]) -> None:
        """Raises: RpcError, RuntimeError."""
        self._change(lambda found: [each for each in found if each.id not in identities])

    def _change(self, change: Callable[[list[Breakpoint]], list[Breakpoint]]) -> None:
        """Raises: RpcError, RuntimeError when others write all the time, or there are too many."""
        kv = self._process.gcs.kv
        for _ in range(_WRITES):
            found = kv.get(NAMESPACE, KEY)
            before, version = (_decode(found[0]), found[1]) if found is not None else ([], 0)
            after = change(before)
            if len(after) > MAX_BREAKPOINTS:
                raise RuntimeError(f"{MAX_BREAKPOINTS} others wait in this cluster")
            if after == before or not kv.put(NAMESPACE, KEY, _encode(after), version, 0.0).refused:
                return
        raise RuntimeError("too many others begin and end")

    # -- in a terminal ------------------------------------------------------------------------------

    def attach(self, at: Breakpoint, on_text: Callable[[str], None], on_end: Callable[[bool], None]) -> bool:
        """False: its worker has died. Both are called in the leading thread, with the lock; ``on_end`` with whether it
        has died."""
        with self._process.lock:
            worker = self._process.peers.connect(at.worker)
            if worker is None:
                return False
            self._attached[at.id] = at.worker.worker_id, on_text, on_end
            worker.send(DebugAttach(at.id))
            return True

    def type(self, at: Breakpoint, line: str) -> None:
        """``line``: with its newline."""
        with self._process.lock:
            self._process.peers.send(at.worker.worker_id, DebugInput(at.id, line))

    # -- from peers, with the lock ------------------------------------------------------------------

    def on_attach(self, peer: Connection, message: DebugAttach) -> None:
        conversation = self._open.get(message.breakpoint)
        if conversation is None:
            peer.send(DebugOutput(message.breakpoint, "It is over.\n", ended=True))
        elif conversation.terminal is not None:
            peer.send(DebugOutput(message.breakpoint, "Another terminal is at it.\n", ended=True))
        else:
            conversation.attached(peer)

    def on_input(self, peer: Connection, message: DebugInput) -> None:
        conversation = self._open.get(message.breakpoint)
        if conversation is not None and conversation.terminal is peer:
            conversation.typed(message.line)

    def on_output(self, message: DebugOutput) -> None:
        attached = self._attached.get(message.breakpoint)
        if attached is None:
            return
        _, on_text, on_end = attached
        on_text(message.text)
        if message.ended:
            del self._attached[message.breakpoint]
            on_end(False)

    def on_peer_gone(self, worker_id: bytes) -> None:
        for conversation in self._open.values():
            if conversation.terminal is not None and conversation.terminal.peer_worker_id == worker_id:
                conversation.terminal = None
                conversation.typed("")
        for identity, (worker, on_text, on_end) in list(self._attached.items()):
            if worker == worker_id:
                del self._attached[identity]
                on_text("Its worker has ended.\n")
                on_end(True)
