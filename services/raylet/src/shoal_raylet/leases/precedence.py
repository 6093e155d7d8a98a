"""Which demands of a job come before others of it: those of a higher priority, strictly. Pure.

A demand is outranked while one of a higher priority waits here for the same job. It then gets only what those could not
use: room for as many of them as this node could ever run at once is set aside. Leases that outranked demands hold are
asked back at once, whatever they have had of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from shoal_common.placement.resources import ResourceSet
from shoal_raylet.leases.demand import Demand, Lease


def set_aside(waiting: Iterable[Demand], total: ResourceSet, alone: bool) -> dict[tuple[bytes, int], ResourceSet]:
    """For each demand that is outranked, by its key: what is set aside for those that outrank it.

    ``total``: what the node has. ``alone``: as for ``Demand.grantable``.
    """
    of_job: defaultdict[bytes, list[Demand]] = defaultdict(list)
    for demand in waiting:
        of_job[demand.job_id].append(demand)
    found = {}
    for demands in of_job.values():
        if len({demand.priority for demand in demands}) == 1:
            continue
        needs = [(demand.priority, _needed(demand, total, alone)) for demand in demands]
        for demand in demands:
            if higher := [need for priority, need in needs if priority > demand.priority and need]:
                found[demand.key] = ResourceSet.sum(higher)
    return found


def _needed(demand: Demand, total: ResourceSet, alone: bool) -> ResourceSet:
    grains = demand.resources.grains
    at_once = min((total[name] // amount for name, amount in grains.items()), default=0)
    count = min(demand.grantable(alone), at_once)
    return ResourceSet({name: amount * count for name, amount in grains.items()})


def outranks(waiting: Demand | None, lease: Lease) -> bool:
    return waiting is not None and lease.demand.job_id == waiting.job_id and lease.demand.priority < waiting.priority


def outranked(leases: Sequence[Lease], waiting: Demand, lacking: Collection[str], count: int) -> list[Lease]:
    """Up to ``count`` leases to ask back for ``waiting``, with those that were asked back before: the lowest first.
    ``leases``: whose workers have not lent what they have."""
    helpful = [
        lease for lease in leases if outranks(waiting, lease) and any(lease.demand.resources[name] for name in lacking)
    ]
    left = count - sum(lease.reclaimed for lease in helpful)
    helpful.sort(key=lambda lease: lease.demand.priority)
    return [lease for lease in helpful if not lease.reclaimed][: max(0, left)]
