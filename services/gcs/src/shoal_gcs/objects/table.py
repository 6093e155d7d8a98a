"""Where objects can be had whose home cannot tell any more: in blobs, and as copies that have become the primary ones.

Both come in *groups*, one row each: the objects fused in one blob, or those that one node reports together. A group
goes with its last object, and with its job; a group of copies also with its node.

When a node dies, those that have copies of its objects report them. Until all of them have, or for a while, an object
that is not found may still turn up.

Pure: takes the time (monotonic seconds), keeps no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

#: A node that has not reported its copies by then has none, in seconds. Mostly all report at once; but one that has
#: missed the event of the death learns of it when it reads the list of nodes the next time, up to 40 s later.
REPORTS_WITHIN_S = 60.0
#: Reports that an earlier GCS has not taken any more are repeated within this time, in seconds.
REPORTS_AGAIN_WITHIN_S = 10.0
#: Freed objects that are remembered, for reports of copies that come after that.
FREED_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """A node that has the object, or else a blob."""

    node_id: bytes = b""
    blob_key: str = ""
    offset: int = 0
    size: int = 0


@dataclass(slots=True)
class Group:
    row_id: str
    job_id: bytes
    #: The node that wrote the blob, or has the copies.
    node_id: bytes
    #: Empty = copies.
    blob_key: str
    objects: dict[bytes, Place]


@dataclass(frozen=True, slots=True)
class Freed:
    #: Groups that have no objects any more.
    groups: list[Group]
    #: Groups that have fewer objects now.
    shrunk: list[Group]
    #: Node id -> the copies there.
    copies: dict[bytes, list[bytes]]


class ObjectTable:
    def __init__(self) -> None:
        self._blobs: dict[str, Group] = {}
        self._copies: dict[str, Group] = {}
        self._by_object: dict[bytes, list[Group]] = {}
        #: Dead node -> the nodes that have not reported yet, and until when they are waited for.
        self._awaited: dict[bytes, tuple[set[bytes], float]] = {}
        self._taking_over_until = 0.0
        #: The longest freed first.
        self._freed: OrderedDict[bytes, None] = OrderedDict()

    def taken_over(self, now: float) -> None:
        """From an earlier GCS, which may have awaited reports."""
        self._taking_over_until = now + REPORTS_AGAIN_WITHIN_S

    def add(self, group: Group) -> None:
        """A repeat replaces the group."""
        groups = self._of_kind(group)
        if group.row_id in groups:
            self._remove(groups[group.row_id])
        groups[group.row_id] = group
        for object_id in group.objects:
            self._by_object.setdefault(object_id, []).append(group)

    def forget_blob(self, row_id: str) -> bool:
        """Whether it was known."""
        group = self._blobs.get(row_id)
        if group is not None:
            self._remove(group)
        return group is not None

    def jobs(self) -> set[bytes]:
        return {group.job_id for groups in (self._blobs, self._copies) for group in groups.values()}

    def locate(self, object_id: bytes) -> Place | None:
        """A node rather than a blob."""
        places = [group.objects[object_id] for group in self._by_object.get(object_id, ())]
        return max(places, key=lambda place: bool(place.node_id), default=None)

    def free(self, object_ids: Iterable[bytes]) -> Freed:
        copies: dict[bytes, list[bytes]] = {}
        changed: dict[str, Group] = {}
        for object_id in object_ids:
            self._freed[object_id] = None
            for group in self._by_object.pop(object_id, ()):
                del group.objects[object_id]
                changed[group.row_id] = group
                if not group.blob_key:
                    copies.setdefault(group.node_id, []).append(object_id)
        while len(self._freed) > FREED_KEPT:
            self._freed.popitem(last=False)
        empty = [group for group in changed.values() if not group.objects]
        for group in empty:
            self._remove(group)
        return Freed(empty, [group for group in changed.values() if group.objects], copies)

    def freed_of(self, object_ids: Iterable[bytes]) -> list[bytes]:
        """Those that were freed a while ago."""
        return [object_id for object_id in object_ids if object_id in self._freed]

    def forget_job(self, job_id: bytes) -> list[Group]:
        return self._remove_all(
            group for groups in (self._blobs, self._copies) for group in groups.values() if group.job_id == job_id
        )

    # --- reports after a death ---

    def node_died(self, node_id: bytes, living: Iterable[bytes], now: float) -> list[Group]:
        """The copies that it had."""
        for awaited, _ in self._awaited.values():
            awaited.discard(node_id)
        self._awaited[node_id] = (set(living) - {node_id}, now + REPORTS_WITHIN_S)
        return self._remove_all(group for group in self._copies.values() if group.node_id == node_id)

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

    def _of_kind(self, group: Group) -> dict[str, Group]:
        return self._blobs if group.blob_key else self._copies

    def _remove_all(self, groups: Iterable[Group]) -> list[Group]:
        removed = list(groups)
        for group in removed:
            self._remove(group)
        return removed

    def _remove(self, group: Group) -> None:
        del self._of_kind(group)[group.row_id]
        for object_id in group.objects:
            groups = self._by_object[object_id]
            groups.remove(group)
            if not groups:
                del self._by_object[object_id]
