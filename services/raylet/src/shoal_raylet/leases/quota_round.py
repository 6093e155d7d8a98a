"""What the quotas of their jobs let demands have, in one round of grants on this node. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

from shoal_common.placement.bundles import cpus
from shoal_common.placement.resources import ResourceSet
from shoal_raylet.actions import AskAllowance
from shoal_raylet.leases.allowances import Allowances
from shoal_raylet.leases.demand import Demand
from shoal_raylet.leases.held_leases import HeldLeases
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.worker_pool import WorkerPool

#: So long what is held up by the quota is passed by what is smaller, in seconds.
PASSED_OVER_S = 2.0


class QuotaRound:
    """Jobs without a quota are not asked about: most rounds know of no quota at all."""

    def __init__(self, allowances: Allowances, used: Mapping[bytes, ResourceSet]) -> None:
        """``used``: as ``used()`` finds it. A job that comes later has nothing in this round."""
        self._allowances = allowances
        #: What each job may still have here.
        self._rooms = defaultdict(
            ResourceSet,
            {job_id: allowances[job_id].granted - used[job_id] - allowances[job_id].asked_back for job_id in used},
        )
        #: Who comes first among those of a job that its quota holds up.
        self._first: dict[bytes, Demand] = {}
        #: Those of the same priority whose turn is after that one's.
        self._behind: set[tuple[bytes, int]] = set()
        #: Leases for which workers are being started, by demand.
        self._coming: Counter[tuple[bytes, int]] = Counter()

    def look_at(self, waiting: Iterable[Demand]) -> None:
        """``waiting``: what may be granted here, in turn."""
        for demand in waiting:
            first = self._first.get(demand.job_id)
            if first is not None and demand.priority <= first.priority:
                self._behind.add(demand.key)
            elif self.holds_up(demand) and _within(demand, self._allowances[demand.job_id].for_tasks):
                self._first[demand.job_id] = demand

    def holds_up(self, demand: Demand) -> bool:
        """Its job has no allowance for it here."""
        return not _within(demand, self._rooms[demand.job_id])

    def lets(self, demand: Demand, now: float) -> bool:
        """It may have a lease: there is an allowance, and nobody is held up who comes before it."""
        room = self._rooms[demand.job_id]
        first = self._first.get(demand.job_id, demand)
        long = demand.key in self._behind and now - first.waiting_since >= PASSED_OVER_S
        if first.priority > demand.priority or long:
            room -= first.counted or ResourceSet()
        return _within(demand, room)

    def takes(self, demand: Demand, *, coming: bool = False) -> None:
        """It gets one; ``coming``: when a worker has started."""
        self._rooms[demand.job_id] -= demand.counted or ResourceSet()
        self._coming[demand.key] += coming

    # --- what follows ---

    def spare(self, job_id: bytes) -> ResourceSet:
        """What it was granted and does not use."""
        allowance = self._allowances[job_id]
        room = self._rooms[job_id] + allowance.asked_back
        granted = allowance.granted
        return ResourceSet({name: max(0, min(room[name], granted[name])) for name in granted})

    def lacking_for_others(self, job_id: bytes) -> ResourceSet:
        """What its tasks must give back, as it is asked back and not spare."""
        return ResourceSet.of(self._allowances[job_id].asked_back.missing_from(self.spare(job_id)))

    def settle(self, waiting: Collection[Demand], alone: bool, free: ResourceSet, now: float) -> list[AskAllowance]:
        """What each job asks of the GCS or gives back. ``waiting``: of all jobs. ``free``: of the node."""
        actions: list[AskAllowance] = []
        for job_id in self._allowances:
            theirs = [demand for demand in waiting if demand.job_id == job_id]
            wants = self.wants(job_id, theirs, alone, free)
            actions += self._allowances.settle(job_id, self.spare(job_id), bool(theirs), wants, now)
        return actions

    def wants(self, job_id: bytes, waiting: Iterable[Demand], alone: bool, free: ResourceSet) -> list[ResourceSet]:
        """What each of the leases needs for which nothing lacks but an allowance; the highest priority first. What the
        job uses on credit comes before all. ``free``: of the node."""
        room = self._rooms[job_id] + self._allowances[job_id].asked_back
        credit = ResourceSet({name: -grains for name, grains in room.grains.items() if grains < 0})
        found = [credit] if credit else []
        held_up = [demand for demand in waiting if demand.job_id == job_id and self.holds_up(demand)]
        for demand in sorted(held_up, key=lambda demand: -demand.priority):
            for _ in range(demand.grantable(alone) - self._coming[demand.key]):
                if not demand.resources.fits_in(free):
                    break
                free -= demand.resources
                found.append(demand.counted or ResourceSet())
        return found

    def possible(self, demand: Demand) -> int:
        """How many of its leases that are owed the quota does not hold up, here or on other nodes."""
        if demand.counted is None:
            return demand.owed
        allowance = self._allowances[demand.job_id]
        left = self._rooms[demand.job_id] + allowance.asked_back + allowance.left
        at_once = min(left[name] // grains for name, grains in demand.counted.grains.items())
        return min(demand.owed, max(0, at_once) + self._coming[demand.key])

    def lacking(self, demand: Demand) -> dict[str, float]:
        """What of the quota must be given back for it, by its job's own tasks, in units."""
        if demand.counted is None or not self.holds_up(demand):
            return {}
        allowance = self._allowances[demand.job_id]
        return demand.counted.missing_from(self._rooms[demand.job_id] + allowance.left)


def used(
    allowances: Allowances, leases: HeldLeases, pool: WorkerPool, ledger: ResourceLedger
) -> dict[bytes, ResourceSet]:
    """Of each job with a quota, what its tasks use here, less than nothing where its actors lend CPU."""
    found = dict.fromkeys(allowances, ResourceSet())
    for lease in leases:
        if (counted := lease.demand.counted) is not None:
            found[lease.demand.job_id] += counted - cpus(counted) if leases.is_blocked(lease) else counted
    # What an actor holds is counted by the GCS; what it lends while it waits is for those for which it waits.
    for job_id in found:
        for worker in pool.of_job(job_id):
            allocation = ledger.allocation(worker.actor_id) if worker.actor_id else None
            if allocation is not None and allocation.lent:
                found[job_id] -= allowances[job_id].counted(cpus(allocation.resources))
    return found


def _within(demand: Demand, amounts: ResourceSet) -> bool:
    return demand.counted is None or demand.counted.fits_in(amounts)
