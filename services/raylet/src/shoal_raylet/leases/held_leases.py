"""The leases of one node that are granted and not returned: whose each is, and what they take of the node. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from shoal_common.placement.resources import ResourceSet
from shoal_raylet.leases.demand import Demand, Lease
from shoal_raylet.leases.resource_ledger import ResourceLedger


class HeldLeases:
    """In the order in which they were granted."""

    def __init__(self, ledger: ResourceLedger) -> None:
        self._ledger = ledger
        self.by_id: dict[bytes, Lease] = {}
        self.by_worker: dict[bytes, Lease] = {}
        self._cpu: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self.by_id.values())

    def begin(self, lease: Lease) -> None:
        """Its worker has what it needs already."""
        demand = lease.demand
        self.by_id[lease.lease_id] = self.by_worker[lease.worker.worker_id] = lease
        demand.held[lease.lease_id] = lease
        self._cpu[demand.job_id] = self._cpu.get(demand.job_id, 0) + demand.resources["CPU"]

    def end(self, lease: Lease) -> None:
        """What it took of the node is free again."""
        demand = lease.demand
        del self.by_id[lease.lease_id], self.by_worker[lease.worker.worker_id], demand.held[lease.lease_id]
        self._ledger.release(lease.worker.worker_id)
        left = self._cpu.pop(demand.job_id, 0) - demand.resources["CPU"]
        if left > 0:
            self._cpu[demand.job_id] = left

    # --- what is held ---

    def of_job(self, job_id: bytes) -> list[Lease]:
        return [lease for lease in self if lease.demand.job_id == job_id]

    def cpu_of(self, job_id: bytes) -> int:
        """What the job's leases are for, in grains, whether their workers are blocked or not."""
        return self._cpu.get(job_id, 0)

    def is_blocked(self, lease: Lease) -> bool:
        """Its worker waits, and has lent what it has."""
        allocation = self._ledger.allocation(lease.worker.worker_id)
        return allocation is not None and allocation.lent

    def not_blocked(self) -> list[Lease]:
        return [lease for lease in self if not self.is_blocked(lease)]

    def running(self, demand: Demand) -> int:
        """Leases of this demand whose worker is not blocked."""
        return sum(not self.is_blocked(lease) for lease in demand.held.values())

    @property
    def resources(self) -> ResourceSet:
        """What leases give back some day."""
        return ResourceSet.sum(lease.demand.resources for lease in self.not_blocked())

    def validate(self) -> None:
        cpu: Counter[bytes] = Counter()
        for lease_id, lease in self.by_id.items():
            assert lease.demand.held.get(lease_id) is lease, "a lease that its demand does not know"
            assert self.by_worker.get(lease.worker.worker_id) is lease
            assert self._ledger.allocation(lease.worker.worker_id) is not None, "a lease that holds nothing"
            cpu[lease.demand.job_id] += lease.demand.resources["CPU"]
        assert len(self.by_worker) == len(self.by_id)
        assert +cpu == Counter(self._cpu), "a job's share is what it holds"


def count_for(lacking: ResourceSet, leases: Sequence[Lease]) -> int:
    """How many of them must be given back for it, if they are the largest."""
    largest = {name: max((each.demand.resources[name] for each in leases), default=0) for name in lacking}
    return max((-(-lacking[name] // grains) for name, grains in largest.items() if grains), default=1)
