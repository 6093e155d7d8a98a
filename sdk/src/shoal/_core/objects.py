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

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from shoal._core.object_ref import ObjectRef, RefTracker
from shoal_common.channel.frames import WorkerAddress

#: Larger values go to the object store instead of the owner's memory (Ray's max_direct_call_object_size).
MAX_INLINE_BYTES = 100 * 1024

PENDING = 0
INLINE = 1  # equals peer_frames.INLINE: ``payload`` is one plain pickle
PACKED = 2
STORED = 3  # in the object store of ``node_id``
ERROR = 4  # ``payload`` is the pickle of an exception


class Watcher(Protocol):
    """Told once, by the leading thread under the core's lock, when an object is no longer pending."""

    def ready(self, entry: ObjectEntry) -> None: ...


class ObjectEntry(msgspec.Struct, gc=False):
    """What this process knows of one object. Not tracked by the garbage collector: a million of them cost
    nothing, and they form no cycles (an immutable value cannot contain its own reference)."""

    object_id: bytes
    state: int = PENDING
    payload: bytes = b""
    size: int = 0
    node_id: bytes = b""
    tracker: RefTracker | None = None
    #: None = this process owns it.
    owner: WorkerAddress | None = None
    #: Worker ids of the processes that hold it, and how often each has been added; owner only.
    borrowers: dict[bytes, int] | None = None
    #: References inside the value, kept alive as long as it.
    contained: list[ObjectRef[Any]] | None = None
    watchers: list[Watcher] | None = None
    #: Borrowed: how often the owner has added us.
    registered: int = 0
    #: Borrowed: the value has been asked for.
    asked: bool = False
    #: Called when the object is freed (actor handles: the last one is gone).
    on_free: Callable[[], None] | None = None


class ObjectTable:
    """All entries of a process. Not thread-safe: the core's lock protects it."""

    def __init__(self, on_gone: Callable[[RefTracker], None]) -> None:
        self.entries: dict[bytes, ObjectEntry] = {}
        self._on_gone = on_gone

    def create(self, object_id: bytes) -> tuple[ObjectEntry, ObjectRef[Any]]:
        """A new owned object and its reference."""
        entry = ObjectEntry(object_id)
        self.entries[object_id] = entry
        return entry, self.track(entry)

    def track(self, entry: ObjectEntry) -> ObjectRef[Any]:
        ref: ObjectRef[Any] = ObjectRef(entry)
        tracker = RefTracker(ref, self._on_gone)
        tracker.object_id = entry.object_id
        entry.tracker = tracker
        return ref

    def ref_of(self, entry: ObjectEntry) -> ObjectRef[Any]:
        """The one instance, made again if it was gone."""
        ref = entry.tracker() if entry.tracker is not None else None
        return self.track(entry) if ref is None else ref

    def borrow(self, object_id: bytes, owner: WorkerAddress) -> tuple[ObjectRef[Any], bool]:
        """The reference to somebody else's object, and whether it is new here."""
        entry = self.entries.get(object_id)
        if entry is None:
            entry = ObjectEntry(object_id, owner=owner)
            self.entries[object_id] = entry
            return self.track(entry), True
        alive = entry.tracker is not None and entry.tracker() is not None
        return self.ref_of(entry), not alive

    def gone(self, tracker: RefTracker) -> ObjectEntry | None:
        """A reference died. The entry if the object is to be freed now, already out of the table."""
        entry = self.entries.get(tracker.object_id)
        if entry is None or entry.tracker is not tracker:
            return None
        entry.tracker = None
        return self._free_if_unused(entry)

    def add_borrower(self, object_id: bytes, worker_id: bytes) -> None:
        """Unknown objects are ignored: the borrower's own question for the value tells it."""
        entry = self.entries.get(object_id)
        if entry is not None:
            if entry.borrowers is None:
                entry.borrowers = {}
            entry.borrowers[worker_id] = entry.borrowers.get(worker_id, 0) + 1

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

    def borrower_died(self, worker_id: bytes) -> list[ObjectEntry]:
        """Every object that only this borrower held, to be freed now."""
        freed = []
        for entry in list(self.entries.values()):
            if entry.borrowers and worker_id in entry.borrowers:
                del entry.borrowers[worker_id]
                if self._free_if_unused(entry) is not None:
                    freed.append(entry)
        return freed

    def settled(self, entry: ObjectEntry) -> ObjectEntry | None:
        """A pending object has its value now; if nobody waits for it any more it is freed at once."""
        return self._free_if_unused(entry)

    def _free_if_unused(self, entry: ObjectEntry) -> ObjectEntry | None:
        if entry.tracker is not None or entry.borrowers:
            return None
        if entry.state == PENDING and entry.owner is None and entry.on_free is None:
            return None  # its task is still to report; settled() comes then
        self.entries.pop(entry.object_id, None)
        return entry
