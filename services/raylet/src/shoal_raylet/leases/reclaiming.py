"""Which leases are asked back from their owners, for the sake of one that waits. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from shoal_raylet.leases.demand import Demand, Lease

#: While others wait, a lease may be held this long before it is asked back, in seconds.
QUANTUM_S = 0.1


def to_reclaim(
    leases: Sequence[Lease],
    is_blocked: Callable[[Lease], bool],
    lacking: Collection[str],
    count: int,
    job_id: bytes,
    waiting: Demand | None,
    now: float,
) -> list[Lease]:
    """Up to ``count`` of the leases that have of what is ``lacking``, until nobody holds more than the one that waits;
    with those that were asked back before. A worker that ``is_blocked`` has lent what it has already.

    ``waiting`` None: an actor of no job, for which anybody gives way. Shares are counted in leases: between jobs by all
    that a job holds, by its weight, within a job by scheduling class; there, who has a higher priority gives nothing.
    """
    by_job = Counter(lease.demand.job_id for lease in leases if not lease.reclaimed)
    by_demand = Counter(id(lease.demand) for lease in leases if not lease.reclaimed)
    helpful = [
        lease
        for lease in leases
        if lease.demand is not waiting
        and any(lease.demand.resources[name] for name in lacking)
        and not is_blocked(lease)
        and not (waiting is not None and lease.demand.job_id == job_id and lease.demand.priority > waiting.priority)
    ]
    helpful.sort(key=lambda lease: (-by_job[lease.demand.job_id], -by_demand[id(lease.demand)]))
    asked = sum(lease.reclaimed for lease in helpful)
    chosen: list[Lease] = []
    for lease in helpful:
        if lease.reclaimed or now - lease.granted_at < QUANTUM_S or asked >= count:
            continue
        theirs, ours = by_job[lease.demand.job_id], by_job[job_id]
        if lease.demand.job_id == job_id:
            theirs, ours = by_demand[id(lease.demand)], by_demand[id(waiting)]
        # What was asked back will be ours.
        if waiting is None or theirs / lease.demand.spec.weight > (ours + asked) / waiting.spec.weight:
            asked += 1
            by_job[lease.demand.job_id] -= 1
            by_demand[id(lease.demand)] -= 1
            chosen.append(lease)
    return chosen
