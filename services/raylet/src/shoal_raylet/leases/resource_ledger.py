"""What of the node's logical resources is held, and by whom. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from shoal_common.placement import bundles
from shoal_common.placement.resources import ResourceSet
from shoal_common.service.story import Story, noted
from shoal_raylet.leases.devices import Devices, Share, give_back, take


@dataclass(slots=True)
class Allocation:
    resources: ResourceSet
    shares: list[Share]
    #: Its holder is blocked in ``get`` and has lent its CPU on.
    lent: bool = False

    @property
    def devices(self) -> dict[str, list[str]]:
        """Granted device ids by kind."""
        ids: dict[str, list[str]] = {}
        for share in self.shares:
            ids.setdefault(share.kind, []).append(share.device)
        return ids


class ResourceLedger:
    """A holder is a worker lease, an actor or a prepared bundle; it has at most one allocation."""

    def __init__(self, total: ResourceSet, devices: Mapping[str, Sequence[str]] | None = None) -> None:
        """``devices``: ids of the resources that come as devices, e.g. ``{"GPU": ["0", "1"]}``."""
        self._story = Story("the resource ledger")
        self.total = total
        #: In grains; and as ``available``, while that is as it was: a large group changes it once for each bundle, and
        #: gives it many names.
        self._free = dict(total.grains)
        self._available: ResourceSet | None = total
        self.devices = Devices(devices or {})
        self._held: dict[bytes, Allocation] = {}
        #: What is set aside of what is or becomes free, by for whom.
        self._set_aside: dict[bytes, ResourceSet] = {}

    @property
    def available(self) -> ResourceSet:
        """``total`` less everything held and not lent. CPU may be negative: a worker that wakes takes it on credit."""
        if self._available is None:
            self._available = ResourceSet(self._free)
        return self._available

    def _add(self, resources: ResourceSet, sign: int = 1) -> None:
        """To what is free."""
        free = self._free
        for name, grains in resources.grains.items():
            left = free.get(name, 0) + sign * grains
            if left:
                free[name] = left
            else:
                free.pop(name, None)
        self._available = None

    @noted
    def grow(self, resources: ResourceSet) -> None:
        """The node has more: a bundle was committed."""
        self.total += resources
        self._add(resources)

    @noted
    def shrink(self, resources: ResourceSet) -> None:
        """The node has less; what holders still have of it vanishes when they release it."""
        self.total -= resources
        self._add(resources, -1)

    def can_ever_hold(self, resources: ResourceSet) -> bool:
        return resources.fits_in(self.total)

    def can_hold(self, resources: ResourceSet) -> bool:
        """Now, without what is set aside."""
        return resources.fits_in(self.unclaimed) and self.has_devices(resources)

    def has_devices(self, resources: ResourceSet) -> bool:
        return self.devices.pick(resources) is not None

    def gpus_for(self, resources: ResourceSet) -> tuple[str, ...]:
        """Ids of those that a holder of this would be given now, sorted."""
        return tuple(sorted({share.device for share in self.devices.pick(resources) or () if share.kind == "GPU"}))

    def allocation(self, holder: bytes) -> Allocation | None:
        return self._held.get(holder)

    def held_of(self, resource: str) -> Iterator[tuple[bytes, int]]:
        """Who holds how much of it, in grains; without what is lent."""
        for holder, allocation in self._held.items():
            held = allocation.resources
            if grains := (held - bundles.cpus(held) if allocation.lent else held)[resource]:
                yield holder, grains

    @noted
    def set_aside(self, claimant: bytes, resources: ResourceSet) -> None:
        """So much of what is free, or becomes free, is for nobody else. The last word counts; nothing = no longer."""
        if resources:
            self._set_aside[claimant] = resources
        else:
            self._set_aside.pop(claimant, None)

    @property
    def claims(self) -> Collection[ResourceSet]:
        """What is set aside, as far as it is free."""
        return self._set_aside.values()

    @property
    def unclaimed(self) -> ResourceSet:
        """What is free for anybody.

        What a holder has lent while it waits is not set aside: what it waits for may need it.
        """
        if not self._set_aside:
            return self.available
        claimed = ResourceSet.sum(self._set_aside.values())
        lent = ResourceSet.sum(bundles.cpus(each.resources) for each in self._held.values() if each.lent)
        unheld = self.available - lent
        return self.available - ResourceSet({name: max(0, min(claimed[name], unheld[name])) for name in claimed})

    @noted
    def allocate(self, holder: bytes, resources: ResourceSet) -> Allocation:
        """Raises: ValueError when the holder has an allocation, or the devices do not suffice."""
        shares = self.devices.pick(resources)
        if holder in self._held or shares is None:
            raise ValueError(f"{holder.hex()} cannot be given {resources}")
        take(shares)
        allocation = self._held[holder] = Allocation(resources, shares)
        self._add(resources, -1)
        return allocation

    @noted
    def release(self, holder: bytes) -> None:
        """Idempotent."""
        allocation = self._held.pop(holder, None)
        if allocation is None:
            return
        give_back(allocation.shares)
        given_back = allocation.resources
        self._add(given_back - bundles.cpus(given_back) if allocation.lent else given_back)

    @noted
    def lend_cpu(self, holder: bytes) -> None:
        """The holder waits: others may use its CPU, and only that (a GPU's memory stays occupied). Idempotent."""
        allocation = self._held.get(holder)
        if allocation is not None and not allocation.lent:
            allocation.lent = True
            self._add(bundles.cpus(allocation.resources))

    @noted
    def take_back_cpu(self, holder: bytes) -> None:
        """It runs on at once, if need be on credit: making it queue for its own CPU could deadlock. Idempotent."""
        allocation = self._held.get(holder)
        if allocation is not None and allocation.lent:
            allocation.lent = False
            self._add(bundles.cpus(allocation.resources), -1)

    def validate(self) -> None:
        held = ResourceSet.sum(allocation.resources for allocation in self._held.values())
        lent = ResourceSet.sum(bundles.cpus(a.resources) for a in self._held.values() if a.lent)
        assert (self.total - held + lent).grains == self.available.grains, "what is free, and what nobody holds"
        self.devices.validate(share for allocation in self._held.values() for share in allocation.shares)
