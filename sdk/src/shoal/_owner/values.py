"""Values into objects, and out of them: ``put``, ``get``, and what lies in the object store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoal import exceptions
from shoal._core.object_ref import EarlierSessionError, ObjectEntry, ObjectRef
from shoal._core.objects import MAX_INLINE_BYTES
from shoal._owner.borrowing import Borrowing
from shoal._owner.waiting import Waiting
from shoal._values.ref_pickling import collected
from shoal._values.serialization import Serialized, load_inline, loads, serialize
from shoal._wire.value_kinds import ENDED, ERROR, INLINE, PENDING, STORED
from shoal_common.channel.frames import WorkerAddress

if TYPE_CHECKING:
    from shoal._owner.process import Process

#: A node's raylet has answered by then if it has a copy of an object from elsewhere, in seconds.
COPY_IS_HERE_S = 0.02


class Values:
    """Of one process. Callers do not hold its lock."""

    def __init__(self, process: Process, waiting: Waiting, borrowing: Borrowing) -> None:
        self._process = process
        self._waiting = waiting
        self._borrowing = borrowing

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
        if pending:
            self._raise_error(refs)
            self._waiting.until_ready(pending, timeout)
            self._raise_error(refs)
        stored = [entry for ref in refs if (entry := ref._entry).state == STORED]
        if len(stored) > 1:
            # All at once, what comes from other nodes or out of blobs; else each would wait for the one before.
            store = self._process.store
            away = [(entry.object_id, entry.node_id) for entry in stored if not store.is_here(entry.object_id)]
            if away:
                store.prefetch(away)
        return [
            loads(entry.payload)
            if (entry := ref._entry).state == INLINE and entry.contained is None
            else self.value_of(entry, deadline)
            for ref in refs
        ]

    def _raise_error(self, refs: Sequence[ObjectRef[Any]]) -> None:
        """Of the first that is one."""
        failed = next((ref._entry for ref in refs if ref._entry.state == ERROR), None)
        if failed is not None:
            self.value_of(failed)

    def value_of(self, entry: ObjectEntry, deadline: float | None = None) -> Any:
        """The value of a ready object, which has come to this node by ``deadline``, in the time of ``time.monotonic``.

        Raises: what it holds if that is an error; GetTimeoutError; ValueError for one of an earlier session.
        """
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
            raise value.as_instanceof_cause() if isinstance(value, exceptions.TaskError) else value
        return value

    def _load(self, entry: ObjectEntry, deadline: float | None) -> Any:
        if entry.state == STORED:
            return self.load_stored(entry.object_id, entry.node_id, deadline)
        if entry.state == ENDED:
            if self._process.closed:  # it has been waited for since before
                raise exceptions.ShoalSystemError("shoal.shutdown() was called while this was pending")
            raise EarlierSessionError(entry.object_id.hex())
        return load_inline(entry.state, entry.payload)

    def load_stored(self, object_id: bytes, home: bytes, deadline: float | None = None) -> Any:
        """The value of an object in a node's store. A task gives its CPU to others while it comes from another node,
        but not while it reads what has come already."""
        process = self._process
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        if home != process.node_id and process.blocking is not None and not process.store.is_here(object_id):
            with process.blocking(COPY_IS_HERE_S):
                return process.store.load(object_id, home, timeout)
        return process.store.load(object_id, home, timeout)
