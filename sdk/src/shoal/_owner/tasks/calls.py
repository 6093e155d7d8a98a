"""Calls of this owner, of functions and of actors: from the record to the values of its objects."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from shoal import _context, exceptions
from shoal._core.batches import push_bytes
from shoal._core.deadlines import RUNNING, Deadlines
from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._core.streams import Stream
from shoal._core.task_events import TaskEvents
from shoal._core.task_record import Deadline, FunctionRecord, Queue, TaskRecord, TimeLimit
from shoal._owner.objects.borrowing import Borrowing
from shoal._owner.objects.recovery import Recovery
from shoal._owner.objects.streaming import Streaming
from shoal._owner.objects.waiting import Waiting
from shoal._owner.tasks import failures
from shoal._owner.tasks.arguments import PackedArguments
from shoal._values.task_error import error_of_dependent
from shoal._wire.peer_frames import LostArgument, TaskPush, TaskReply, TimeLeft, Value
from shoal._wire.value_kinds import BYTES, ERROR, INLINE, PENDING, STORED
from shoal_common.events.task_events import Failure
from shoal_common.ids import FIRST_RETURN, TaskID, object_of_task

if TYPE_CHECKING:
    from shoal._owner.process import Process

_wall_clock = time.time

#: A thread that submits without ever waiting looks for answers after so many submissions.
POLL_EVERY = 32


class Route(Protocol):
    """Who has calls under way at a worker. Called with the lock."""

    def on_replies(self, worker_id: bytes, replies: list[TaskReply]) -> None: ...

    def on_worker_disconnected(self, worker_id: bytes, reason: str) -> None:
        """It is forgotten already."""


class Calls:
    """Of one process. Callers hold its lock except for ``new_record`` and ``submitted``."""

    #: Sends a task or call on its way, as soon as its arguments are there.
    start: Callable[[TaskRecord], None]

    def __init__(
        self,
        process: Process,
        waiting: Waiting,
        borrowing: Borrowing,
        recovery: Recovery,
        streaming: Streaming,
        events: TaskEvents,
    ) -> None:
        self._process = process
        self._events = events
        self._streaming = streaming
        self._waiting = waiting
        self._borrowing = borrowing
        self._recovery = recovery
        self._routes: dict[bytes, Route] = {}
        #: Worker -> its node, and what is to be freed there once it has ended.
        self._abandoned: dict[bytes, tuple[bytes, list[bytes]]] = {}
        self._since_poll = 0
        self._deadlines = Deadlines()
        #: When the timer of ``_expire`` goes off.
        self._timer_at = math.inf

    # -- the beginning ----------------------------------------------------------------------------------

    def new_record(
        self,
        function: FunctionRecord,
        packed: PackedArguments | None,
        num_returns: int,
        retries: int,
        retry_exceptions: bool | bytes,
    ) -> TaskRecord:
        """One about to be submitted."""
        push = TaskPush(self._process.task_ids.next(), function.function_id, function.name, b"")
        if function.tally is None:
            push.untold = True
        record = TaskRecord(push, function, [], retries_left=retries)
        task = _context.current_task.get()
        if task is not None:
            record.parent = task.task_id
        if packed is not None:
            push.args = packed.pickled
            push.buffers = packed.buffers
            record.size = len(packed.pickled) if packed.buffers is None else push_bytes(push)
            push.args_object = packed.args_object
            record.holds = packed.holds
            record.references = packed.references
        if num_returns != 1:
            push.num_returns = num_returns
        if retry_exceptions:
            push.retry_exceptions = retry_exceptions
        return record

    def create_returns(
        self, record: TaskRecord, num_returns: int, stream: Stream | None = None
    ) -> list[ObjectRef[Any]]:
        """The objects that a record will make; of a generator, as ``Streaming.begin``. Raises: ShoalSystemError after a
        shutdown."""
        if self._process.closed:
            raise exceptions.ShoalSystemError("Shoal was shut down; call shoal.init() again")
        tally = record.function.tally
        if tally is not None:
            # As TaskEvents.submitted, for a third of its time.
            before = tally.submitted
            tally.submitted = before + 1
            record.submitted_at = _wall_clock()
            if not before and not self._events.due:
                self._events.wake()
        create, task_id = self._process.table.create, record.push.task_id
        if num_returns == 1:
            entry, ref = create(task_id + FIRST_RETURN)
            record.entries.append(entry)
            return [ref]
        if stream is not None:
            return self._streaming.begin(record, stream)
        refs = []
        for index in range(num_returns):
            entry, ref = create(object_of_task(task_id, index))
            record.entries.append(entry)
            refs.append(ref)
        return refs

    def submitted(self) -> None:
        """Now and then, what has been answered is looked at."""
        self._since_poll += 1
        if self._since_poll >= POLL_EVERY:
            self._since_poll = 0
            self._process.reactor.poll_now()

    # -- deadlines --------------------------------------------------------------------------------------

    def limit(self, record: TaskRecord, limit: TimeLimit, queue: Queue) -> None:
        """It fails when it has not ended ``timeout_s`` seconds from now."""
        record.deadline = Deadline(limit, time.monotonic() + limit.timeout_s)
        self._deadlines.add(record, queue)
        self._set_timer()

    def renew(self, record: TaskRecord, queue: Queue) -> None:
        """It was late, has stopped, and runs once more."""
        assert record.deadline is not None
        self.limit(record, record.deadline.limit, queue)

    def _set_timer(self) -> None:
        at = self._deadlines.next()
        if at is not None and at < self._timer_at:
            self._timer_at = at
            self._process.reactor.call_later(at - time.monotonic(), self._expire)

    def _expire(self) -> None:
        with self._process.lock:
            self._timer_at = math.inf
            if self._process.closed:
                return
            now = time.monotonic()
            for record, queue in self._deadlines.due(now):
                where = queue.expire(record, now)
                deadline = record.deadline
                assert deadline is not None
                # What has not begun has had its time too: to run it *again* would be to wait longer.
                error = exceptions.TaskTimeoutError(
                    queue.name_of(record), record.push.task_id.hex(), deadline.limit.timeout_s, where
                )
                if where == RUNNING and deadline.limit.retried and record.retry():
                    deadline.again = True
                    self.repeated(record, failures.of_system(error))
                else:
                    self.fail(record, error)
            self._set_timer()

    def drop(self, reply: TaskReply, worker_id: bytes) -> None:
        """An answer that comes too late: let go of what it brings."""
        for object_id in reply.borrowed or ():
            self._process.table.add_borrower(object_id, worker_id)
        task_id = TaskID(reply.task_id)
        for index, value in enumerate(reply.values or ()):
            if value.contained:
                self._borrowing.adopt(value.contained)
            if value.kind == STORED:
                self._process.raylets.free(value.node_id, [object_of_task(task_id, index)])

    def abandon(self, node_id: bytes, records: Iterable[TaskRecord], until_ends: bytes = b"") -> None:
        """The worker on that node has ended without a word about these: what it had stored as their results belongs to
        nobody, and would stay for as long as their owner lives. ``until_ends``: the worker, if it has not ended yet."""
        stored = [entry.object_id for record in records for entry in record.entries if entry.state == PENDING]
        for record in records:
            stored += self._streaming.unheard_of(record)
        if until_ends:
            self._abandoned[until_ends] = node_id, stored
        elif stored:
            self._process.raylets.free(node_id, stored)

    # -- the way of replies -----------------------------------------------------------------------------

    def expect(self, worker_id: bytes, route: Route) -> None:
        """From now on that worker answers to ``route``."""
        self._routes[worker_id] = route

    def forget(self, worker_id: bytes, route: Route) -> None:
        """``route`` has nothing under way there any more."""
        if self._routes.get(worker_id) is route:
            del self._routes[worker_id]

    def forget_all(self) -> None:
        self._routes.clear()
        self._abandoned.clear()
        self._deadlines.clear()

    def on_replies(self, worker_id: bytes, replies: list[TaskReply]) -> None:
        """Those of a worker that was given up come too late, and are dropped."""
        route = self._routes.get(worker_id)
        if route is not None:
            route.on_replies(worker_id, replies)

    def on_worker_disconnected(self, worker_id: bytes, reason: str) -> None:
        node_id, stored = self._abandoned.pop(worker_id, (b"", []))
        if stored:
            self._process.raylets.free(node_id, stored)
        route = self._routes.pop(worker_id, None)
        if route is not None:
            route.on_worker_disconnected(worker_id, reason)

    # -- the end ------------------------------------------------------------------------------------------

    def complete(self, record: TaskRecord, reply: TaskReply, worker_id: bytes) -> None:
        """An answer's values become its objects' values."""
        if reply.borrowed is not None:
            for object_id in reply.borrowed:
                self._process.table.add_borrower(object_id, worker_id)
        tally = record.function.tally
        if (reply.kind == INLINE or reply.kind == BYTES) and not record.push.attempt:
            if tally is not None:
                if record.told or self._events.short_left:
                    self._events.finished(record, tally, reply.duration_us, worker_id)
                else:
                    tally.runs.append(reply.duration_us)
            entry = record.entries[0]
            entry.state = reply.kind
            entry.payload = reply.payload
            record.holds = None
            if record.deadline is not None:
                self._deadlines.forget(record)
            if entry.watchers is not None or entry.tracker is None:
                self._waiting.tell_ready(entry)
            return
        if reply.lost is not None:
            self._not_begun(record, reply.lost)
            return
        if tally is not None and reply.failure is None:
            self._events.finished(record, tally, reply.duration_us, worker_id)
        elif tally is not None and reply.failure is not None:
            cancelled = reply.failure.type == failures.CANCELLED
            self._events.failed(record, tally, reply.failure, reply.duration_us, worker_id, cancelled=cancelled)
        if reply.values is not None:
            self.finish(record, reply.values, reply.items)
        else:
            self.finish(record, [Value(reply.kind, reply.payload)] * len(record.entries), reply.items)

    def finish(self, record: TaskRecord, values: list[Value], items: int = -1) -> None:
        """The values are there; ``items`` as in ``TaskReply``."""
        if record.deadline is not None:
            self._deadlines.forget(record)
        lineage = record.push.attempt > 0
        if record.stream is not None:
            values, lineage = [self._streaming.ended(record, values[0], items)], True
        for entry, value in zip(record.entries, values, strict=True):
            lineage = lineage or value.kind == STORED
            contained = self._borrowing.adopt(value.contained) if value.contained else None
            if entry.state == PENDING:
                self._waiting.settle(entry, value, contained)
            else:
                self._recovery.spare(entry, value, contained)
        if lineage:
            self._recovery.ended(record)
        record.holds = None
        record.references = None

    def _not_begun(self, record: TaskRecord, lost: list[LostArgument]) -> None:
        """The worker has not found these arguments: once more, when they are there again."""
        if record.cancelled:
            self.cancelled(record)
            return
        at_home = {each.object_id: each for each in lost}
        arguments = at_home.get(record.push.args_object)
        if arguments is not None:
            how = f"It holds the arguments of {record.push.name}. {arguments.how}"
            self.fail(record, exceptions.ObjectReconstructionFailedError(arguments.object_id.hex(), "PUT", how))
            return
        for _, _, ref in record.references or ():
            missed = at_home.get(ref._entry.object_id)
            if missed is not None:
                self._recovery.lost(ref._entry, missed.home, missed.how)
        self.start(record)

    def fail(self, record: TaskRecord, error: Exception) -> None:
        """End it with a system error."""
        tally = record.function.tally
        if tally is not None:
            cancelled = isinstance(error, exceptions.TaskCancelledError)
            self._events.failed(record, tally, failures.of_system(error), cancelled=cancelled)
        self.finish(record, [Value(ERROR, pickle.dumps(error, 5))] * len(record.entries))

    def repeated(
        self, record: TaskRecord, failure: Failure | None, duration_us: int = 0, worker_id: bytes = b""
    ) -> None:
        """An attempt has failed, which the record counts already, and it runs once more."""
        tally = record.function.tally
        if tally is not None:
            self._events.retried(record, tally, failure or failures.ARGUMENT_FAILED, duration_us, worker_id)

    def again(self, record: TaskRecord) -> None:
        """It has ended, and runs once more as its values are lost."""
        tally = record.function.tally
        if tally is not None:
            self._events.submitted(record, tally)

    def cancelled(self, record: TaskRecord) -> None:
        """End it, which did not begin, or of which nobody knows how it has ended."""
        self.fail(record, exceptions.TaskCancelledError(record.push.task_id.hex()))

    def fail_like(self, record: TaskRecord, argument: ObjectEntry) -> None:
        """An argument is an error, and so is everything that is made of it."""
        tally = record.function.tally
        if tally is not None:
            self._events.failed(record, tally, failures.ARGUMENT_FAILED)
        payload = error_of_dependent(record.push.name, argument.payload)
        self.finish(record, [Value(ERROR, payload)] * len(record.entries))


def set_time_left(records: list[TaskRecord]) -> None:
    """Of those with a deadline, as they are sent."""
    for record in records:
        deadline = record.deadline
        if deadline is not None:
            record.push.time_left = TimeLeft(deadline.limit.timeout_s, max(0.0, deadline.at - time.monotonic()))
