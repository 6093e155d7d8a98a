"""Where objects can be had whose home cannot tell any more: in blobs, and as copies that have become the primary ones.

Both come in *batches*, one row each: the objects fused in one blob, or those that one node reports together. A batch
goes with its last object, and with its job; a batch of copies also with its node.

When a node dies, those that have copies of its objects report them. Until all of them have, or for a while, an object
that is not found may still turn up.

Pure: takes the time (monotonic seconds), keeps no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable
from dataclasses import dataclass

from shoal_common.service.story import Story, explained, noted

#: A node that has not reported its copies by then has none, in seconds. Mostly all report at once; but one that has
#: missed the event of the death learns of it when it reads the list of nodes the next time, up to 40 s later.
REPORTS_WITHIN_S = 60.0
#: Reports that an earlier GCS has not taken any more are repeated within this time, in seconds.
REPORTS_AGAIN_WITHIN_S = 10.0
#: Freed objects that are remembered, for reports of copies that come after that.
FREED_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Location:
    """A node that has the object, or else a blob."""

    node_id: bytes = b""
    blob_key: str = ""
    offset: int = 0
    size: int = 0
    #: In a blob: the owner's, for its row.
    owner_id: bytes = b""
    #: In a blob: where its owner is, if the node that wrote the blob could tell.
    owner_node_id: bytes = b""


@dataclass(slots=True)
class Batch:
    row_id: str
    job_id: bytes
    #: The node that wrote the blob, or has the copies.
    node_id: bytes
    #: Empty = copies.
    blob_key: str
    objects: dict[bytes, Location]


@dataclass(frozen=True, slots=True)
class Freed:
    #: Batches that have no objects any more.
    batches: list[Batch]
    #: Batches that have fewer objects now.
    shrunk: list[Batch]
    #: Node id -> the copies there.
    copies: dict[bytes, list[bytes]]


class LocationTable:
    def __init__(self) -> None:
        self._blobs: dict[str, Batch] = {}
        self._copies: dict[str, Batch] = {}
        self._by_object: dict[bytes, list[Batch]] = {}
        #: Dead node -> the nodes that have not reported yet, and until when they are waited for.
        self._awaited: dict[bytes, tuple[set[bytes], float]] = {}
        self._taking_over_until = 0.0
        #: The longest freed first.
        self._freed: OrderedDict[bytes, None] = OrderedDict()
        self._story = Story("the table of locations")

    def taken_over(self, now: float) -> None:
        """From an earlier GCS, which may have awaited reports."""
        self._taking_over_until = now + REPORTS_AGAIN_WITHIN_S

    @explained
    def add(self, batch: Batch) -> None:
        """A repeat replaces the batch."""
        self._story.note("add", batch.row_id)
        batches = self._of_kind(batch)
        if batch.row_id in batches:
            self._remove(batches[batch.row_id])
        batches[batch.row_id] = batch
        for object_id in batch.objects:
            self._by_object.setdefault(object_id, []).append(batch)

    @noted
    def forget_blob(self, row_id: str) -> bool:
        """Whether it was known."""
        batch = self._blobs.get(row_id)
        if batch is not None:
            self._remove(batch)
        return batch is not None

    def jobs(self) -> set[bytes]:
        return {batch.job_id for batches in (self._blobs, self._copies) for batch in batches.values()}

    def locate(self, object_id: bytes) -> Location | None:
        """A node rather than a blob."""
        locations = [batch.objects[object_id] for batch in self._by_object.get(object_id, ())]
        return max(locations, key=lambda location: bool(location.node_id), default=None)

    @explained
    def free(self, object_ids: Iterable[bytes]) -> Freed:
        copies: dict[bytes, list[bytes]] = {}
        changed: dict[str, Batch] = {}
        for object_id in object_ids:
            self._story.note("free", object_id)
            self._freed[object_id] = None
            for batch in self._by_object.pop(object_id, ()):
                del batch.objects[object_id]
                changed[batch.row_id] = batch
                if not batch.blob_key:
                    copies.setdefault(batch.node_id, []).append(object_id)
        while len(self._freed) > FREED_KEPT:
            self._freed.popitem(last=False)
        empty = [batch for batch in changed.values() if not batch.objects]
        for batch in empty:
            self._remove(batch)
        return Freed(empty, [batch for batch in changed.values() if batch.objects], copies)

    def freed_of(self, object_ids: Iterable[bytes]) -> list[bytes]:
        """Those that were freed a while ago."""
        return [object_id for object_id in object_ids if object_id in self._freed]

    @noted
    def forget_job(self, job_id: bytes) -> list[Batch]:
        return self._remove_all(
            batch for batches in (self._blobs, self._copies) for batch in batches.values() if batch.job_id == job_id
        )

    # --- reports after a death ---

    @noted
    def node_died(self, node_id: bytes, living: Iterable[bytes], now: float) -> list[Batch]:
        """``living``: the others. Returns the copies that it had."""
        for awaited, _ in self._awaited.values():
            awaited.discard(node_id)
        self._awaited[node_id] = (set(living), now + REPORTS_WITHIN_S)
        return self._remove_all(batch for batch in self._copies.values() if batch.node_id == node_id)

    def ownerless(self, living: Container[bytes]) -> list[bytes]:
        """Objects in blobs of nodes that are not ``living``, whose owners have died with these or with other nodes:
        nobody needs them."""
        return [
            object_id
            for batch in self._blobs.values()
            if batch.node_id not in living
            for object_id, location in batch.objects.items()
            if location.owner_node_id and location.owner_node_id not in living
        ]

    def owned_by(self, owner_id: bytes, living: Container[bytes]) -> list[bytes]:
        """Objects of this owner in blobs of nodes that are not ``living``, which free nothing any more."""
        return [
            object_id
            for batch in self._blobs.values()
            if batch.node_id not in living
            for object_id, location in batch.objects.items()
            if location.owner_id == owner_id
        ]

    @noted
    def reported(self, node_id: bytes, home: bytes) -> None:
        """A node has told all copies that it had of a dead home's objects."""
        if home in self._awaited:
            self._awaited[home][0].discard(node_id)

    def is_settled(self, now: float) -> bool:
        """No report is awaited: what is not found is lost."""
        for home in [home for home, (nodes, until) in self._awaited.items() if not nodes or now >= until]:
            del self._awaited[home]
        return not self._awaited and now >= self._taking_over_until

    def awaited(self) -> set[bytes]:
        """The nodes that have not reported yet."""
        return set().union(*(nodes for nodes, _ in self._awaited.values()))

    def validate(self) -> None:
        """For tests: what is always true of it."""
        by_object: dict[bytes, list[str]] = {}
        for is_blob, batches in ((True, self._blobs), (False, self._copies)):
            for row_id, batch in batches.items():
                assert (batch.row_id, bool(batch.blob_key)) == (row_id, is_blob)
                assert batch.objects, "a batch goes with its last object"
                for object_id in batch.objects:
                    by_object.setdefault(object_id, []).append(row_id)
        indexed = {i: sorted(batch.row_id for batch in batches) for i, batches in self._by_object.items()}
        assert indexed == {object_id: sorted(row_ids) for object_id, row_ids in by_object.items()}
        assert len(self._freed) <= FREED_KEPT

    def _of_kind(self, batch: Batch) -> dict[str, Batch]:
        return self._blobs if batch.blob_key else self._copies

    def _remove_all(self, batches: Iterable[Batch]) -> list[Batch]:
        removed = list(batches)
        for batch in removed:
            self._remove(batch)
        return removed

    def _remove(self, batch: Batch) -> None:
        del self._of_kind(batch)[batch.row_id]
        for object_id in batch.objects:
            batches = self._by_object[object_id]
            batches.remove(batch)
            if not batches:
                del self._by_object[object_id]
