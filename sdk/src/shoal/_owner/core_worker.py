"""The part of Shoal in every driver and worker: a ``Process`` with its parts, and what arrives handed to them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from shoal import exceptions
from shoal._core.actors import ActorClient
from shoal._core.object_ref import ObjectRef
from shoal._core.task_events import TaskEvents
from shoal._core.task_record import TaskRecord
from shoal._net.connection import Connection
from shoal._net.waiter import Waiter
from shoal._owner.debugging import Debugging
from shoal._owner.drains import Drains
from shoal._owner.explaining import Explaining
from shoal._owner.garbage import GarbageCollection
from shoal._owner.memory_profile import MemoryProfile
from shoal._owner.objects.advice import Advice
from shoal._owner.objects.borrowing import Borrowing
from shoal._owner.objects.event_loops import EventLoops
from shoal._owner.objects.filling import Filling
from shoal._owner.objects.futures import Futures
from shoal._owner.objects.named_objects import NamedObjects
from shoal._owner.objects.recovery import Recovery
from shoal._owner.objects.streaming import Streaming
from shoal._owner.objects.values import Values
from shoal._owner.objects.waiting import Waiting
from shoal._owner.process import Process
from shoal._owner.reporting import Reporting
from shoal._owner.tasks.actor_registration import ActorRegistration
from shoal._owner.tasks.actor_submitter import ActorSubmitter
from shoal._owner.tasks.calls import Calls
from shoal._owner.tasks.cancelling import Cancelling
from shoal._owner.tasks.task_reports import TaskReports
from shoal._owner.tasks.task_submitter import TaskSubmitter
from shoal._values import kept_memory
from shoal._wire.peer_frames import (
    AddBorrower,
    AskWait,
    BorrowerAdded,
    CancelObject,
    CancelTask,
    DebugAttach,
    DebugInput,
    DebugOutput,
    GetValue,
    ItemsRead,
    LookForDeadlock,
    PushTasks,
    Recall,
    Recalled,
    RemoveBorrower,
    StopTasks,
    TaskReplies,
    TaskYields,
    TellWait,
    ValueLost,
    ValuePending,
    ValueReady,
    WaitReport,
)
from shoal._wire.value_kinds import ENDED, PENDING
from shoal_common.channel import frames

#: Whether what was sent has gone out is looked at after so many seconds.
_DELIVERED_S = 0.01

#: "0": references are pickled in arguments and values only, where they are counted.
_OUT_OF_BAND_VARIABLE = "SHOAL_ALLOW_OUT_OF_BAND_OBJECT_REF_SERIALIZATION"


class Executor(Protocol):
    """What a worker has besides: it runs what others own (see ``_executor.executor``). ``on_*`` with the lock."""

    def on_push(self, connection: Connection, message: PushTasks) -> None: ...

    def on_recall(self, connection: Connection, count: int) -> None: ...

    def on_stop(self, task_ids: list[bytes]) -> None: ...

    def on_cancel(self, message: CancelTask) -> None: ...

    def on_items_read(self, task_id: bytes, count: int) -> None: ...

    def on_caller_gone(self, worker_id: bytes) -> None: ...

    def on_raylet(self, message: Any) -> None:
        """From this node's raylet."""

    def on_raylet_lost(self) -> None: ...

    def describe(self, task_id: bytes) -> WaitReport:
        """What a task or call that was sent here waits for."""

    def on_tick(self) -> bool:
        """Time has passed; without the lock. Tells whether something may be due soon."""

    def blocking(self, lend_after: float) -> AbstractContextManager[None]:
        """As ``Process.blocking``."""

    def lend_cpu(self) -> None:
        """As ``Process.lend_cpu``."""


class CoreWorker(Process):
    """One per process and session. Made, it is connected; ``start`` lets things arrive, ``close`` ends it."""

    def _assemble(self) -> None:
        self.waiting = Waiting(self)
        self.borrowing = Borrowing(self, self.waiting)
        self.recovery = Recovery(self, self.waiting, self.borrowing)
        self.values = Values(self, self.waiting, self.borrowing, self.recovery)
        self.streaming = streaming = Streaming(self, self.waiting, self.borrowing, self.recovery)
        events = TaskEvents(time.time)
        self._calls = Calls(self, self.waiting, self.borrowing, self.recovery, streaming, events)
        self.tasks = TaskSubmitter(self, self.waiting, self._calls)
        self.actors = ActorSubmitter(self, self.waiting, self._calls, events)
        self.task_reports = TaskReports(self, events, self.tasks, self.actors)
        self.actor_registration = ActorRegistration(self, self.waiting)
        self.waiting.advice = Advice(self, self.tasks.find)
        self._calls.start = self._start
        self.recovery.run_again = self._run_again
        self.filling = Filling(self)
        self.named_objects = NamedObjects(self, self.values)
        self._futures = Futures(self.waiting, self.values)
        self._event_loops = EventLoops(self, self.waiting, self.values)
        self._garbage = GarbageCollection()
        self._memory_profile = MemoryProfile(self)
        self.drains = Drains()
        self.reporting = reporting = Reporting(self, self.tasks, self.actors)
        self.explaining = Explaining(self, self.waits, self.tasks, self.actors, reporting)
        self.debugging = Debugging(self)
        self.cancelling = cancelling = Cancelling(self, self.tasks, self.actors)
        streaming.close = cancelling.close
        self._executor: Executor | None = None
        self._next_tick = 0.0
        self.reactor.after_dispatch = self._after_dispatch
        self.reactor.on_tick = self._on_tick

    def _start(self, record: TaskRecord) -> None:
        if isinstance(record.actor, ActorClient):
            self.actors.start(record.actor, record)
        else:
            self.tasks.start(record)

    def _run_again(self, record: TaskRecord) -> None:
        """Its values are lost: it has as much time again."""
        queue = record.queue or record.actor
        if record.deadline is not None and queue is not None:
            self._calls.renew(record, queue)
        if record.stream is not None:
            self.streaming.again(record)
        self._calls.again(record)
        self._start(record)

    def serve(self, executor: Executor) -> None:
        """This process is a worker. Before ``start``."""
        self._executor = executor
        self.blocking = executor.blocking
        self.lend_cpu = executor.lend_cpu
        self.reporting.describe_task = executor.describe

    def _worker(self) -> Executor:
        assert self._executor is not None, "only a worker is sent this"
        return self._executor

    def _on_order(self, node_id: bytes, message: Any) -> None:
        if node_id == self.node_id:
            self._worker().on_raylet(message)

    def start(self) -> None:
        self.reactor.start()

    # -- references ---------------------------------------------------------------------------------

    def future(self, ref: ObjectRef[Any]) -> concurrent.futures.Future[Any]:
        return self._futures.concurrent_future(ref)

    def asyncio_future(self, ref: ObjectRef[Any]) -> asyncio.Future[Any]:
        return self._event_loops.future(ref)

    def asyncio_ready(self, ref: ObjectRef[Any]) -> asyncio.Future[None]:
        return self._event_loops.future(ref, with_value=False)

    def pin_for_ever(self, refs: list[ObjectRef[Any]]) -> None:
        if refs and os.environ.get(_OUT_OF_BAND_VARIABLE) == "0":
            raise exceptions.OufOfBandObjectRefSerializationException(
                f"{refs[0]!r} is pickled, or captured by a function, outside of Shoal's messages, and "
                f"{_OUT_OF_BAND_VARIABLE}=0 forbids that."
            )
        self.pinned_for_ever.extend(refs)

    def describe_ref(self, ref: ObjectRef[Any]) -> list[tuple[str, str]]:
        return self.explaining.describe_ref(ref)

    def restore_ref(self, object_id: bytes, owner: bytes) -> ObjectRef[Any]:
        return self.borrowing.unpickled(object_id, owner)

    # -- peers --------------------------------------------------------------------------------------

    def _on_peer(self, connection: Connection, messages: list[Any]) -> None:
        with self.lock:
            self.peers.known(connection)
            if len(messages) > 1 and type(messages[0]) is GetValue:
                with connection.together():  # whoever asks for many waits for all of them
                    self._handle(connection, messages)
            else:
                self._handle(connection, messages)

    def _handle(self, connection: Connection, messages: list[Any]) -> None:
        for message in messages:
            try:
                _FROM_PEER[type(message)](self, connection, message)
            except Exception as error:
                error.add_note(f"{type(message).__name__} came from {connection.peer_worker_id.hex()}.")
                raise

    def _on_peer_gone(self, worker_id: bytes, reason: str) -> None:
        if self.closed:
            return
        self.borrowing.on_peer_died(worker_id, reason)
        self._calls.on_worker_disconnected(worker_id, reason)
        self.debugging.on_peer_gone(worker_id)
        if self._executor is not None:
            self._executor.on_caller_gone(worker_id)

    # -- raylets --------------------------------------------------------------------------------------

    def _on_raylet(self, node_id: bytes, messages: list[Any]) -> None:
        with self.lock:
            for message in messages:
                try:
                    _FROM_RAYLET[type(message)](self, node_id, message)
                except Exception as error:
                    error.add_note(f"{type(message).__name__} came from node {node_id.hex()}.")
                    raise

    def _on_node_lost(self, message: frames.NodeLost) -> None:
        reason = f"it was declared dead: {message.reason}"
        self.recovery.on_node_lost(message.node_id, message.reason)
        self.raylets.node_lost(message.node_id, reason)
        self.peers.node_lost(message.node_id, f"its node {message.node_id.hex()} is lost: {reason}")

    def _on_other_raylet_lost(self, node_id: bytes, reason: str) -> None:
        if not self.closed:
            self.tasks.on_raylet_lost(node_id, reason)
            self.actors.lost_workers.on_raylet_lost(node_id)

    def _on_raylet_closed(self, connection: Connection, reason: str) -> None:
        with self.lock:
            if self.closed:
                return
            if self._executor is not None:
                self._executor.on_raylet_lost()
            if connection.defect:
                self.node_error = exceptions.LocalRayletDiedError(
                    f"The connection to the raylet was given up: {reason}."
                )
            error = self.node_error
            for entry in list(self.table.entries.values()):
                if entry.state == PENDING:
                    self.waiting.fail(entry, error)
            self.actors.on_node_lost(error)
            self.store.on_raylet_lost(error)
            self.questions.give_up()
        self.gcs.abandon(error)

    def deliver(self, timeout: float) -> bool:
        """Before this process ends: until the system has taken all that was sent, and brings it. False after
        ``timeout`` seconds: somebody does not read. Without the lock, and not in a handler."""
        deadline = time.monotonic() + timeout
        while self.raylets.has_unsent() or self.peers.has_unsent():
            if time.monotonic() >= deadline:
                return False
            self.reactor.wait(Waiter(), _DELIVERED_S)
        return True

    def flush_logs(self, timeout: float) -> bool:
        """Every node with which this process had to do publishes what its workers have printed; returns when all have
        answered, or after ``timeout`` seconds: False then."""
        with self.lock:
            nodes = {self.node_id} | self.raylets.nodes() | self.peers.nodes()
        return len(self.questions.ask(nodes, frames.FlushLogs, timeout)) == len(nodes)

    # -- housekeeping ---------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what was held back to be sent together."""
        if self.actors.dirty:
            with self.lock:
                self.actors.flush()

    def _after_dispatch(self) -> None:
        if self.table.dropped:
            self.borrowing.collect()
        if self.actors.dirty:
            self.flush()

    def _on_tick(self) -> bool:
        self.store.release_unpinned()
        self.filling.collect()
        if self.table.dropped:
            self.borrowing.collect()
        busy = self._executor is not None and self._executor.on_tick()
        now = time.monotonic()
        busy = self.store.tick() or busy
        kept_memory.tick(now)
        if now >= self._next_tick:
            self._next_tick = now + 0.05
            with self.lock:
                self.tasks.on_tick(now)
            self.explaining.on_tick(now)
        return busy or self.tasks.leases_idle()

    # -- end ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """End this process's part: whoever waits gets an error, connections close, the socket file goes."""
        for last_word in self.before_close:
            last_word()
        with self.lock:
            if self.closed:
                return
            self.closed = True
            error = exceptions.ShoalSystemError("shoal.shutdown() was called while this was pending")
            entries = list(self.table.entries.values())
            for entry in entries:
                if entry.state == PENDING:
                    self.waiting.fail(entry, error)
            for entry in entries:  # also of objects that nobody waited for: references may outlive this
                entry.state, entry.payload, entry.contained = ENDED, b"", None
            self.store.on_raylet_lost(exceptions.LocalRayletDiedError())
            self.questions.give_up()
            # Records and queues name each other, and records are unknown to the garbage collector.
            self.tasks.forget_all()
            self.actors.forget_all()
            self._calls.forget_all()
            self.streaming.forget_all()
            self.lineage.forget_all()
        self._event_loops.close()
        self.reactor.stop()
        self.raylets.close()
        self.peers.close()
        self.store.close()
        self.gcs.close()

    def abandon(self) -> None:
        """In a forked child: let go of the copied descriptors; the parent goes on unharmed."""
        self.closed = True
        self.reactor.abandon()
        self.raylets.detach()
        self.peers.detach()
        self._dialer.abandon()


#: Who handles what comes from a driver or worker. Made with the module: a worker that has just been forked shares this
#: with its template, which a table of its own would not be.
_FROM_PEER: dict[type, Callable[[CoreWorker, Connection, Any], None]] = {
    TaskReplies: lambda core, peer, message: core._calls.on_replies(peer.peer_worker_id, message.replies),
    TaskYields: lambda core, peer, message: core.streaming.on_yields(peer, message),
    Recalled: lambda core, peer, message: core.tasks.on_recalled(peer.peer_worker_id, message),
    GetValue: lambda core, peer, message: core.borrowing.on_get(peer, message),
    ValuePending: lambda core, _, message: core.borrowing.on_pending(message),
    ValueReady: lambda core, _, message: core.borrowing.on_value(message),
    ValueLost: lambda core, peer, message: core.recovery.on_lost(peer, message),
    AddBorrower: lambda core, peer, message: core.borrowing.on_add(peer, message),
    BorrowerAdded: lambda core, _, message: core.borrowing.on_added(message),
    RemoveBorrower: lambda core, peer, message: core.borrowing.on_remove(peer, message),
    AskWait: lambda core, peer, message: core.reporting.on_ask(peer, message),
    TellWait: lambda core, _, message: core.reporting.on_answer(message.request, message.report),
    CancelObject: lambda core, _, message: core.cancelling.on_cancel_object(message),
    LookForDeadlock: lambda core, _, message: core.explaining.on_look(message),
    DebugAttach: lambda core, peer, message: core.debugging.on_attach(peer, message),
    DebugInput: lambda core, peer, message: core.debugging.on_input(peer, message),
    DebugOutput: lambda core, _, message: core.debugging.on_output(message),
    # to a worker
    PushTasks: lambda core, peer, message: core._worker().on_push(peer, message),
    StopTasks: lambda core, _, message: core._worker().on_stop(message.task_ids),
    CancelTask: lambda core, _, message: core._worker().on_cancel(message),
    ItemsRead: lambda core, _, message: core._worker().on_items_read(message.task_id, message.count),
    Recall: lambda core, peer, message: core._worker().on_recall(peer, message.count),
}

#: Who handles what comes from a raylet, by the id of its node.
_FROM_RAYLET: dict[type, Callable[[CoreWorker, bytes, Any], None]] = {
    frames.ObjectCreated: lambda core, _, message: core.store.on_answer(message),
    frames.ObjectLocated: lambda core, _, message: core.store.on_answer(message),
    frames.ObjectWritten: lambda core, _, message: core.store.on_answer(message),
    frames.ObjectPart: lambda core, _, message: core.store.on_answer(message),
    frames.ObjectUncache: lambda core, _, message: core.store.on_uncache(message),
    frames.LeaseGranted: lambda core, node_id, message: core.tasks.on_granted(node_id, message),
    frames.LeaseSpillback: lambda core, node_id, message: core.tasks.on_spillback(node_id, message),
    frames.LeaseRefused: lambda core, node_id, message: core.tasks.on_refused(node_id, message),
    frames.LeaseLost: lambda core, _, message: core.tasks.on_lost(message),
    frames.LeaseReclaim: lambda core, _, message: core.tasks.on_reclaim(message),
    frames.NodeFound: lambda core, _, message: core.raylets.on_found(message),
    frames.NodeLost: lambda core, _, message: core._on_node_lost(message),
    frames.NodeDrains: lambda core, _, message: core.drains.on_news(message),
    frames.CollectGarbage: lambda core, _, __: core._garbage.begin(),
    frames.WaitsGet: lambda core, node_id, message: core.explaining.on_waits_wanted(node_id, message),
    frames.ProfileMemory: lambda core, node_id, message: core._memory_profile.on_wanted(node_id, message),
    frames.Explained: lambda core, _, message: core.reporting.on_answer(message.request, message),
    frames.FunctionData: lambda core, _, message: core.questions.on_answer(message),
    frames.LastRepliesFound: lambda core, _, message: core.actors.lost_workers.on_last_replies(message),
    frames.EventsFlushed: lambda core, _, message: core.questions.on_answer(message),
    frames.LogsFlushed: lambda core, _, message: core.questions.on_answer(message),
    frames.CheckpointDone: lambda core, _, message: core.questions.on_answer(message),
    frames.PackageDone: lambda core, _, message: core.questions.on_answer(message),
    frames.NamedObjectDone: lambda core, _, message: core.questions.on_answer(message),
    # to a worker
    frames.LeaseAssigned: lambda core, node_id, message: core._on_order(node_id, message),
    frames.CreateActor: lambda core, node_id, message: core._on_order(node_id, message),
    frames.WorkerExit: lambda core, node_id, message: core._on_order(node_id, message),
}
