"""Generator tasks of this owner: their items become objects as they come, and whoever reads is told.

What an item is that comes, and where the stream ends, is decided in ``_core.streams``. Items that lie in object stores
have their lineage from the moment when they come (``Lineage.made``); the generator's record joins it at the end.

A generator that nobody reads any more, after some of its items were read, is told to stop: it is closed where it yields
next. One of which nothing was read was called for what it does, and runs on, as does one whose ``completed()`` is held.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal import exceptions
from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._core.streams import ALL, Arrival, DynamicObjectRefGenerator, Stream
from shoal._core.task_record import TaskRecord
from shoal._owner.objects.borrowing import Borrowing
from shoal._owner.objects.recovery import Recovery
from shoal._owner.objects.waiting import Waiting
from shoal._values.serialization import serialize
from shoal._wire.peer_frames import STREAMING, ItemsRead, TaskYields, Value
from shoal._wire.value_kinds import ERROR, INLINE, PENDING, STORED
from shoal_common.ids import TaskID, object_of_task, task_of_object

if TYPE_CHECKING:
    from shoal._net.connection import Connection
    from shoal._owner.process import Process

#: How an item was lost that its generator had yielded already, and which it does not make again by going on.
_PASSED = "It was lost while its generator ran on."


def item_id(task_id: bytes, index: int) -> bytes:
    """The object that is this item."""
    return object_of_task(TaskID(task_id), index + 1)


class Streaming:
    """Of one process. Callers hold its lock, except where it says otherwise."""

    #: Has a generator closed that nobody reads any more.
    close: Callable[[TaskRecord], None]

    def __init__(self, process: Process, waiting: Waiting, borrowing: Borrowing, recovery: Recovery) -> None:
        self._process = process
        self._waiting = waiting
        self._borrowing = borrowing
        self._recovery = recovery
        #: Generators that have not ended, or run again.
        self._running: dict[bytes, TaskRecord] = {}

    def begin(self, record: TaskRecord, stream: Stream) -> list[ObjectRef[Any]]:
        """A generator is about to be submitted. Returns ``completed()``, and what stands for whoever reads: when that
        is gone, nobody reads."""
        table, task_id = self._process.table, record.push.task_id
        record.stream = stream
        record.push.num_returns, record.push.backpressure = STREAMING, stream.limit
        self._running[task_id] = record
        whole, completed = table.create(object_of_task(TaskID(task_id), 0))
        record.entries.append(whole)
        if stream.dynamic:
            whole.on_free = partial(self._dropped, stream, task_id)
            return [completed]
        whole.on_free = partial(self._unwanted, task_id)
        entry, reader = table.create(self._process.new_object_id())
        entry.on_free = partial(self._dropped, stream, task_id)
        return [completed, reader]

    def again(self, record: TaskRecord) -> None:
        """It runs once more, for the sake of an item that is lost."""
        self._running[record.push.task_id] = record

    # -- items come -----------------------------------------------------------------------------------

    def on_yields(self, connection: Connection, message: TaskYields) -> None:
        task_id = message.task_id
        record = self._running.get(task_id)
        if record is None or record.late or record.push.attempt != message.attempt:
            for index, value in enumerate(message.values, message.first):
                self._let_go(item_id(task_id, index), value)
            return
        stream = record.stream
        assert stream is not None
        stream.connection = connection
        for index, value in enumerate(message.values, message.first):
            object_id = item_id(task_id, index)
            arrival = stream.arrive(index)
            if arrival is Arrival.NEW and stream.wanted:
                self._add(stream, object_id, value)
            elif arrival is Arrival.AGAIN:
                self._come_again(object_id, value)
            else:
                self._let_go(object_id, value)
        if stream.limit and message.first < stream.read:
            self._acknowledge(stream, task_id)

    def _add(self, stream: Stream, object_id: bytes, value: Value) -> None:
        """An item, or the error in its place."""
        contained = self._borrowing.adopt(value.contained) if value.contained else None
        if value.kind == STORED:
            self._process.lineage.made(object_id)
        ahead = stream.take_ahead()
        if ahead is not None:
            stream.add(ahead)
            self._waiting.settle(ahead._entry, value, contained)
            return
        entry = ObjectEntry(object_id, value.kind, value.payload, value.size, value.node_id)
        entry.contained = contained
        if value.kind == STORED:
            self._process.raylets.open(value.node_id)
        stream.add(self._process.table.add(entry))

    def _come_again(self, object_id: bytes, value: Value) -> None:
        entry = self._process.table.entries.get(object_id)
        if entry is None:
            self._let_go(object_id, value)
            return
        contained = self._borrowing.adopt(value.contained) if value.contained else None
        if entry.state == PENDING:
            if value.kind == STORED:
                self._process.lineage.made(object_id)
            self._waiting.settle(entry, value, contained)
        else:
            self._recovery.spare(entry, value, contained)

    def _let_go(self, object_id: bytes, value: Value) -> None:
        """Of an item that nobody wants, unless it is one that somebody has."""
        if value.contained:
            self._borrowing.adopt(value.contained)
        entry = self._process.table.entries.get(object_id)
        if value.kind == STORED and (entry is None or entry.node_id != value.node_id):
            self._process.raylets.free(value.node_id, [object_id])

    # -- the end --------------------------------------------------------------------------------------

    def ended(self, record: TaskRecord, whole: Value, items: int) -> Value:
        """A run has ended: with this as the answer, and with so many items as far as the worker tells (-1 = it does
        not). Returns the value of ``completed()``."""
        stream, task_id = record.stream, record.push.task_id
        assert stream is not None
        self._running.pop(task_id, None)
        stream.connection = None
        record.entries[0].on_free = None
        error = whole if whole.kind == ERROR else None
        if error is None and not stream.complete(items):
            told = exceptions.StreamingGeneratorReplayInconsistentError(
                f"{record.push.name} yielded {items} items when it ran again, and {stream.arrived} had come before."
            )
            error = whole = Value(ERROR, pickle.dumps(told, 5))
        elif error is not None and items >= 0:
            whole = Value(INLINE, pickle.dumps(None, 5))  # the item has the error (as in Ray)
        if error is not None:
            index = stream.fail()
            if index is not None and stream.wanted:
                self._add(stream, item_id(task_id, index), error)
        self._tell_end(stream)
        self._settle_missing(task_id, error)
        if stream.dynamic and whole.kind != ERROR and record.entries[0].state == PENDING:
            return self._all_items(record)
        return whole

    def _tell_end(self, stream: Stream) -> None:
        """Whoever waits for another item: there is none."""
        ahead = stream.take_ahead()
        if ahead is not None:
            self._waiting.fail(ahead._entry, exceptions.ObjectRefStreamEndOfStreamError())

    def _settle_missing(self, task_id: bytes, error: Value | None) -> None:
        """Items that somebody has, and that this run was to make again and has not."""
        for object_id in self._process.lineage.objects_of(task_id):
            entry = self._process.table.entries.get(object_id)
            if entry is not None and entry.state == PENDING:
                if error is None:
                    entry.lost = _PASSED
                else:
                    self._waiting.settle(entry, error)

    def _all_items(self, record: TaskRecord) -> Value:
        """The value of a task with ``num_returns="dynamic"``."""
        assert record.stream is not None
        serialized = serialize(DynamicObjectRefGenerator(record.stream.ready), "the items")
        return Value(*serialized.inline(), contained=self._borrowing.lend(serialized.contained, None))

    def unheard_of(self, record: TaskRecord) -> list[bytes]:
        """Its worker has ended without a word about these, which it may have stored."""
        if record.stream is None:
            return []
        return [item_id(record.push.task_id, record.stream.arrived)]

    # -- nobody reads any more --------------------------------------------------------------------------

    def _dropped(self, stream: Stream, task_id: bytes) -> None:
        stream.drop()
        self._unwanted(task_id)
        if stream.limit and task_id in self._running:
            stream.read = ALL
            self._acknowledge(stream, task_id)

    def _unwanted(self, task_id: bytes) -> None:
        """The reader, or ``completed()``, is gone."""
        record = self._running.get(task_id)
        if record is None or self._process.closed:
            return
        stream, whole = record.stream, record.entries[0]
        assert stream is not None
        held = whole.borrowers or (whole.tracker is not None and whole.tracker() is not None)
        if stream.read and not stream.wanted and not held:
            stream.closing = True
            self.close(record)

    # -- whoever reads; without the lock ----------------------------------------------------------------

    def next(self, stream: Stream, completed: ObjectRef[Any], timeout: float | None = None) -> ObjectRef[Any] | None:
        """The next item; None after ``timeout`` seconds. Raises: StopIteration, ValueError for a generator of an
        earlier session."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            ref = self.take(stream, completed)
            if ref is not None:
                return ref
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                self._waiting.until_ready([self.peek(stream, completed)._entry], left)
            except exceptions.GetTimeoutError:
                return None

    def take(self, stream: Stream, completed: ObjectRef[Any]) -> ObjectRef[Any] | None:
        """As ``next``, without waiting."""
        ref = stream.take()
        if ref is None:
            completed._check_session()
            if stream.finished:
                raise StopIteration
            ref = self._broken(stream)
        elif stream.limit and stream.end is None:
            with self._process.lock:
                self._acknowledge(stream, task_of_object(completed._entry.object_id))
        return ref

    def _broken(self, stream: Stream) -> ObjectRef[Any] | None:
        """What was awaited has failed together with all that this process waits for."""
        with self._process.lock:
            ahead = stream.ahead
            if ahead is None or ahead._entry.state == PENDING or stream.fail() is None:
                return None
            stream.add(ahead)
            stream.ahead = None
            return stream.take()

    def peek(self, stream: Stream, completed: ObjectRef[Any]) -> ObjectRef[Any]:
        """The next item, which may still be pending; at the end, one that is an error."""
        with self._process.lock:
            completed._check_session()
            if stream.ready:
                return stream.ready[0]
            if stream.ahead is not None:
                return stream.ahead
            if stream.end is not None:
                entry, ref = self._process.table.create(self._process.new_object_id())
                self._waiting.fail(entry, exceptions.ObjectRefStreamEndOfStreamError())
                return ref
            entry, ref = self._process.table.create(item_id(task_of_object(completed._entry.object_id), stream.read))
            stream.ahead = ref
            if self._process.raylet.closed:
                self._waiting.fail(entry, self._process.node_error)
            return ref

    def _acknowledge(self, stream: Stream, task_id: bytes) -> None:
        """With the lock: the worker is told how many have been read."""
        if stream.connection is not None:
            stream.connection.send(ItemsRead(task_id, stream.read))

    def forget_all(self) -> None:
        """The session ends."""
        self._running.clear()
