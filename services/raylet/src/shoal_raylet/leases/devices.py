"""Which devices a holder gets: GPUs, of the node or of a placement group's bundle. Pure.

A *pool* is what one resource name stands for: ``GPU`` the devices of the node, ``GPU_group_<i>_<g>`` those that a
bundle of a placement group has taken of them. Who asks for ``GPU_group_<g>`` gets some of any bundle of the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from shoal_common.placement import bundles
from shoal_common.placement.resources import GRAINS, ResourceSet

#: What is free of each device.
_Pool = dict[str, int]


@dataclass(frozen=True, slots=True)
class Share:
    """What one holder has of one device."""

    #: ``GPU``
    kind: str
    device: str
    grains: int
    #: Where it came from and goes back to; nobody looks there any more when its bundle is gone.
    pool: _Pool


class Devices:
    def __init__(self, ids: Mapping[str, Sequence[str]]) -> None:
        """``ids``: e.g. ``{"GPU": ["0", "1"]}``."""
        self._pools: dict[str, _Pool] = {kind: dict.fromkeys(devices, GRAINS) for kind, devices in ids.items()}

    def offer(self, shares: Iterable[Share], group_id: bytes, index: int) -> None:
        """A bundle that holds these may be used."""
        for share in shares:
            pool = self._pools.setdefault(bundles.bundle_name(share.kind, group_id, index), {})
            pool[share.device] = share.grains

    def withdraw(self, group_id: bytes, index: int) -> None:
        """The bundle is gone."""
        for kind in [name for name in self._pools if name == bundles.plain(name)]:
            self._pools.pop(bundles.bundle_name(kind, group_id, index), None)

    def pick(self, resources: ResourceSet) -> list[Share] | None:
        """Whole devices for whole amounts, one shared device for a fraction; None when there are not enough.

        What is picked is not taken yet.
        """
        picked: list[Share] = []
        if not self._pools:
            return picked
        for kind in resources:
            pools = self._pools_of(kind, resources)
            if not pools:
                continue
            wanted, part = resources[kind], min(resources[kind], GRAINS)
            fitting = [(pool, device) for pool in pools for device, free in pool.items() if free >= part]
            if part < GRAINS:
                # The fullest device that still has room, so that whole ones stay whole.
                fitting.sort(key=lambda at: at[0][at[1]])
            count = -(-wanted // part)
            if len(fitting) < count:
                return None
            picked += [Share(bundles.plain(kind), device, part, pool) for pool, device in fitting[:count]]
        return picked

    def validate(self, held: Iterable[Share]) -> None:
        """``held``: all shares of all holders."""
        taken: dict[tuple[int, str], int] = {}
        for share in held:
            at = id(share.pool), share.device
            taken[at] = taken.get(at, 0) + share.grains
        for name, pool in self._pools.items():
            for device, free in pool.items():
                assert free >= 0, f"{name} {device} is shared out twice"
                whole = free + taken.get((id(pool), device), 0)
                assert name != bundles.plain(name) or whole == GRAINS, f"a part of {name} {device} is lost"

    def _pools_of(self, name: str, resources: ResourceSet) -> list[_Pool]:
        """Where the devices for this resource come from. What runs in a certain bundle asks for the group's too: those
        are the same devices."""
        if name in self._pools:
            return [self._pools[name]]
        in_group = [each for each in self._pools if bundles.in_any_bundle(each) == name]
        return [] if any(each in resources for each in in_group) else [self._pools[each] for each in in_group]


def take(shares: Iterable[Share]) -> None:
    for share in shares:
        share.pool[share.device] -= share.grains


def give_back(shares: Iterable[Share]) -> None:
    for share in shares:
        share.pool[share.device] += share.grains
