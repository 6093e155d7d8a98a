"""Tasks of this owner: from the call to the values, through worker leases of its raylet and others."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal import _tracing, exceptions
from shoal._core.batches import in_messages, push_bytes
from shoal._core.leases import LeasedWorker, Source
from shoal._core.object_ref import ObjectRef
from shoal._core.retries import pause_before_memory_retry, pause_before_retry
from shoal._core.streams import Stream
from shoal._core.task_record import FunctionRecord, TaskRecord, TimeLimit
from shoal._core.tasks import TaskQueue
from shoal._owner.objects.waiting import Waiting
from shoal._owner.tasks import failures
from shoal._owner.tasks.arguments import PackedArguments, await_arguments, resolve_arguments
from shoal._owner.tasks.calls import Calls, set_time_left
from shoal._wire.peer_frames import CancelTask, PushTasks, Recall, Recalled, StopTasks, TaskReply
from shoal._wire.value_kinds import STORED
from shoal_common.channel import frames
from shoal_common.channel.frames import LeaseDemand, LeaseKill, LeaseReturned, SchedulingClass
from shoal_common.kinds import ExitKind, RefusalKind

if TYPE_CHECKING:
    from shoal._owner.process import Process

#: An idle lease is returned after so many seconds; at once when somebody waits for it.
IDLE_LEASE_S = 0.2
#: Arguments of fewer bytes do not matter for where a task runs.
WORTH_MOVING_BYTES = 1024 * 1024
#: How long the reason of a lost worker is awaited from the raylet before the retry goes on without it.
LOSS_REASON_S = 5.0
#: A task past its deadline is unwound, and one cancelled with force ends its worker; after so many seconds the raylet
#: kills that.
STOP_S = 1.0


class TaskSubmitter:
    """The port of the task queues. Callers hold the core's lock except for ``submit``."""

    def __init__(self, process: Process, waiting: Waiting, calls: Calls) -> None:
        self._process = process
        self._waiting = waiting
        self._calls = calls
        self._queues: dict[SchedulingClass, TaskQueue] = {}
        self._by_key: list[TaskQueue] = []
        #: Those whose arguments are still pending, and those that pause before a retry.
        self._unready: dict[bytes, TaskRecord] = {}
        self._lease_queue: dict[bytes, TaskQueue] = {}
        self._by_worker: dict[bytes, tuple[TaskQueue, LeasedWorker]] = {}

    def queue_of(self, spec: SchedulingClass) -> TaskQueue:
        with self._process.lock:
            queue = self._queues.get(spec)
            if queue is None:
                queue = TaskQueue(len(self._by_key), spec, self._process.node_id, self)
                self._queues[spec] = queue
                self._by_key.append(queue)
            return queue

    # -- submitting ---------------------------------------------------------------------------------

    def submit(
        self,
        queue: TaskQueue,
        function: FunctionRecord,
        packed: PackedArguments | None,
        num_returns: int,
        max_retries: int,
        retry_exceptions: bool | bytes,
        max_calls: int,
        limit: TimeLimit | None = None,
        stream: Stream | None = None,
    ) -> list[ObjectRef[Any]]:
        process, calls = self._process, self._calls
        record = calls.new_record(function, packed, num_returns, max_retries, retry_exceptions)
        record.queue = queue
        if max_calls:
            record.push.max_calls = max_calls
        if _tracing.active is not None:
            record.push.trace = _tracing.active.submitted(function.name, record.push.task_id)
        with process.lock:
            refs = calls.create_returns(record, num_returns, stream)
            if limit is not None:
                calls.limit(record, limit, queue)
            self.start(record)
        calls.submitted()
        return refs

    def start(self, record: TaskRecord) -> None:
        """It runs as soon as its arguments are there."""
        references = record.references
        if self._process.raylet.closed:
            self._calls.fail(record, self._process.node_error)
        elif references is None or await_arguments(self._waiting, references, partial(self._enqueue, record)):
            self._enqueue(record)
        else:
            record.unready = True
            self._unready[record.push.task_id] = record

    def _enqueue(self, record: TaskRecord) -> None:
        if record.unready:
            record.unready = record.pausing = False
            self._unready.pop(record.push.task_id, None)
        if record.late or record.cancelled:
            return  # it did not live to see its arguments, or the end of its pause
        if record.references is not None:
            resolved = resolve_arguments(self._process, record.references)
            if not isinstance(resolved, list):
                self._calls.fail_like(record, resolved)
                return
            record.push.refs = resolved
            record.size = push_bytes(record.push)
        assert isinstance(record.queue, TaskQueue)
        record.queue.add(record)

    def find(self, task_id: bytes) -> tuple[TaskQueue, TaskRecord] | None:
        """One that has not ended, and the queue that it is in or comes to."""
        unready = self._unready.get(task_id)
        if unready is not None and isinstance(unready.queue, TaskQueue):
            return unready.queue, unready
        for queue in self._by_key:
            if (record := queue.find(task_id)) is not None:
                return queue, record
        return None

    def unready(self) -> Collection[TaskRecord]:
        """Those whose arguments are still pending, and those that pause before a retry."""
        return self._unready.values()

    def queues(self) -> Sequence[TaskQueue]:
        return self._by_key

    def records(self) -> Iterator[TaskRecord]:
        """All that have not ended."""
        yield from self._unready.values()
        for queue in self._by_key:
            yield from queue.records()

    def cancel(self, record: TaskRecord, force: bool, recursive: bool) -> None:
        """It has not ended."""
        record.cancel()
        self._unready.pop(record.push.task_id, None)
        assert isinstance(record.queue, TaskQueue)
        if record.late or record.queue.cancel(record, force, recursive):
            self._calls.cancelled(record)

    # -- port of the queues -----------------------------------------------------------------------------

    def push(self, worker: LeasedWorker, records: list[TaskRecord]) -> None:
        set_time_left(records)
        for pushes in in_messages(records):
            worker.connection.send(PushTasks(pushes))

    def tell_cancelled(self, worker: LeasedWorker, record: TaskRecord, force: bool, recursive: bool) -> None:
        worker.connection.send(CancelTask(record.push.task_id, force, recursive, record.closing))
        if force:
            self._look_later(worker, record)

    def recall(self, worker: LeasedWorker, count: int) -> None:
        worker.connection.send(Recall(count))

    def demand(self, queue: TaskQueue, source: Source, placed: bool) -> None:
        if source.outstanding:
            for other in self._by_key:
                if other is not queue and other.idle:
                    other.return_idle()
        spec = None if source.announced else queue.spec
        source.announced = True
        mean_us = int(queue.pending[0].function.mean_us) if queue.pending else 0
        # To another node all of it is placed; to this one, what another has sent back.
        placed = placed or source is not queue.home
        message = LeaseDemand(queue.key, source.demanded, spec, placed, self._argument_bytes(queue), mean_us)
        self._process.raylets.send(source.node_id, message)

    @staticmethod
    def _argument_bytes(queue: TaskQueue) -> dict[bytes, int] | None:
        """Of the next task: where its large arguments lie."""
        if not queue.pending or queue.pending[0].references is None:
            return None
        sizes: dict[bytes, int] = {}
        for _, _, ref in queue.pending[0].references:
            entry = ref._entry
            if entry.state == STORED:
                sizes[entry.node_id] = sizes.get(entry.node_id, 0) + entry.size
        return sizes if sum(sizes.values()) >= WORTH_MOVING_BYTES else None

    def give_back(self, worker: LeasedWorker) -> None:
        self._lease_queue.pop(worker.lease_id, None)
        self._forget(worker)
        self._process.raylets.send(worker.source.node_id, LeaseReturned(worker.lease_id, worker.leaving))

    def stop(self, worker: LeasedWorker, record: TaskRecord) -> None:
        worker.connection.send(StopTasks([record.push.task_id]))
        self._look_later(worker, record)

    def _look_later(self, worker: LeasedWorker, record: TaskRecord) -> None:
        """Whether it has stopped."""

        def look() -> None:
            with self._process.lock:
                assert isinstance(record.queue, TaskQueue)
                record.queue.not_stopped(worker.lease_id, record)

        self._process.reactor.call_later(STOP_S, look)

    def stopped(self, record: TaskRecord) -> None:
        if record.cancelled and not record.late:
            self._calls.cancelled(record)
        elif record.again:
            assert record.queue is not None
            self._calls.renew(record, record.queue)
            self._enqueue(record)

    def kill(self, worker: LeasedWorker, record: TaskRecord) -> None:
        what = "was cancelled with force=True" if record.cancelled else "ran past its timeout_s"
        reason = f"{record.push.name} {what} and did not stop"
        self._process.raylets.send(worker.source.node_id, LeaseKill(worker.lease_id, reason))

    def _forget(self, worker: LeasedWorker) -> None:
        if self._by_worker.get(worker.worker_id, (None, None))[1] is worker:
            del self._by_worker[worker.worker_id]
            self._calls.forget(worker.worker_id, self)

    # -- from the raylets -------------------------------------------------------------------------------

    def on_granted(self, node_id: bytes, message: frames.LeaseGranted) -> None:
        queue = self._by_key[message.class_key]
        source = queue.source(node_id)
        connection = self._process.peers.connect(message.worker)
        if connection is None:
            # Dead already; the raylet's LeaseLost is on its way, and the demand it satisfied is renewed.
            source.granted += 1
            self._process.raylets.send(node_id, LeaseReturned(message.lease_id, worker_exits=True))
            queue.add_front([], time.monotonic())
            return
        now = time.monotonic()
        worker = LeasedWorker(message.lease_id, source, message.worker.worker_id, message.pid, connection, now)
        self._lease_queue[message.lease_id] = queue
        self._by_worker[worker.worker_id] = (queue, worker)
        self._calls.expect(worker.worker_id, self)
        queue.on_granted(worker, now)

    def on_spillback(self, node_id: bytes, message: frames.LeaseSpillback) -> None:
        queue = self._by_key[message.class_key]
        self._process.raylets.know(message.node_id, message.host, message.port)
        queue.on_spillback(queue.source(node_id), message.count, queue.source(message.node_id))

    def on_raylet_lost(self, node_id: bytes, reason: str) -> None:
        """Another node is gone, or there is no way to it: its leases are lost, and others are asked for instead."""
        text = f"Node {node_id.hex()} is lost: {reason.rstrip('.')}."
        for queue in self._by_key:
            source = queue.elsewhere.get(node_id)
            if source is None:
                continue
            for worker in queue.on_raylet_lost(source):
                self._lost(queue, worker, lambda _: exceptions.NodeDiedError(text))
            queue.add_front([], time.monotonic())

    def on_lost(self, message: frames.LeaseLost) -> None:
        queue = self._lease_queue.get(message.lease_id)
        if queue is not None:
            worker = queue.workers[message.lease_id]
            self._lost(queue, worker, lambda record: _death(message, record, worker), message)

    def _lost(
        self,
        queue: TaskQueue,
        worker: LeasedWorker,
        cause: Callable[[TaskRecord], Exception],
        message: frames.LeaseLost | None = None,
    ) -> None:
        del self._lease_queue[worker.lease_id]
        self._forget(worker)
        records = queue.on_lost(worker.lease_id)
        connection = worker.connection
        if not connection.authenticated or (len(records) == 1 and connection.undelivered):
            queue.add_front(records, time.monotonic())  # the worker was dead before it got them
            return
        self._calls.abandon(worker.source.node_id, records)
        for record in records:
            record.suspect = True
        # Tasks run in order: the first unanswered one has begun, of the others it is not known (see TaskQueue._refill).
        queue.add_front(records[1:], time.monotonic())
        for record in records[:1]:
            if record.late or record.cancelled:
                self.stopped(record)
                continue
            pause_s = _pause_before_retry(record, message)
            if pause_s is None:
                self._calls.fail(record, cause(record))
            else:
                self._calls.repeated(record, failures.of_system(cause(record)), worker_id=worker.worker_id)
                self._enqueue_in(pause_s, record)

    def _enqueue_in(self, pause_s: float, record: TaskRecord) -> None:
        if not pause_s:
            self._enqueue(record)
            return
        process = self._process
        record.unready = record.pausing = True
        self._unready[record.push.task_id] = record

        def over() -> None:
            with process.lock:
                if process.raylet.closed:
                    self._calls.fail(record, process.node_error)
                elif not process.closed:
                    self._enqueue(record)

        process.reactor.call_later(pause_s, over)

    def on_worker_disconnected(self, worker_id: bytes, reason: str) -> None:
        """A leased worker's connection ended. The raylet tells why in LeaseLost; tasks wait for that."""
        queue, worker = self._by_worker[worker_id]
        queue.on_disconnected(worker.lease_id)

        def give_up() -> None:
            with self._process.lock:
                if worker.lease_id in self._lease_queue:
                    self._process.raylets.send(worker.source.node_id, LeaseReturned(worker.lease_id, worker_exits=True))
                    text = f"the connection to it ended: {reason}"
                    self.on_lost(frames.LeaseLost(worker.lease_id, ExitKind.SYSTEM_ERROR, text))

        self._process.reactor.call_later(LOSS_REASON_S, give_up)

    def on_refused(self, node_id: bytes, message: frames.LeaseRefused) -> None:
        queue = self._by_key[message.class_key]
        queue.refused(queue.source(node_id))
        error: Exception
        if message.kind is RefusalKind.RUNTIME_ENV:
            error = exceptions.RuntimeEnvSetupError(message.reason)
        elif message.kind is RefusalKind.WORKER_START:
            error = exceptions.WorkerCrashedError(message.reason)
        elif message.kind is RefusalKind.GROUP_REMOVED:
            error = exceptions.TaskPlacementGroupRemoved(message.reason)
        else:
            error = exceptions.TaskUnschedulableError(message.reason)
        for record in queue.take_pending():
            self._calls.fail(record, error)

    def on_reclaim(self, message: frames.LeaseReclaim) -> None:
        queue = self._lease_queue.get(message.lease_id)
        if queue is not None:
            queue.on_reclaim(message.lease_id, message.at_once, time.monotonic())

    def on_tick(self, now: float) -> None:
        for queue in self._by_key:
            if queue.idle:
                queue.on_tick(now, IDLE_LEASE_S)

    def leases_idle(self) -> bool:
        """Some go back when they have been so for a while."""
        return any(queue.idle for queue in list(self._by_key))

    def forget_all(self) -> None:
        """The session ends: nobody waits for any task any more."""
        for queue in self._by_key:
            queue.forget_all()
        self._unready.clear()
        self._by_worker.clear()
        self._lease_queue.clear()

    # -- from the workers -----------------------------------------------------------------------------

    def pid_of(self, worker_id: bytes) -> int:
        """0 = it is not leased."""
        held = self._by_worker.get(worker_id)
        return held[1].pid if held is not None else 0

    def on_replies(self, worker_id: bytes, replies: list[TaskReply]) -> None:
        queue, worker = self._by_worker[worker_id]
        for reply in replies:
            record = queue.on_replied(worker, reply.task_id, reply.duration_us)
            if record is None:
                continue
            if record.late:
                self._calls.drop(reply, worker_id)
                self.stopped(record)
            elif reply.retriable and (pause_s := pause_before_retry(record, random.random())) is not None:
                self._calls.repeated(record, reply.failure, reply.duration_us, worker_id)
                self._enqueue_in(pause_s, record)
            else:
                self._calls.complete(record, reply, worker_id)
        queue.after_replies(worker, time.monotonic())

    def on_recalled(self, worker_id: bytes, message: Recalled) -> None:
        held = self._by_worker.get(worker_id)
        if held is not None:
            queue, worker = held
            queue.on_recalled(
                worker, message.task_ids, time.monotonic(), blocked=message.blocked, leaving=message.leaving
            )


def _pause_before_retry(record: TaskRecord, message: frames.LeaseLost | None) -> float | None:
    """In seconds; None = it has no retry left, or would fail again."""
    kind = message.kind if message is not None else ExitKind.SYSTEM_ERROR
    if kind is ExitKind.MEMORY_LIMIT:
        return None
    if message is not None and kind is ExitKind.NODE_OUT_OF_MEMORY:
        return pause_before_memory_retry(record, message.shared_blame, random.random())
    return pause_before_retry(record, random.random())


def _death(message: frames.LeaseLost, record: TaskRecord, worker: LeasedWorker) -> Exception:
    if message.kind in (ExitKind.NODE_OUT_OF_MEMORY, ExitKind.MEMORY_LIMIT):
        return exceptions.OutOfMemoryError(f"Task {record.push.name} was killed: {message.detail}")
    if message.group_removed:
        return exceptions.TaskPlacementGroupRemoved(message.detail)
    return exceptions.WorkerCrashedError(
        message.detail, task_name=record.push.name, pid=worker.pid, node_id=worker.source.node_id.hex()
    )
