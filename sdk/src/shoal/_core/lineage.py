"""Lineage: what a process keeps of its tasks so that their stored objects can be made again.

A task is kept when one of its objects lies in a node's object store, for nothing else can be lost: small values are
their owner's. It is kept while one of those objects has references, and while a task is kept that needs one of them as
an argument, so also after nobody holds the object itself any more. What is kept of a task is its record:

- its arguments as they are pickled, and references to what could not be made again: small values, large arguments,
  other processes' objects;
- of stored objects of this process only the ids. Those that have gone meanwhile are made again first; a ``put`` that
  has gone is gone (as in Ray).

Kept tasks take up to ``max_bytes``; beyond that those that ended first are forgotten, and their objects cannot be made
again. A task that may not run once more (``retries_left``) is not kept either; why is remembered in both cases.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Any

from shoal._core.actors import ActorClient
from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._core.task_record import TaskRecord
from shoal._wire.value_kinds import STORED
from shoal_common.ids import task_of_object
from shoal_common.service.story import Story, explained, noted

#: Of what a task takes beside its arguments, as counted; in bytes.
RECORD_BYTES = 1024
#: Ray's ``max_lineage_bytes``.
DEFAULT_MAX_BYTES = 1 << 30


class Unrepeatable(StrEnum):
    """Why an object cannot be made again: keys of ``ObjectReconstructionFailedError.REASON_MESSAGES``."""

    MAX_ATTEMPTS_EXCEEDED = "MAX_ATTEMPTS_EXCEEDED"
    LINEAGE_EVICTED = "LINEAGE_EVICTED"
    PUT = "PUT"
    RETRIES_DISABLED = "RETRIES_DISABLED"


class _Task:
    """One whose objects lie, or lay, in object stores."""

    __slots__ = ("bytes", "dependents", "holds", "needs", "objects", "record", "references", "why_not")

    def __init__(self, objects: Collection[bytes]) -> None:
        #: None = it cannot run again; ``why_not`` tells why.
        self.record: TaskRecord | None = None
        self.why_not = Unrepeatable.LINEAGE_EVICTED
        #: Its objects that have references: stored, lost or on their way.
        self.objects = set(objects)
        #: How many objects of this task are needed by kept ones, each counted for each.
        self.dependents = 0
        #: As the record's, with the id where an object can be made again.
        self.references: list[tuple[int, str, ObjectRef[Any] | bytes]] = []
        #: What could not be made again, and therefore lives on.
        self.holds: list[ObjectRef[Any]] = []
        #: Ids of what can, or of a ``put``.
        self.needs: list[bytes] = []
        self.bytes = 0


class Lineage:
    """Of one process. Not thread-safe: the process's lock protects it."""

    def __init__(self, max_bytes: float = DEFAULT_MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        #: That the kept records take.
        self.bytes = 0
        self._tasks: dict[bytes, _Task] = {}
        #: Those with a record, in the order in which they ended.
        self._repeatable: dict[bytes, _Task] = {}
        #: Tasks that run again.
        self._running: set[bytes] = set()
        self._story = Story("the lineage")

    @explained
    def ended(self, record: TaskRecord, stored: Collection[bytes]) -> None:
        """A task has ended, and has its arguments still; ``stored``: its objects that lie in object stores now and have
        references, or had them a moment ago."""
        task_id = record.push.task_id
        self._running.discard(task_id)
        record.failures = 0
        before = self._tasks.get(task_id)
        if not stored and (before is None or not before.dependents):
            if before is not None:
                self._drop(task_id)
            return
        self._story.note("ended", task_id)
        task = _Task(stored)
        if record.retries_left:
            self._keep(task, record)
        elif record.push.attempt:
            task.why_not = Unrepeatable.MAX_ATTEMPTS_EXCEEDED
        else:
            task.why_not = Unrepeatable.RETRIES_DISABLED
        self._tasks[task_id] = task
        if before is not None:
            task.dependents = before.dependents
            self._forget_record(task_id, before)
        if task.record is not None:
            self._repeatable[task_id] = task
            self.bytes += task.bytes
        while self.bytes > self.max_bytes:
            oldest = next(iter(self._repeatable))
            self._forget_record(oldest, self._tasks[oldest])

    @noted
    def made(self, object_id: bytes) -> None:
        """A task that goes on has stored this object already. Its record comes with ``ended``."""
        task_id = task_of_object(object_id)
        self._running.add(task_id)
        task = self._tasks.get(task_id)
        if task is None:
            self._tasks[task_id] = _Task([object_id])
        else:
            task.objects.add(object_id)

    def objects_of(self, task_id: bytes) -> list[bytes]:
        """Those of its objects in object stores, or lost, that have references."""
        task = self._tasks.get(task_id)
        return [] if task is None else list(task.objects)

    @noted
    def freed(self, object_id: bytes) -> None:
        """An object of this process has no references any more."""
        task_id = task_of_object(object_id)
        task = self._tasks.get(task_id)
        if task is not None:
            task.objects.discard(object_id)
            if not task.objects and not task.dependents and task_id not in self._running:
                self._drop(task_id)

    @noted
    def again(self, object_id: bytes, revive: Callable[[bytes], ObjectRef[Any]]) -> TaskRecord | Unrepeatable | None:
        """An object is lost and wanted: the record to run once more, which is counted as a retry; why there is none; or
        None when it runs already.

        ``revive`` gives the reference to an object of this process, which is lost if it had gone.
        """
        task_id = task_of_object(object_id)
        if task_id in self._running:
            return None
        task = self._tasks.get(task_id)
        if task is None:
            return Unrepeatable.PUT
        record = task.record
        if record is None:
            return task.why_not
        if not record.retry():
            return Unrepeatable.MAX_ATTEMPTS_EXCEEDED
        revived = {need: revive(need) for need in task.needs}
        for need, ref in revived.items():
            needed = self._tasks.get(task_of_object(need))
            if needed is not None and ref._entry.lost:
                needed.objects.add(need)
        record.references = [
            (position, keyword, revived[ref] if isinstance(ref, bytes) else ref)
            for position, keyword, ref in task.references
        ] or None
        record.holds = [*task.holds, *revived.values()] or None
        self._running.add(task_id)
        return record

    def forget_all(self) -> None:
        """The session ends: let go of every record."""
        self._tasks.clear()
        self._repeatable.clear()
        self._running.clear()
        self.bytes = 0

    # -- decisions ------------------------------------------------------------------------------------

    def _keep(self, task: _Task, record: TaskRecord) -> None:
        """Take the record's arguments over. Its own references to them are dropped by whoever calls."""
        task.record = record
        weak: dict[bytes, None] = {}
        task.bytes = RECORD_BYTES + len(record.push.args)
        for ref in record.holds or ():
            entry = ref._entry
            if self._can_be_let_go(entry, record):
                if entry.on_free is None:
                    weak[entry.object_id] = None
            else:
                task.holds.append(ref)
                task.bytes += entry.size if entry.state == STORED else len(entry.payload)
        task.references = [
            (position, keyword, ref._entry.object_id if ref._entry.object_id in weak else ref)
            for position, keyword, ref in record.references or ()
        ]
        task.needs = list(weak)
        for need in task.needs:
            needed = self._tasks.get(task_of_object(need))
            if needed is not None:
                needed.dependents += 1
        record.push.refs = None  # they are resolved anew

    def _can_be_let_go(self, entry: ObjectEntry, record: TaskRecord) -> bool:
        """Keeping lineage keeps no large values: not what its task can make again, nor what the user has ``put``. Nor
        does it keep actors alive."""
        if entry.on_free is not None or (isinstance(record.actor, ActorClient) and entry is record.actor.lifetime):
            return True
        if entry.owner is not None or entry.object_id == record.push.args_object:
            return False
        return entry.state == STORED or bool(entry.lost) or task_of_object(entry.object_id) in self._tasks

    def _forget_record(self, task_id: bytes, task: _Task) -> None:
        """It cannot run again. What it needs goes if nothing else needs it."""
        if self._repeatable.get(task_id) is task:
            del self._repeatable[task_id]
            self.bytes -= task.bytes
        unneeded = self._let_go(task)
        while unneeded:
            unneeded += self._let_go(self._remove(unneeded.pop()))

    def _drop(self, task_id: bytes) -> None:
        """Nobody needs its objects."""
        unneeded = [task_id]
        while unneeded:
            unneeded += self._let_go(self._remove(unneeded.pop()))

    def _remove(self, task_id: bytes) -> _Task:
        task = self._tasks.pop(task_id)
        if self._repeatable.pop(task_id, None) is not None:
            self.bytes -= task.bytes
        return task

    def _let_go(self, task: _Task) -> list[bytes]:
        """Of everything it keeps. Returns the tasks that nobody needs now."""
        unneeded: list[bytes] = []
        for need in task.needs:
            needed_id = task_of_object(need)
            needed = self._tasks.get(needed_id)
            if needed is not None:
                needed.dependents -= 1
                if not needed.objects and not needed.dependents and needed_id not in self._running:
                    unneeded.append(needed_id)
        task.record = None
        task.references, task.holds, task.needs = [], [], []
        return unneeded

    def validate(self) -> None:
        """Asserts what must always hold; for tests."""
        dependents: dict[bytes, int] = {}
        for task in self._tasks.values():
            for need in task.needs:
                needed_id = task_of_object(need)
                dependents[needed_id] = dependents.get(needed_id, 0) + 1
        for task_id, task in self._tasks.items():
            assert task.objects or task.dependents or task_id in self._running, "it is kept for somebody"
            assert task.dependents == dependents.get(task_id, 0)
            assert (task.record is not None) == (task_id in self._repeatable)
            assert task.record is not None or not (task.references or task.holds or task.needs)
            assert all(task_of_object(object_id) == task_id for object_id in task.objects)
        assert self._repeatable.keys() <= self._tasks.keys()
        assert self.bytes == sum(task.bytes for task in self._repeatable.values())
        assert self.bytes <= max(self.max_bytes, 0)
        assert self._running <= self._tasks.keys()
