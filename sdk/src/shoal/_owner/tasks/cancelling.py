"""``cancel``: by whoever holds a reference, done by the owner of the object, and on to what its task has submitted.

The owner finds the task or call that makes the object. What has not been sent is over at once; whoever was sent it
stops it as far as that can be done (``_executor.cancels``), and with it what it has submitted as an owner itself.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from shoal._core.actors import ActorClient
from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._core.task_record import TaskRecord
from shoal._owner.tasks.actor_submitter import ActorSubmitter
from shoal._owner.tasks.task_submitter import TaskSubmitter
from shoal._wire.peer_frames import CancelObject
from shoal._wire.value_kinds import PENDING
from shoal_common.ids import task_of_object

if TYPE_CHECKING:
    from shoal._owner.process import Process

logger = logging.getLogger("shoal")

NO_FORCE = "force=True is not supported for actor tasks."


class Cancelling:
    """Of one process. Callers hold its lock unless a method says otherwise."""

    def __init__(self, process: Process, tasks: TaskSubmitter, actors: ActorSubmitter) -> None:
        self._process = process
        self._tasks = tasks
        self._actors = actors

    def cancel(self, ref: ObjectRef[Any], force: bool, recursive: bool) -> None:
        """As ``shoal.cancel``. Without the lock."""
        with self._process.lock:
            entry = ref._entry
            if entry.state != PENDING:
                return
            if entry.owner is None:
                self._cancel_object(entry, force, recursive)
                return
            connection = self._process.peers.connect(entry.owner)
            if connection is not None:  # else its owner is dead, which whoever waits for it learns
                connection.send(CancelObject(entry.object_id, force, recursive))

    def on_cancel_object(self, message: CancelObject) -> None:
        """A borrower cancels it."""
        entry = self._process.table.entries.get(message.object_id)
        if entry is None or entry.owner is not None or entry.state != PENDING:
            return
        try:
            self._cancel_object(entry, message.force, message.recursive)
        except ValueError as error:
            logger.warning("Another process cancels ObjectRef(%s) in vain: %s", message.object_id.hex(), error)

    def _cancel_object(self, entry: ObjectEntry, force: bool, recursive: bool) -> None:
        """Raises: ValueError (a call of an actor, with ``force``)."""
        task_id = task_of_object(entry.object_id)
        found = self._tasks.find(task_id) or self._actors.find(task_id)
        if found is not None:
            self._cancel(found[1], force, recursive)

    def _cancel(self, record: TaskRecord, force: bool, recursive: bool) -> None:
        if not isinstance(record.actor, ActorClient):
            self._tasks.cancel(record, force, recursive)
        elif force:
            raise ValueError(f"{NO_FORCE} shoal.kill() ends the actor.")
        else:
            self._actors.cancel(record, recursive)

    def close(self, record: TaskRecord) -> None:
        """A generator that nobody reads any more, and that has not ended: it is ``closing``."""
        self._cancel(record, False, False)

    def children(self, task_id: bytes, force: bool) -> None:
        """What this task, which runs here, has submitted; and so on. ``force`` is for tasks alone."""
        for record in [each for each in self._tasks.records() if each.parent == task_id]:
            self._cancel(record, force, True)
        for record in [each for each in self._actors.records() if each.parent == task_id]:
            self._cancel(record, False, True)
