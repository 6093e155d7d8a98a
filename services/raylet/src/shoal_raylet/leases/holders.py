"""Who holds what of this node somebody waits for, in words. Pure: the ledger knows holders by ids alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from shoal_common.placement.resources import GRAINS
from shoal_raylet.leases.bundle_reservations import group_of
from shoal_raylet.leases.demand import Lease
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.worker_pool import Worker

#: Of one resource, those that hold the most of it.
MAX_TOLD = 3


def holders_told(
    resources: Iterable[str], ledger: ResourceLedger, leases: Mapping[bytes, Lease], workers: Mapping[bytes, Worker]
) -> str:
    """As in "3 CPU by placement group 4e36…, 0.5 CPU by actor A 5f3a…"; empty = nobody holds any of
    ``resources``. Leases of one job are counted together, as are the bundles of a group. ``leases``: by
    the worker that has it."""
    of_actors = {worker.actor_id: worker.name for worker in workers.values() if worker.actor_id}
    told = []
    for resource in sorted(resources):
        held: Counter[str] = Counter()
        for holder, grains in ledger.held_of(resource):
            held[_name(holder, leases, of_actors)] += grains
        told += [f"{grains / GRAINS:g} {resource} by {name}" for name, grains in held.most_common(MAX_TOLD)]
        if rest := held.most_common()[MAX_TOLD:]:
            told.append(f"{sum(grains for _, grains in rest) / GRAINS:g} {resource} by {len(rest)} others")
    return ", ".join(told)


def _name(holder: bytes, leases: Mapping[bytes, Lease], of_actors: Mapping[bytes, str]) -> str:
    if (lease := leases.get(holder)) is not None:
        # Leases are of no function: all that need the same share them.
        return f"tasks of job {lease.demand.job_id.hex()}"
    if (group_id := group_of(holder)) is not None:
        return f"placement group {group_id.hex()}"
    # One that waits for its process has no name here.
    return " ".join(filter(None, ("actor", of_actors.get(holder, ""), holder.hex())))
