"""Owners and workers as they are, on real sockets and reactors, with a raylet and a GCS in the test's hands."""

from __future__ import annotations

import array
import os
import pickle
import socket
import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from shoal._core.task_record import FunctionRecord
from shoal._core.waits import UNKNOWN
from shoal._net.connection import Connection
from shoal._net.dialer import DirectDialer
from shoal._owner.core_worker import CoreWorker
from shoal._owner.tasks.arguments import pack_arguments
from shoal._wire.peer_frames import PushTasks, TaskPush, TaskReplies, TaskReply, WaitReport
from shoal._wire.value_kinds import INLINE
from shoal_common.channel import codec, frames
from shoal_common.channel.frames import SchedulingClass
from shoal_common.channel.handshake import Accepting, Authenticated, Introduced
from shoal_common.kinds import StoreErrorKind

#: Only a failure takes so long, in seconds.
LONG = 10.0
TOKEN, JOB, NODE = "token", b"job1", b"n" * 16
ARENA_BYTES = 1 << 20
CPU = SchedulingClass("f", (("CPU", 10_000),))


class Raylet:
    """One process's connection to the raylet of its node: what has been sent there, and what the test sends back. It
    has a store in which nothing is ever freed."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self._seen: list[Any] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._objects: dict[bytes, tuple[int, int]] = {}
        self._used = 0

    def send(self, message: Any) -> None:
        self.ours.sendall(codec.encode_frame(message))

    def wait_for(self, kind: type, count: int = 1) -> Any:
        """The ``count``-th message of that kind, counted from 1."""

        def seen() -> list[Any]:
            return [message for message in self._seen if isinstance(message, kind)]

        with self._changed:
            assert self._changed.wait_for(lambda: len(seen()) >= count, LONG), f"no {kind.__name__}: {self._seen}"
            return seen()[count - 1]

    def all(self, kind: type) -> list[Any]:
        with self._changed:
            return [message for message in self._seen if isinstance(message, kind)]

    def close(self) -> None:
        self.ours.close()
        self._thread.join(LONG)

    def _serve(self) -> None:
        side = Accepting(TOKEN, NODE)
        decoder = codec.Decoder(frames.RayletMessage)
        trusted = False
        try:
            while data := self.ours.recv(1 << 16):
                if not trusted:
                    event = side.receive(data)
                    if isinstance(event, Introduced):
                        self._accept(side)
                    if not isinstance(event, Authenticated):
                        continue
                    trusted, data = True, event.rest
                for message in decoder.feed(data):
                    self._answer(message)
                    with self._changed:
                        self._seen.append(message)
                        self._changed.notify_all()
        except OSError:
            return  # closed by the test

    def _accept(self, side: Accepting) -> None:
        arena = os.memfd_create("arena")
        os.ftruncate(arena, ARENA_BYTES)
        side.accept(ARENA_BYTES)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [arena]))
        self.ours.sendmsg([side.to_send()], [rights])
        os.close(arena)

    def _answer(self, message: Any) -> None:
        match message:
            case frames.ObjectCreate() if message.size > ARENA_BYTES - self._used:
                full = frames.StoreError(StoreErrorKind.STORE_FULL, "no room")
                self.send(frames.ObjectCreated(message.request, 0, full))
            case frames.ObjectCreate():
                self._objects[message.object_id] = self._used, message.size
                self.send(frames.ObjectCreated(message.request, self._used))
                self._used += message.size
            case frames.ObjectGet():
                self.send(frames.ObjectLocated(message.request, *self._objects[message.object_id]))


class Dialer(DirectDialer):
    def __init__(self, raylet: Raylet) -> None:
        super().__init__(NODE, "")
        self._raylet = raylet

    def home(self) -> socket.socket:
        return self._raylet.theirs


class Work:
    """What a worker's executor gets to do; the test does it."""

    def __init__(self) -> None:
        self.pushed: list[tuple[Connection, TaskPush]] = []
        self._changed = threading.Condition()

    def on_push(self, connection: Connection, message: PushTasks) -> None:
        with self._changed:
            self.pushed += [(connection, task) for task in message.tasks]
            self._changed.notify_all()

    def next(self) -> tuple[Connection, TaskPush]:
        """The oldest that was pushed and not asked for yet, and from whom it came."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.pushed, LONG), "nothing was pushed"
            return self.pushed.pop(0)

    def on_recall(self, connection: Connection, count: int) -> None: ...
    def on_caller_gone(self, worker_id: bytes) -> None: ...
    def on_raylet(self, message: Any) -> None: ...
    def on_raylet_lost(self) -> None: ...
    def describe(self, task_id: bytes) -> WaitReport:
        return WaitReport(UNKNOWN)

    def on_tick(self) -> None: ...
    def lend_cpu(self) -> None: ...

    def blocking(self, lend_after: float) -> Any:
        return nullcontext()


class Party:
    """A driver, or a worker, with the raylet's end of its connection."""

    def __init__(self, name: str, directory: str, *, works: bool) -> None:
        self.raylet = Raylet()
        self.gcs = SimpleNamespace(close=lambda: None, abandon=lambda error: None)
        self.core = CoreWorker(
            role="worker" if works else "driver",
            token=TOKEN,
            job_id=JOB,
            worker_id=name.encode().ljust(16, b"."),
            node_id=NODE,
            raylet_path="",
            gcs=self.gcs,  # type: ignore[arg-type]
            socket_path=f"{directory}/{name}",
            session_name="",
            session_dir="",
            namespace="",
            host="",
            dialer=Dialer(self.raylet),
        )
        self.work = Work()
        if works:
            self.core.serve(self.work)
        self.core.start()

    # -- as an owner --

    def submit(self, *args: Any, retries: int = 0, num_returns: int = 1) -> list[Any]:
        """A task of a function that was timed before; its references."""
        packed = pack_arguments(self.core.values, args, {})
        queue = self.core.tasks.queue_of(CPU)
        return self.core.tasks.submit(
            queue, FunctionRecord(b"f" * 16, "f", 100.0), packed, num_returns, retries, False, 0
        )

    def grant(self, worker: Party, lease_id: bytes = b"lease") -> None:
        """The raylet answers the demand that there is."""
        self.raylet.wait_for(frames.LeaseDemand)
        self.raylet.send(frames.LeaseGranted(0, lease_id, worker.core.address, 1))

    def get(self, ref: Any) -> Any:
        return self.core.values.get_one(ref, LONG)

    # -- as a worker --

    @staticmethod
    def answer(
        connection: Connection, task: TaskPush, value: Any, *, kind: int = INLINE, retriable: bool = False
    ) -> None:
        reply = TaskReply(task.task_id, 100, kind, pickle.dumps(value, 5), retriable=retriable)
        connection.send(TaskReplies([reply]))

    def close(self) -> None:
        self.core.close()
        self.raylet.close()


def settle(owner: Party, other: Party) -> None:
    """What ``other`` has told ``owner`` before has been handled: an answer has come back over the same connection."""
    ref = owner.core.values.put("probe")
    assert other.core.values.get_owned(ref.binary(), owner.core.address) == "probe"
