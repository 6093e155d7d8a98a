"""Values into objects, and out of them: ``put``, ``get``, and what lies in the object store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal import exceptions
from shoal._core.object_ref import EarlierSessionError, ObjectEntry, ObjectRef
from shoal._core.objects import MAX_INLINE_BYTES
from shoal._owner.objects.borrowing import Borrowing
from shoal._owner.objects.recovery import Recovery
from shoal._owner.objects.waiting import Waiting
from shoal._values.ref_pickling import collected
from shoal._values.serialization import Serialized, load_inline, loads, serialize
from shoal._wire.value_kinds import ENDED, ERROR, INLINE, PENDING, STORED
from shoal_common.channel.frames import WorkerAddress

if TYPE_CHECKING:
    from shoal._owner.process import Process

#: A node's raylet has answered by then if it has a copy of an object from elsewhere, in seconds.
COPY_IS_HERE_S = 0.02
#: So many objects, of so many bytes, are asked for at a time.
ASKED_OBJECTS = 32
ASKED_BYTES = 8 * 1024 * 1024


class NotReady(Exception):
    """The object is pending, although it was ready before."""


def is_lost(error: exceptions.ObjectLostError, object_id: bytes) -> bool:
    """Nobody has this object: not that it could not be fetched just now."""
    return type(error) is exceptions.ObjectLostError and error.object_ref_hex == object_id.hex()


def _seconds_to(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


class Values:
    """Of one process. Callers do not hold its lock."""

    def __init__(self, process: Process, waiting: Waiting, borrowing: Borrowing, recovery: Recovery) -> None:
        self._process = process
        self._waiting = waiting
        self._borrowing = borrowing
        self._recovery = recovery

    # -- into objects -------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef[Any]:
        """As ``shoal.put``."""
        if isinstance(value, ObjectRef):
            raise TypeError(
                "Calling 'put' on a shoal.ObjectRef is not allowed. "
                "If you really want to do this, you can wrap the ObjectRef in a list and call 'put' on it."
            )
        return self.put_serialized(serialize(value, "the put value"))

    def put_serialized(self, serialized: Serialized) -> ObjectRef[Any]:
        process = self._process
        object_id = process.new_object_id()
        if process.table.dropped:
            self._borrowing.collect()
        size = serialized.size
        if size <= MAX_INLINE_BYTES:
            entry = ObjectEntry(object_id, *serialized.inline())
        else:
            return self._put_stored(object_id, serialized, size)
        if serialized.contained:
            entry.contained = serialized.contained
        return process.table.add(entry)

    def _put_stored(self, object_id: bytes, serialized: Serialized, size: int) -> ObjectRef[Any]:
        process = self._process
        try:
            self.write(object_id, serialized, process.worker_id)
            entry = ObjectEntry(object_id, STORED, b"", size, process.node_id)
            if serialized.contained:
                entry.contained = serialized.contained
            return process.table.add(entry)
        except BaseException:  # an interrupt behind the seal too: nobody would free the object
            process.raylets.free(process.node_id, [object_id])
            raise

    def write(self, object_id: bytes, serialized: Serialized, owner: bytes) -> int:
        """Store a packed value; returns its size in bytes."""
        store = self._process.store
        size = serialized.packed_size
        try:
            view = store.create(object_id, size, owner)
            try:
                serialized.write_packed(view)
            finally:
                view.release()
            store.seal(object_id)
        except BaseException:  # an interrupt too, at whatever moment
            store.abort(object_id)
            raise
        return size

    # -- out of them ----------------------------------------------------------------------------------

    def get_one(self, ref: ObjectRef[Any], timeout: float | None = None) -> Any:
        """As ``shoal.get`` of one."""
        entry = ref._entry
        if entry.state == INLINE and entry.contained is None:
            return loads(entry.payload)
        deadline = None if timeout is None else time.monotonic() + timeout
        if entry.state == PENDING:
            self._waiting.until_ready([entry], timeout)
        return self.value_of(entry, deadline)

    def get_owned(self, object_id: bytes, owner: WorkerAddress) -> Any:
        """The value of an object of another process, which keeps it until this has returned."""
        with self._process.lock:
            ref = self._borrowing.restore(object_id, owner)
        return self.get_one(ref)

    def get_many(self, refs: Sequence[ObjectRef[Any]], timeout: float | None = None) -> list[Any]:
        """As ``shoal.get`` of a list."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pending = [entry for ref in refs if (entry := ref._entry).state == PENDING]
        values: list[Any] = []
        if pending:
            self._raise_error(refs)
            read_ready = partial(self._read_ready, refs, values, deadline)
            lends_cpu = self._process.blocking is not None
            try:
                self._waiting.until_ready(pending, timeout, None if lends_cpu else read_ready)
                self._raise_error(refs)
            except BaseException:
                values.clear()  # else the error's traceback would keep them, and their memory in the store
                raise
        stored = [entry for ref in refs if (entry := ref._entry).state == STORED]
        if len(stored) > 1:
            # All at once, what comes from other nodes or out of blobs; else each would wait for the one before.
            store = self._process.store
            away = [(entry.object_id, entry.node_id) for entry in stored if not store.is_here(entry.object_id)]
            if away:
                store.prefetch(away)
        try:
            if len(stored) > 1 or values:
                while len(values) < len(refs):
                    self._read_on(refs, values, len(refs), deadline)
                return values
            return [
                loads(entry.payload)
                if (entry := ref._entry).state == INLINE and entry.contained is None
                else self.value_now(entry, deadline)
                for ref in refs
            ]
        except NotReady:
            return self._get_with_lost(refs, values, deadline)

    def _read_ready(self, refs: Sequence[ObjectRef[Any]], values: list[Any], deadline: float | None) -> None:
        """Those behind ``values``, up to the first that is not ready on this node: their makers and this process work
        at the same time. One that is lost is left to who has waited for all."""
        node_id = self._process.node_id
        while True:
            end = begin = len(values)
            for ref in refs[begin : begin + ASKED_OBJECTS]:
                entry = ref._entry
                if entry.state in (PENDING, ERROR) or (entry.state == STORED and entry.node_id != node_id):
                    break
                end += 1
            if end == begin:
                return
            try:
                self._read_on(refs, values, end, deadline)
            except NotReady:
                return
            self._process.reactor.poll_now()

    def _read_on(self, refs: Sequence[ObjectRef[Any]], values: list[Any], end: int, deadline: float | None) -> None:
        """Some of those behind ``values``, before ``end``, whose values are added there. What lies in this node's store
        is asked for some objects at a time: one by one, a small one would cost its asker and the raylet twice as much.
        They are pinned meanwhile, so few bytes at a time."""
        store, node_id = self._process.store, self._process.node_id
        asked: dict[bytes, bytes] = {}
        begin, size = len(values), 0
        until = begin
        for ref in refs[begin : min(end, begin + ASKED_OBJECTS)]:
            entry = ref._entry
            if entry.state == STORED and entry.node_id == node_id and not store.is_here(entry.object_id):
                size += entry.size
                if asked and size > ASKED_BYTES:
                    break
                asked[entry.object_id] = node_id
            until += 1
        with store.asked_together(asked):
            values += [self.value_now(ref._entry, deadline) for ref in refs[begin:until]]

    def _get_with_lost(self, refs: Sequence[ObjectRef[Any]], read: list[Any], deadline: float | None) -> list[Any]:
        """Some of those behind ``read`` are lost: they are all made again together, not one after the other."""
        values: dict[int, Any] = dict(enumerate(read))
        while True:
            for index, ref in enumerate(refs):
                if index not in values:
                    with contextlib.suppress(NotReady):
                        values[index] = self.value_now(ref._entry, deadline)
            missing = [ref._entry for index, ref in enumerate(refs) if index not in values]
            if not missing:
                return [values[index] for index in range(len(refs))]
            self._waiting.until_ready(missing, _seconds_to(deadline))

    def _raise_error(self, refs: Sequence[ObjectRef[Any]]) -> None:
        """Of the first that is one."""
        failed = next((ref._entry for ref in refs if ref._entry.state == ERROR), None)
        if failed is not None:
            self.value_of(failed)

    def value_of(self, entry: ObjectEntry, deadline: float | None = None) -> Any:
        """The value of a ready object, which has come to this node by ``deadline``, in the time of ``time.monotonic``.
        One that is lost is waited for.

        Raises: what it holds if that is an error; GetTimeoutError; ValueError for one of an earlier session.
        """
        while True:
            try:
                return self.value_now(entry, deadline)
            except NotReady:
                self._waiting.until_ready([entry], _seconds_to(deadline))

    def value_now(self, entry: ObjectEntry, deadline: float | None = None) -> Any:
        """As ``value_of``. Raises, besides: NotReady for one that is lost, and is being made again."""
        if entry.contained is None and entry.state != ERROR:
            return self._load(entry, deadline)
        outer, collected.unpickled = collected.unpickled, []
        try:
            value = self._load(entry, deadline)
            with self._process.lock:
                self._borrowing.register(collected.unpickled)
        finally:
            collected.unpickled = outer
        if entry.state == ERROR:
            try:
                raise value.as_instanceof_cause() if isinstance(value, exceptions.TaskError) else value
            finally:
                # Else its traceback would lead back to it, and all that the callers had would wait for the collector.
                del value
        return value

    def _load(self, entry: ObjectEntry, deadline: float | None) -> Any:
        state = entry.state
        if state == STORED:
            home = entry.node_id
            try:
                return self.load_stored(entry.object_id, home, deadline)
            except exceptions.ObjectLostError as error:
                self._lost(entry, home, error)
                raise NotReady from None
        if state == PENDING:
            raise NotReady
        if state == ENDED:
            if self._process.closed:  # it has been waited for since before
                raise exceptions.ShoalSystemError("shoal.shutdown() was called while this was pending")
            raise EarlierSessionError(entry.object_id.hex())
        return load_inline(state, entry.payload)

    def _lost(self, entry: ObjectEntry, home: bytes, error: exceptions.ObjectLostError) -> None:
        """It was not to be had from ``home``: it is made again. Raises: ``error`` when it is about something else."""
        if not is_lost(error, entry.object_id):
            raise error
        with self._process.lock:
            self._recovery.lost(entry, home, error.detail)
            self._waiting.want(entry)

    def load_or_make(self, object_id: bytes, owner: WorkerAddress, home: bytes) -> Any:
        """As ``load_stored``, of an object of which only this is known; one that is lost is waited for."""
        try:
            return self.load_stored(object_id, home)
        except exceptions.ObjectLostError as error:
            with self._process.lock:
                ref = self._borrowing.restore(object_id, owner)
                entry = ref._entry
                if entry.owner is not None and entry.state == PENDING and not entry.asked:
                    entry.state, entry.node_id = STORED, home
            self._lost(entry, home, error)
        return self.get_one(ref)

    def load_stored(self, object_id: bytes, home: bytes, deadline: float | None = None) -> Any:
        """The value of an object in a node's store. A task gives its CPU to others while it comes from another node,
        but not while it reads what has come already."""
        process = self._process
        timeout = _seconds_to(deadline)
        if home != process.node_id and process.blocking is not None and not process.store.is_here(object_id):
            with process.blocking(COPY_IS_HERE_S):
                return process.store.load(object_id, home, timeout)
        return process.store.load(object_id, home, timeout)
