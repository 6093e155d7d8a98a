"""What of the node's logical resources is held, by whom, and which devices. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shoal_common.placement import bundles
from shoal_common.placement.resources import GRAINS, ResourceSet


@dataclass(slots=True)
class Allocation:
    resources: ResourceSet
    #: Grains taken of each device, by resource name.
    device_grains: dict[str, dict[str, int]] = field(default_factory=dict)
    #: Its holder is blocked in ``get`` and has lent its CPU on.
    lent: bool = False

    @property
    def devices(self) -> dict[str, list[str]]:
        """Granted device ids by resource name."""
        return {name: list(taken) for name, taken in self.device_grains.items()}


class ResourceLedger:
    """A holder is a worker lease, an actor or a reservation of bundles; it has at most one allocation."""

    def __init__(self, total: ResourceSet, devices: Mapping[str, Sequence[str]] | None = None) -> None:
        """``devices``: ids of the resources that come as devices, e.g. ``{"GPU": ["0", "1"]}``."""
        self.total = total
        #: ``total`` less everything held and not lent. CPU may be negative: a worker that wakes takes it on credit.
        self.available = total
        self._free_grains = {name: dict.fromkeys(ids, GRAINS) for name, ids in (devices or {}).items()}
        self._held: dict[bytes, Allocation] = {}

    def grow(self, resources: ResourceSet) -> None:
        """The node has more: a bundle was committed."""
        self.total += resources
        self.available += resources

    def shrink(self, resources: ResourceSet) -> None:
        """The node has less; what holders still have of it vanishes when they release it."""
        self.total -= resources
        self.available -= resources

    def can_ever_hold(self, resources: ResourceSet) -> bool:
        return resources.fits_in(self.total)

    def can_hold(self, resources: ResourceSet) -> bool:
        return resources.fits_in(self.available) and self.has_devices(resources)

    def has_devices(self, resources: ResourceSet) -> bool:
        return self._pick_devices(resources) is not None

    def allocation(self, holder: bytes) -> Allocation | None:
        return self._held.get(holder)

    def allocate(self, holder: bytes, resources: ResourceSet) -> Allocation:
        """Raises: ValueError when the holder has an allocation, or the devices do not suffice."""
        picked = self._pick_devices(resources)
        if holder in self._held or picked is None:
            raise ValueError(f"{holder.hex()} cannot be given {resources}")
        for name, taken in picked.items():
            for device, grains in taken.items():
                self._free_grains[name][device] -= grains
        allocation = self._held[holder] = Allocation(resources, picked)
        self.available -= resources
        return allocation

    def release(self, holder: bytes) -> None:
        """Idempotent."""
        allocation = self._held.pop(holder, None)
        if allocation is None:
            return
        for name, taken in allocation.device_grains.items():
            for device, grains in taken.items():
                self._free_grains[name][device] += grains
        given_back = allocation.resources
        self.available += given_back - bundles.cpus(given_back) if allocation.lent else given_back

    def lend_cpu(self, holder: bytes) -> None:
        """The holder waits: others may use its CPU, and only that (a GPU's memory stays occupied). Idempotent."""
        allocation = self._held.get(holder)
        if allocation is not None and not allocation.lent:
            allocation.lent = True
            self.available += bundles.cpus(allocation.resources)

    def take_back_cpu(self, holder: bytes) -> None:
        """It runs on at once, if need be on credit: making it queue for its own CPU could deadlock. Idempotent."""
        allocation = self._held.get(holder)
        if allocation is not None and allocation.lent:
            allocation.lent = False
            self.available -= bundles.cpus(allocation.resources)

    def _pick_devices(self, resources: ResourceSet) -> dict[str, dict[str, int]] | None:
        """Whole devices for whole amounts, one shared device for a fraction; None when there are not enough."""
        picked: dict[str, dict[str, int]] = {}
        for name, free in self._free_grains.items():
            wanted = resources[name]
            if not wanted:
                continue
            if wanted < GRAINS:
                # The fullest device that still has room, so that whole ones stay whole.
                fitting = [device for device, grains in free.items() if grains >= wanted]
                if not fitting:
                    return None
                picked[name] = {min(fitting, key=lambda device: free[device]): wanted}
            else:
                whole = [device for device, grains in free.items() if grains == GRAINS][: -(-wanted // GRAINS)]
                if len(whole) * GRAINS < wanted:
                    return None
                picked[name] = dict.fromkeys(whole, GRAINS)
        return picked
