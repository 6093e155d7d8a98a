"""The blobs that this node is writing: which objects are fused in each, and when it goes on after a failure. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from shoal_raylet.objects.entry import Entry, Spill
from shoal_raylet.objects.pins import SELF

#: Objects are fused into blobs of about this size, in bytes; a quarter of a small store.
BATCH_BYTES = 100 * 1024 * 1024
#: Sections of one blob at most.
MAX_BATCH_OBJECTS = 2000
#: Blobs that are written at the same time, to make room.
MAX_SPILLS = 2
#: After a blob could not be written, spilling pauses this long, in seconds.
RETRY_S = 1.0


class Spills:
    def __init__(self, capacity: int, node_id: bytes, incarnation: int) -> None:
        """``capacity`` of the store, in bytes. Blobs of another ``incarnation`` may still exist."""
        self._batch_bytes = min(BATCH_BYTES, capacity // 4)
        self._suffix = f"{node_id.hex()}/{incarnation:x}-"
        self._under_way: dict[str, tuple[Entry, ...]] = {}
        self._counter = 0
        self._not_before = 0.0
        #: Why the last one failed; empty = it did not.
        self.error = ""
        #: Of which something was ever spilled.
        self.jobs: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._under_way)

    def __contains__(self, entry: Entry) -> bool:
        return any(entry in entries for entries in self._under_way.values())

    @property
    def size(self) -> int:
        """Bytes of the objects that are being written."""
        return sum(entry.size for entries in self._under_way.values() for entry in entries)

    @property
    def promise_room(self) -> bool:
        """Something is being written, with some hope."""
        return bool(self._under_way) and not self.error

    @property
    def retry_at(self) -> float | None:
        """When it may go on after a failure; None: nothing has failed, or something is under way that will tell."""
        return self._not_before if self.error and not self._under_way else None

    def may_begin(self, now: float) -> bool:
        return not self.error or now >= self._not_before

    def begin(self, job_id: bytes, entries: Iterable[Entry]) -> Spill:
        """Write as many of them as one blob takes; they are all of one job. Answered with ``ended``."""
        batch: list[Entry] = []
        size = 0
        for entry in entries:
            batch.append(entry)
            size += entry.size
            if size >= self._batch_bytes or len(batch) == MAX_BATCH_OBJECTS:
                break
        self._counter += 1
        key = f"spill/{job_id.hex()}/{self._suffix}{self._counter:x}"
        self.jobs.add(job_id)
        self._under_way[key] = tuple(batch)
        return Spill(key, tuple(batch))

    def ended(self, key: str, error: str, now: float) -> tuple[Entry, ...]:
        """Its objects. ``error``: why it could not be written, or ""."""
        self.error = error
        if error:
            self._not_before = now + RETRY_S
        return self._under_way.pop(key)

    def validate(self) -> None:
        for key, entries in self._under_way.items():
            assert entries, f"blob {key} is empty"
            assert all(SELF in entry.pins for entry in entries), f"what goes into blob {key} may move meanwhile"
            assert len({entry.job_id for entry in entries}) == 1, f"blob {key} is of several jobs"
