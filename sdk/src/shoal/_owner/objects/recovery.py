"""Objects whose copies are lost are made again: does what ``_core/lineage`` decides.

An object is lost when neither its home, nor a node with a copy, nor a blob has it: raylets tell whoever asks for it.
It becomes pending again, and *lost*: nothing happens before somebody wants it. Whoever waits for an object that is
pending wants it (``Waiting.watch``: get, wait, a call that has it as an argument, a borrower that asks), and the first
one has its task run again, which waits for its own arguments in the same way. So all is done once, however many
wait, and nothing that nobody wants.

Only the owner decides. A borrower that does not find the object where the owner said tells it so (``ValueLost``), and
gets the value when there is one again. A worker that does not find an argument of a task answers that it has not
begun: the task gives its lease up meanwhile, which the tasks that make the argument may need. An argument of an actor's
call is waited for in place, as the calls keep their order.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal import exceptions
from shoal._core.lineage import Unrepeatable
from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._core.task_record import TaskRecord
from shoal._net.gcs.errors import ClientClosed
from shoal._owner.objects.borrowing import Borrowing
from shoal._owner.objects.waiting import UNREACHED, Waiting, owner_died
from shoal._wire.peer_frames import GetValue, Value, ValueLost
from shoal._wire.value_kinds import PENDING, STORED

#: The GCS is asked so often for what was lost with a node, and after such pauses where it does not know yet. Seconds.
_ASKED_AGAIN = 10
_ASK_AGAIN_S = 1.0
#: Objects in one question at most.
_ASKED_TOGETHER = 50_000

logger = logging.getLogger("shoal")

if TYPE_CHECKING:
    from shoal._net.connection import Connection
    from shoal._owner.process import Process


class Recovery:
    """Of one process. Callers hold its lock."""

    #: Runs a task or call once more.
    run_again: Callable[[TaskRecord], None]

    def __init__(self, process: Process, waiting: Waiting, borrowing: Borrowing) -> None:
        self._process = process
        self._waiting = waiting
        self._borrowing = borrowing
        waiting.recovery = self
        self._wanted: deque[ObjectEntry] = deque()
        self._at_work = False

    def lost(self, entry: ObjectEntry, home: bytes, how: str) -> None:
        """It was not to be had, and its home should have been ``home``: unless that was old news, it is pending now."""
        if entry.state != STORED or entry.node_id != home:
            return
        process = self._process
        process.store.forget(entry.object_id)
        entry.state, entry.node_id, entry.contained = PENDING, b"", None
        if entry.owner is None:
            entry.lost = how
            if process.raylets.reaches(home):
                process.raylets.free(home, [entry.object_id])  # in case it turns up there all the same
            return
        entry.asked = True
        connection = process.peers.connect(entry.owner)
        if connection is None:
            self._waiting.fail(entry, owner_died(entry.object_id, entry.owner, UNREACHED))
        else:
            connection.send(ValueLost(entry.object_id, home, how))

    def wanted(self, entry: ObjectEntry) -> None:
        """Somebody waits for a lost object. What its task needs is wanted then: a long chain, one after the other."""
        self._wanted.append(entry)
        if self._at_work:
            return
        self._at_work = True
        try:
            while self._wanted:
                self._recover(self._wanted.popleft())
        finally:
            self._at_work = False

    def _recover(self, entry: ObjectEntry) -> None:
        if not entry.lost:
            return
        process = self._process
        how, entry.lost = entry.lost, ""
        decision = process.lineage.again(entry.object_id, process.table.revive)
        if isinstance(decision, Unrepeatable):
            process.lineage.freed(entry.object_id)
            message = f"{exceptions.ObjectReconstructionFailedError.REASON_MESSAGES[decision]} {how}"
            error = exceptions.ObjectReconstructionFailedError(entry.object_id.hex(), decision.value, message)
            self._waiting.fail(entry, error)
        elif decision is not None:
            self._make_again(decision)

    def _make_again(self, record: TaskRecord) -> None:
        entries = self._process.table.entries
        for index, made in enumerate(record.entries):
            now = entries.get(made.object_id)
            if now is not None:
                record.entries[index] = now  # another one, if it had gone meanwhile
                now.lost = ""
        self.run_again(record)

    def on_node_lost(self, node_id: bytes, reason: str) -> None:
        """A node is dead: which of this process's objects are lost with it is asked once, instead of each being looked
        for by whoever needs it."""
        there = [
            entry.object_id
            for entry in self._process.table.entries.values()
            if entry.state == STORED and entry.node_id == node_id and entry.owner is None
        ]
        how = f"Its home, node {node_id.hex()}, has left the cluster ({reason}), and nothing else has it."
        for start in range(0, len(there), _ASKED_TOGETHER):
            self._ask(there[start : start + _ASKED_TOGETHER], node_id, how, _ASKED_AGAIN)

    def _ask(self, object_ids: list[bytes], home: bytes, how: str, again: int) -> None:
        def answered(lost: list[bytes] | None, error: Exception | None) -> None:
            with self._process.lock:
                if self._process.closed:
                    return
                if lost is None:
                    if again:
                        self._process.reactor.call_later(_ASK_AGAIN_S, ask_again)
                    else:
                        logger.info("The GCS does not tell which objects are lost: %s. Whoever needs them sees", error)
                    return
                for object_id in lost:
                    entry = self._process.table.entries.get(object_id)
                    if entry is not None:
                        self.lost(entry, home, how)

        def ask_again() -> None:
            with self._process.lock:
                if not self._process.closed:
                    self._ask(object_ids, home, how, again - 1)

        try:
            self._process.gcs.objects.begin_find_lost(object_ids, answered)
        except (ClientClosed, exceptions.LocalRayletDiedError):
            return  # the session, or this node, has ended

    def spare(self, entry: ObjectEntry, value: Value, contained: list[ObjectRef[Any]] | None) -> None:
        """Its task ran again for the sake of another one of its objects, and has made this one anew, too."""
        if value.kind != STORED or (value.node_id == entry.node_id and entry.state == STORED):
            return  # it was overwritten in place, if at all
        raylets = self._process.raylets
        unneeded = value.node_id
        if entry.state == STORED and not raylets.reaches(entry.node_id):
            # Its home is gone: the new one is better than what may be left of it.
            unneeded, entry.node_id, entry.contained = entry.node_id, value.node_id, contained
            raylets.open(value.node_id)
        raylets.free(unneeded, [entry.object_id])

    def ended(self, record: TaskRecord) -> None:
        """Its objects have their values, or errors; it has its arguments still."""
        entries = self._process.table.entries
        stored = [
            made.object_id for made in record.entries if made.state == STORED and entries.get(made.object_id) is made
        ]
        if record.stream is None:
            self._process.lineage.ended(record, stored)
            return
        items = [entries[item] for item in self._process.lineage.objects_of(record.push.task_id) if item in entries]
        stored += [item.object_id for item in items if item.state == STORED or item.lost]
        self._process.lineage.ended(record, stored)
        for item in items:
            if item.lost and item.watchers:
                self.wanted(item)

    def on_lost(self, connection: Connection, message: ValueLost) -> None:
        """A borrower has not found it, and asks for the value."""
        entry = self._process.table.entries.get(message.object_id)
        if entry is not None and entry.owner is None:
            self.lost(entry, message.home, message.how)
        self._borrowing.on_get(connection, GetValue(message.object_id))
