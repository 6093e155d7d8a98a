"""Bundles of placement groups on this node: prepared, committed, given back. Pure.

What is prepared only holds its resources. Committed, it is resources of the node under names of its own
(``shoal_common.placement.bundles``), for which leases and actors compete as for any other. What is prepared and not
committed in time is given up: the GCS that has prepared it is gone, and the next one does not know of it.

For a group that waits, what becomes free may be set aside before it is enough. That too ends by itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from shoal_common.ids import PLACEMENT_GROUP_LENGTH
from shoal_common.placement import bundles
from shoal_common.placement.resources import ResourceSet
from shoal_common.service.story import Story, explained, noted
from shoal_raylet.leases.resource_ledger import ResourceLedger

#: Between prepare and commit, in seconds; a GCS that takes over from another one does so in less.
COMMIT_WITHIN_S = 30.0
#: Removed groups that are remembered.
REMOVED_KEPT = 1_000


@dataclass(slots=True)
class _Reservation:
    group_id: bytes
    reservation_id: bytes
    bundles: Mapping[int, ResourceSet]
    prepared_at: float
    committed: bool = False

    def holder(self, index: int) -> bytes:
        """As what one of its bundles is known to the ledger."""
        return self.group_id + self.reservation_id + index.to_bytes(4)


def group_of(holder: bytes) -> bytes | None:
    """Whose bundle the ledger knows by that; None = it is no bundle's."""
    return holder[:PLACEMENT_GROUP_LENGTH] if len(holder) > PLACEMENT_GROUP_LENGTH else None


class BundleReservations:
    def __init__(self, ledger: ResourceLedger) -> None:
        self._story = Story("bundles on this node")
        self._ledger = ledger
        #: By group and reservation id.
        self._reservations: dict[tuple[bytes, bytes], _Reservation] = {}
        #: What is set aside for a group, and until when.
        self._awaited: dict[bytes, tuple[ResourceSet, float]] = {}
        #: Those of which all was given back, the oldest first: what is still said of them is old.
        self._removed: OrderedDict[bytes, None] = OrderedDict()

    @noted
    def prepare(
        self, group_id: bytes, reservation_id: bytes, wanted: Mapping[int, ResourceSet], now: float
    ) -> dict[str, float]:
        """Hold what the bundles need, all or none; returns what the node lacks for them, in units. Idempotent."""
        key = (group_id, reservation_id)
        if key in self._reservations:
            return {}
        if group_id in self._removed:
            return sum(wanted.values(), ResourceSet()).to_units()
        for other_key, other in list(self._reservations.items()):
            if other.group_id == group_id and not other.committed and other.bundles.keys() & wanted.keys():
                self._drop(other_key)
        need = ResourceSet.sum(wanted.values())
        if missing := need.missing_from(self._ledger.available):
            return missing
        reservation = _Reservation(group_id, reservation_id, dict(wanted), now)
        for index, resources in wanted.items():
            if not self._ledger.has_devices(resources):
                self._release(reservation)
                return need.to_units()
            self._ledger.allocate(reservation.holder(index), resources)
        self._reservations[key] = reservation
        self._set_aside(group_id)
        return {}

    @noted
    def commit(self, group_id: bytes, reservation_id: bytes) -> bool:
        """Make them usable; False = they are not held here (any more). Idempotent."""
        reservation = self._reservations.get((group_id, reservation_id))
        if reservation is None:
            return False
        if not reservation.committed:
            reservation.committed = True
            self._ledger.grow(_offered(reservation))
            for index in reservation.bundles:
                allocation = self._ledger.allocation(reservation.holder(index))
                assert allocation is not None
                self._ledger.devices.offer(allocation.shares, group_id, index)
        self.await_room(group_id, ResourceSet(), 0.0)
        return True

    @noted
    def await_room(self, group_id: bytes, need: ResourceSet, until: float) -> None:
        """Set aside so much of what becomes free; nothing = no longer. The last word counts."""
        self._awaited.pop(group_id, None)
        if need:
            self._awaited[group_id] = need, until
        self._set_aside(group_id)

    @noted
    def give_back(self, group_id: bytes, reservation_id: bytes) -> None:
        """An empty ``reservation_id``: all of the group. Idempotent."""
        for key in list(self._reservations):
            if key[0] == group_id and reservation_id in (b"", key[1]):
                self._drop(key)
        if not reservation_id:
            self.await_room(group_id, ResourceSet(), 0.0)
            self._removed[group_id] = None
            if len(self._removed) > REMOVED_KEPT:
                self._removed.popitem(last=False)

    @explained
    def tick(self, now: float) -> None:
        """Give up what has waited for too long."""
        for key, reservation in list(self._reservations.items()):
            if not reservation.committed and now - reservation.prepared_at >= COMMIT_WITHIN_S:
                self._drop(key)
        for group_id in [group_id for group_id, (_, until) in self._awaited.items() if now >= until]:
            self.await_room(group_id, ResourceSet(), 0.0)

    def next_deadline(self) -> float | None:
        deadlines = [until for _, until in self._awaited.values()]
        deadlines += [r.prepared_at + COMMIT_WITHIN_S for r in self._reservations.values() if not r.committed]
        return min(deadlines, default=None)

    def validate(self) -> None:
        for reservation in self._reservations.values():
            for index in reservation.bundles:
                assert self._ledger.allocation(reservation.holder(index)) is not None, "a bundle that holds nothing"

    def _drop(self, key: tuple[bytes, bytes]) -> None:
        reservation = self._reservations.pop(key)
        if reservation.committed:
            self._ledger.shrink(_offered(reservation))
            for index in reservation.bundles:
                self._ledger.devices.withdraw(reservation.group_id, index)
        self._release(reservation)
        self._set_aside(reservation.group_id)

    def _set_aside(self, group_id: bytes) -> None:
        """What is prepared needs not be set aside any more."""
        need, _ = self._awaited.get(group_id, (ResourceSet(), 0.0))
        for reservation in self._reservations.values():
            if reservation.group_id == group_id and not reservation.committed:
                need -= ResourceSet.sum(reservation.bundles.values())
        self._ledger.set_aside(group_id, ResourceSet({name: need[name] for name in need if need[name] > 0}))

    def _release(self, reservation: _Reservation) -> None:
        for index in reservation.bundles:
            self._ledger.release(reservation.holder(index))


def _offered(reservation: _Reservation) -> ResourceSet:
    return ResourceSet.sum(
        bundles.offered(resources, reservation.group_id, index) for index, resources in reservation.bundles.items()
    )
