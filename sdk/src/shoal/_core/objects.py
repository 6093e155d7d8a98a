"""The objects a process knows: those it owns, and those it borrows.

The owner of an object is the process that made its ``ObjectRef`` by submitting a task or by ``put``. It keeps the
value (small) or where it lies (large), and keeps both until nobody holds a reference:

- in its own process references are counted by Python itself: there is one ``ObjectRef`` instance per object,
  and everything that needs the object (the arguments of a pending task, the references inside another value)
  holds that instance;
- each other process that holds it is a *borrower*, registered before the message that brought the reference
  there is acknowledged, and removed when its instance is gone or its connection ends.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from shoal._core.object_ref import ObjectEntry, ObjectRef, RefTracker
from shoal._wire.value_kinds import PENDING, STORED
from shoal_common.channel.frames import WorkerAddress
from shoal_common.service.story import Story, explained, noted

#: Larger values go to the object store instead of the owner's memory (Ray's max_direct_call_object_size).
MAX_INLINE_BYTES = 100 * 1024
#: How a revived object was "lost".
REVIVED = "It was freed when nobody held a reference to it any more, and a lost object is made of it."


class ObjectTable:
    """All entries of a process. Not thread-safe: the core's lock protects it."""

    def __init__(self) -> None:
        self.entries: dict[bytes, ObjectEntry] = {}
        #: For ``collect``: references that died, told by Python at any moment and from any thread; and objects that
        #: got their value when nobody here held a reference any more.
        self.dropped: deque[RefTracker | ObjectEntry] = deque()
        #: Not of what every call does: its length is for what happens between processes.
        self._story = Story("the objects of this process")

    def create(self, object_id: bytes) -> tuple[ObjectEntry, ObjectRef[Any]]:
        """A new owned object and its reference."""
        entry = self.entries[object_id] = ObjectEntry(object_id)
        return entry, self.track(entry)

    def add(self, entry: ObjectEntry) -> ObjectRef[Any]:
        """A new object; its reference."""
        ref = self.track(entry)
        self.entries[entry.object_id] = entry
        return ref

    def track(self, entry: ObjectEntry) -> ObjectRef[Any]:
        ref: ObjectRef[Any] = ObjectRef(entry)
        tracker = RefTracker(ref, self.dropped.append)
        tracker.object_id = entry.object_id
        entry.tracker = tracker
        return ref

    def ref_of(self, entry: ObjectEntry) -> ObjectRef[Any]:
        """The one instance, made again if it was gone."""
        ref = entry.tracker() if entry.tracker is not None else None
        return self.track(entry) if ref is None else ref

    @noted
    def revive(self, object_id: bytes) -> ObjectRef[Any]:
        """The reference to an object of this process; to one that had gone, as to a lost one."""
        entry = self.entries.get(object_id)
        if entry is None:
            entry = self.entries[object_id] = ObjectEntry(object_id, lost=REVIVED)
        return self.ref_of(entry)

    @noted
    def borrow(self, object_id: bytes, owner: WorkerAddress) -> tuple[ObjectRef[Any], bool]:
        """The reference to somebody else's object, and whether it is new here."""
        entry = self.entries.get(object_id)
        if entry is None:
            entry = ObjectEntry(object_id, owner=owner)
            self.entries[object_id] = entry
            return self.track(entry), True
        alive = entry.tracker is not None and entry.tracker() is not None
        return self.ref_of(entry), not alive

    @explained
    def collect(self) -> list[ObjectEntry]:
        """Free what nobody holds any more, also inside of what is freed. Returns, of what has left the table, all of
        which somebody else is to be told."""
        freed: list[ObjectEntry] = []
        while self.dropped:
            try:
                dropped = self.dropped.popleft()
            except IndexError:
                break  # another thread took the last one
            try:
                entry = self.entries.get(dropped.object_id)
            except AttributeError:
                continue  # ``track`` was interrupted before it had one, and nobody has got that reference
            if entry is None or (dropped is not entry and dropped is not entry.tracker):
                continue  # it has a new reference
            if dropped is not entry:
                entry.tracker = None
            if self._free_if_unused(entry) is not None:
                entry.contained = None  # the trackers of these join the queue
                if entry.owner is not None or entry.state == STORED or entry.lost or entry.on_free is not None:
                    freed.append(entry)
        return freed

    @noted
    def add_borrower(self, object_id: bytes, worker_id: bytes) -> None:
        """Unknown objects are ignored: the borrower's own question for the value tells it."""
        entry = self.entries.get(object_id)
        if entry is not None:
            if entry.borrowers is None:
                entry.borrowers = {}
            entry.borrowers[worker_id] = entry.borrowers.get(worker_id, 0) + 1

    @noted
    def remove_borrower(self, object_id: bytes, worker_id: bytes, count: int) -> ObjectEntry | None:
        """A borrower has let go of so many additions. The entry if the object is to be freed now."""
        entry = self.entries.get(object_id)
        if entry is None or entry.borrowers is None or worker_id not in entry.borrowers:
            return None
        left = entry.borrowers[worker_id] - count
        if left > 0:
            entry.borrowers[worker_id] = left
            return None
        del entry.borrowers[worker_id]
        return self._free_if_unused(entry)

    def lends(self) -> bool:
        """Whether other processes hold objects of this one."""
        return any(entry.borrowers for entry in self.entries.values())

    @noted
    def borrower_died(self, worker_id: bytes) -> list[ObjectEntry]:
        """Every object that only this borrower held, to be freed now."""
        freed = []
        for entry in list(self.entries.values()):
            if entry.borrowers and worker_id in entry.borrowers:
                del entry.borrowers[worker_id]
                if self._free_if_unused(entry) is not None:
                    freed.append(entry)
        return freed

    def settled(self, entry: ObjectEntry) -> None:
        """A pending object has its value now; if nobody waits for it any more, ``collect`` frees it."""
        if entry.tracker is None:
            self.dropped.append(entry)

    def _free_if_unused(self, entry: ObjectEntry) -> ObjectEntry | None:
        if entry.tracker is not None or entry.borrowers:
            return None
        if entry.state == PENDING and entry.owner is None and entry.on_free is None and not entry.lost:
            return None  # its task is still to report, and the entry is dropped then
        self.entries.pop(entry.object_id, None)
        return entry

    def validate(self) -> None:
        """Asserts what must always hold; for tests."""
        dropped = {item.object_id for item in self.dropped}
        for object_id, entry in self.entries.items():
            assert entry.object_id == object_id
            assert entry.state == PENDING or entry.watchers is None, "who waits is told"
            if entry.owner is None:
                assert not entry.registered and not entry.asked
            else:
                assert entry.borrowers is None, "only the owner counts borrowers"
            if entry.lost:
                assert entry.state == PENDING and entry.owner is None, "owners know what is lost"
            if entry.tracker is None and not entry.borrowers and object_id not in dropped:
                assert entry.state == PENDING and entry.owner is None and not entry.lost, "it is kept for its task only"
