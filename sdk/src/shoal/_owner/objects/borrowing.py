"""Reference counting between processes: who borrows what, and when that is told.

Rules:

- The owner keeps an object while a borrower is registered. A process that gets a reference inside a value is
  registered before whatever brought it is released: references in task arguments by the reply of the task
  (only if they are still held then), references in results by the sender before it replies, references
  in a value read with ``get`` at once.
- An ``AddBorrower`` to a third process may be overtaken by what this process tells others. So as long as one
  is not acknowledged, task replies and removals wait (``send_after_acks``).
"""

from __future__ import annotations

import itertools
import pickle
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from shoal import exceptions
from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._owner.objects.waiting import Waiting, owner_died
from shoal._values.ref_pickling import address_of_key, collected
from shoal._wire.peer_frames import (
    AddBorrower,
    BorrowerAdded,
    GetValue,
    RefWire,
    RemoveBorrower,
    Value,
    ValuePending,
    ValueReady,
)
from shoal._wire.value_kinds import ERROR, PENDING, STORED
from shoal_common.channel.frames import Message, WorkerAddress

if TYPE_CHECKING:
    from shoal._net.connection import Connection
    from shoal._owner.process import Process


class _RemoteWatcher:
    """A borrower that asked for a value before there was one."""

    __slots__ = ("_borrowing", "_worker_id")

    def __init__(self, borrowing: Borrowing, worker_id: bytes) -> None:
        self._borrowing = borrowing
        self._worker_id = worker_id

    def ready(self, entry: ObjectEntry) -> None:
        self._borrowing.send_value(self._worker_id, entry)


class Borrowing:
    """The reference protocol of one process. Callers hold its lock unless a method says otherwise."""

    def __init__(self, process: Process, waiting: Waiting) -> None:
        self._process = process
        self._waiting = waiting
        self._requests = itertools.count(1)
        self._unacknowledged: dict[int, bytes] = {}
        self._after_acks: deque[tuple[bytes, Message]] = deque()

    # -- references that arrive -----------------------------------------------------------------------

    def restore(self, object_id: bytes, owner: WorkerAddress) -> ObjectRef[Any]:
        """The reference to an object named in a pickle. The caller registers it later if ``owner`` is another."""
        table = self._process.table
        if owner.worker_id == self._process.worker_id:
            entry = table.entries.get(object_id)
            if entry is None:
                entry = ObjectEntry(object_id)
                table.entries[object_id] = entry
                self._waiting.fail(entry, exceptions.ObjectLostError(object_id.hex()))
            return table.ref_of(entry)
        ref, _ = table.borrow(object_id, owner)
        return ref

    def unpickled(self, object_id: bytes, owner: bytes) -> ObjectRef[Any]:
        """The reference that a pickle names; ``owner`` is an ``address_key``. Its owner is told of it here or, within
        a serialization of ours, by whoever reads that. Takes the lock itself."""
        entry = self._process.table.entries.get(object_id)
        ref = entry.tracker() if entry is not None and entry.tracker is not None else None
        if ref is None:
            with self._process.lock:
                ref = self.restore(object_id, address_of_key(owner))
        if collected.unpickled is not None:
            collected.unpickled.append(ref)
        elif ref._entry.owner is not None and not ref._entry.registered:
            with self._process.lock:
                self.register([ref])
        return ref

    def adopt(self, contained: list[RefWire]) -> list[ObjectRef[Any]]:
        """References inside a value that was sent to us; its sender has registered us as borrower."""
        refs = []
        for wire in contained:
            ref = self.restore(wire.object_id, wire.owner)
            if ref._entry.owner is not None:
                ref._entry.registered += 1
            refs.append(ref)
        return refs

    def register(self, refs: Iterable[ObjectRef[Any]]) -> None:
        """Tell the owners that we hold these, where they do not know yet."""
        by_owner: dict[bytes, tuple[WorkerAddress, list[bytes]]] = {}
        for ref in refs:
            entry = ref._entry
            if entry.owner is not None and not entry.registered:
                entry.registered = 1
                by_owner.setdefault(entry.owner.worker_id, (entry.owner, []))[1].append(entry.object_id)
        for owner, object_ids in by_owner.values():
            self._add(owner, object_ids, self._process.address)

    def _add(self, owner: WorkerAddress, object_ids: list[bytes], borrower: WorkerAddress) -> None:
        request = next(self._requests)
        connection = self._process.peers.connect(owner)
        if connection is None:
            return  # the owner is dead: asking for the value will tell
        self._unacknowledged[request] = owner.worker_id
        connection.send(AddBorrower(request, object_ids, borrower))

    # -- references that leave --------------------------------------------------------------------------

    def lend(self, refs: list[ObjectRef[Any]], receiver: WorkerAddress | None) -> list[RefWire]:
        """References inside a value about to be sent to ``receiver``, which becomes their borrower."""
        wires = []
        elsewhere: dict[bytes, tuple[WorkerAddress, list[bytes]]] = {}
        for ref in refs:
            entry = ref._entry
            owner = entry.owner
            if owner is None:
                owner = self._process.address
                if receiver is not None and receiver.worker_id != owner.worker_id:
                    self._process.table.add_borrower(entry.object_id, receiver.worker_id)
            elif receiver is not None and receiver.worker_id != owner.worker_id:
                elsewhere.setdefault(owner.worker_id, (owner, []))[1].append(entry.object_id)
            wires.append(RefWire(entry.object_id, owner))
        for owner, object_ids in elsewhere.values():
            assert receiver is not None
            self._add(owner, object_ids, receiver)
        return wires

    def still_borrowed(self, received: list[ObjectRef[Any]], caller_id: bytes) -> list[bytes]:
        """At the end of a task: which of the references that came with its arguments are still held here.

        ``received`` is emptied, so that only others' references count. The caller's own objects are returned, to be
        told in the reply; other owners are told directly.
        """
        entries = [ref._entry for ref in received]
        received.clear()
        mine: list[bytes] = []
        elsewhere: list[ObjectRef[Any]] = []
        for entry in entries:
            ref = entry.tracker() if entry.tracker is not None else None
            if ref is None or entry.owner is None or entry.registered:
                continue
            if entry.owner.worker_id == caller_id:
                entry.registered = 1
                mine.append(entry.object_id)
            else:
                elsewhere.append(ref)
        self.register(elsewhere)
        return mine

    # -- the end of references --------------------------------------------------------------------------

    def collect(self) -> None:
        """Free what nobody holds any more. Takes the lock itself."""
        with self._process.lock:
            freed = self._process.table.collect()
            if freed:
                self.release(freed)

    def release(self, freed: list[ObjectEntry]) -> None:
        """Tell the store and the owners of objects that left the table."""
        #: By the node that holds them.
        stored: dict[bytes, list[bytes]] = {}
        removals: dict[bytes, tuple[list[bytes], list[int]]] = {}
        for entry in freed:
            entry.contained = None
            if entry.owner is not None:
                if entry.state == STORED:
                    self._process.store.uncache([entry.object_id])
                if entry.registered:
                    ids, counts = removals.setdefault(entry.owner.worker_id, ([], []))
                    ids.append(entry.object_id)
                    counts.append(entry.registered)
            elif entry.state == STORED:
                stored.setdefault(entry.node_id, []).append(entry.object_id)
                self._process.lineage.freed(entry.object_id)
            elif entry.lost:
                self._process.lineage.freed(entry.object_id)
            if entry.on_free is not None:
                entry.on_free()
        for node_id, object_ids in stored.items():
            self._process.store.uncache(object_ids)
            self._process.raylets.free(node_id, object_ids)
        for worker_id, (ids, counts) in removals.items():
            self.send_after_acks(worker_id, RemoveBorrower(ids, counts))

    # -- messages -----------------------------------------------------------------------------------

    def send_after_acks(self, worker_id: bytes, message: Message) -> None:
        if self._unacknowledged or self._after_acks:
            self._after_acks.append((worker_id, message))
        else:
            self._process.peers.send(worker_id, message)

    def on_added(self, message: BorrowerAdded) -> None:
        self._unacknowledged.pop(message.request, None)
        self._send_waiting()

    def _send_waiting(self) -> None:
        while self._after_acks and not self._unacknowledged:
            worker_id, message = self._after_acks.popleft()
            self._process.peers.send(worker_id, message)

    def on_add(self, connection: Connection, message: AddBorrower) -> None:
        for object_id in message.object_ids:
            self._process.table.add_borrower(object_id, message.borrower.worker_id)
        # A connection to the borrower is how its death is noticed.
        self._process.peers.connect(message.borrower)
        connection.send(BorrowerAdded(message.request))

    def on_remove(self, connection: Connection, message: RemoveBorrower) -> None:
        freed = []
        for object_id, count in zip(message.object_ids, message.counts, strict=True):
            entry = self._process.table.remove_borrower(object_id, connection.peer_worker_id, count)
            if entry is not None:
                freed.append(entry)
        self.release(freed)

    def on_get(self, connection: Connection, message: GetValue) -> None:
        entry = self._process.table.entries.get(message.object_id)
        if entry is None:
            error = exceptions.ReferenceCountingAssertionError(message.object_id.hex())
            connection.send(ValueReady(message.object_id, Value(ERROR, pickle.dumps(error, 5))))
        elif entry.state != PENDING:
            self.send_value(connection.peer_worker_id, entry)
        else:
            connection.send(ValuePending(message.object_id))
            self._waiting.watch(entry, _RemoteWatcher(self, connection.peer_worker_id))

    def send_value(self, worker_id: bytes, entry: ObjectEntry) -> None:
        contained = None
        if entry.contained:
            receiver = self._process.peers.address_of(worker_id)
            contained = self.lend(entry.contained, receiver)
        value = Value(entry.state, entry.payload, entry.size, entry.node_id, contained)
        self.send_after_acks(worker_id, ValueReady(entry.object_id, value))

    def on_pending(self, message: ValuePending) -> None:
        """Who waits for it here waits for somebody else's work."""
        entry = self._process.table.entries.get(message.object_id)
        if entry is not None:
            entry.unmade = True
        if self._process.lend_cpu is not None:
            self._process.lend_cpu()

    def on_value(self, message: ValueReady) -> None:
        entry = self._process.table.entries.get(message.object_id)
        contained = self.adopt(message.value.contained) if message.value.contained else None
        if entry is not None and entry.state == PENDING:
            self._waiting.settle(entry, message.value, contained)

    def on_peer_died(self, worker_id: bytes, reason: str) -> None:
        for request in [r for r, owner in self._unacknowledged.items() if owner == worker_id]:
            del self._unacknowledged[request]
        self.release(self._process.table.borrower_died(worker_id))
        for entry in list(self._process.table.entries.values()):
            if entry.owner is not None and entry.owner.worker_id == worker_id and entry.state == PENDING:
                self._waiting.fail(entry, owner_died(entry.object_id, entry.owner, reason))
        self._send_waiting()
