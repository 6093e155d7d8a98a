"""What Prometheus reads of a node: its leases, store, workers and machine, under our names and under Ray's.

Ray's names are those of its Grafana boards, with its labels. Rates that those want ready-made (percent, bytes a second)
are of the time between the last two looks.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from shoal_common.events.node_events import NodeLoad
from shoal_common.kinds import ExitKind
from shoal_common.placement.resources import GRAINS, ResourceSet
from shoal_common.service.metrics import Family, Sample, sample
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.worker_leases import WorkerLeases
from shoal_raylet.leases.worker_pool import WorkerPool, WorkerState
from shoal_raylet.objects.index import ObjectIndex
from shoal_raylet.workers.host import HostReading, ProcessReading

#: Looks that follow sooner get what the last one found, in seconds.
LEAST_S = 1.0


def _gauge(name: str, description: str) -> Family:
    return Family(name, "gauge", description)


QUEUED = _gauge("shoal_node_queued_leases", "leases that owners wait for here")
GRANTED = _gauge("shoal_node_granted_leases", "leases that owners hold")
TASK_S = _gauge("shoal_node_mean_task_seconds", "mean duration of recent tasks; 0 = unknown")
DRAINING = _gauge("shoal_node_draining", "1 = nothing new is granted here")
RESOURCES = _gauge("shoal_node_resources", "logical resources by name, used and free, in their units")
WORKERS = _gauge("shoal_node_workers", "worker processes by state")
ENDED = Family("shoal_node_workers_ended", "counter", "worker processes that ended, by how")
STORE_BYTES = _gauge("shoal_node_store_bytes", "capacity of the object store in shared memory")
STORE_USED = _gauge("shoal_node_store_used_bytes", "bytes of it that are taken")
STORE_OBJECTS = _gauge("shoal_node_store_objects", "objects that this node has or knows the place of")
SPILLED = _gauge("shoal_node_spilled_bytes", "bytes that are spilled now")
RESTORED = Family("shoal_node_restored_bytes", "counter", "bytes brought back from where they were spilled to")

RAY_RESOURCES = _gauge("ray_resources", "as shoal_node_resources, for Ray's boards")
RAY_STORE = _gauge("ray_object_store_memory", "bytes of objects by place, for Ray's boards")
RAY_ACTORS = _gauge("ray_actors", "actors by state, for Ray's boards")
RAY_EVICTIONS = Family("ray_memory_manager_worker_eviction", "counter", "workers killed for memory, for Ray's boards")
RAY_FAILURES = Family("ray_node_manager_unexpected_worker_failure", "counter", "workers that crashed, for Ray's boards")
RAY_CPU = _gauge("ray_node_cpu_utilization", "percent of all CPUs")
RAY_CPUS = _gauge("ray_node_cpu_count", "CPUs of the machine")
RAY_MEMORY_USED = _gauge("ray_node_mem_used_host", "bytes of the machine's memory in use")
RAY_MEMORY = _gauge("ray_node_mem_total_host", "bytes of memory that the machine has")
RAY_SHARED = _gauge("ray_node_mem_shared_bytes", "bytes of shared memory")
RAY_DISK_USED = _gauge("ray_node_disk_usage", "bytes in use on the disk of the session's files")
RAY_DISK_FREE = _gauge("ray_node_disk_free", "bytes free there")
RAY_DISK_READ = _gauge("ray_node_disk_io_read_speed", "bytes a second read from disks")
RAY_DISK_WRITTEN = _gauge("ray_node_disk_io_write_speed", "bytes a second written to disks")
RAY_RECEIVED = _gauge("ray_node_network_receive_speed", "bytes a second received")
RAY_SENT = _gauge("ray_node_network_send_speed", "bytes a second sent")
RAY_COMPONENT_CPU = _gauge("ray_component_cpu_percentage", "percent of one CPU, by what processes run")
RAY_COMPONENT_RSS = _gauge("ray_component_rss_bytes", "bytes resident, by what processes run")
RAY_COMPONENT_SHARED = _gauge("ray_component_shared_bytes", "of them shared with others")

FAMILIES = tuple(each for each in list(globals().values()) if isinstance(each, Family))

_FOR_MEMORY = (ExitKind.NODE_OUT_OF_MEMORY, ExitKind.MEMORY_LIMIT)


@dataclass(frozen=True, slots=True)
class NodeReading:
    """What the raylet knows itself."""

    queued: int
    granted: int
    mean_task_s: float
    draining: bool
    total: ResourceSet
    available: ResourceSet
    #: By state.
    workers: Mapping[str, int]
    ended: Mapping[ExitKind, int]
    #: Class names of the actors here.
    actors: Mapping[str, int]
    store_bytes: int
    store_used: int
    store_objects: int
    spilled: int
    restored: int

    @classmethod
    def of(
        cls,
        pool: WorkerPool,
        leases: WorkerLeases,
        ledger: ResourceLedger,
        index: ObjectIndex,
        ended: Mapping[ExitKind, int],
    ) -> NodeReading:
        """What there is now. ``ended``: worker processes that ended, since the start."""
        workers = list(pool.workers.values())
        return cls(
            queued=leases.queued,
            granted=leases.held,
            mean_task_s=leases.mean_task_us / 1e6,
            draining=leases.draining,
            total=ledger.total,
            available=ledger.available,
            workers={**{state.value: 0 for state in WorkerState}, **Counter(worker.state.value for worker in workers)},
            ended=ended,
            actors=Counter(worker.name for worker in workers if worker.state is WorkerState.ACTOR),
            store_bytes=index.allocator.capacity,
            store_used=index.allocator.used,
            store_objects=index.count,
            spilled=index.spilled_bytes,
            restored=index.restored_bytes,
        )


def components_of(pool: WorkerPool) -> dict[int, str]:
    """What each process of this node runs, by pid."""
    workers = {worker.pid: f"shoal::{worker.name or 'IDLE'}" for worker in pool.workers.values() if worker.pid}
    return {os.getpid(): "raylet", **workers}


@dataclass(slots=True)
class Rates:
    """Of the time between two looks. Pure."""

    cpu_percent: float = 0.0
    disk_read: float = 0.0
    disk_written: float = 0.0
    received: float = 0.0
    sent: float = 0.0
    #: Percent of one CPU by pid.
    processes: dict[int, float] = field(default_factory=dict)


def rates(before: HostReading, now: HostReading) -> Rates:
    passed = now.at - before.at
    return Rates(
        cpu_percent=min(100.0, 100 * (now.cpu_busy_s - before.cpu_busy_s) / passed / now.cpus),
        disk_read=max(0, now.disk_read - before.disk_read) / passed,
        disk_written=max(0, now.disk_written - before.disk_written) / passed,
        received=max(0, now.received - before.received) / passed,
        sent=max(0, now.sent - before.sent) / passed,
    )


class Measurements:
    """Reads when it is asked, and not more often than every ``LEAST_S``. Belongs to one event loop."""

    def __init__(
        self,
        session_name: str,
        node_type: str,
        node: Callable[[], NodeReading],
        host: Callable[[], HostReading],
        components: Callable[[], dict[int, str]],
        processes: Callable[[Iterable[int]], dict[int, ProcessReading]],
    ) -> None:
        """``components``: what each process of the node runs, by pid. ``node_type``: "head" or "worker"."""
        self._labels = {"SessionName": session_name, "RayNodeType": node_type}
        self._node = node
        self._host = host
        self._components = components
        self._processes = processes
        self._before = host()
        self._cpu_before: dict[int, float] = {}
        self._rates = Rates()
        self._found: tuple[HostReading, dict[int, str], dict[int, ProcessReading]] = (self._before, {}, {})
        #: Nothing was read yet but what rates begin with.
        self._first = True

    def samples(self) -> Iterator[Sample]:
        yield from node_samples(self._node(), self._labels)
        self._look()
        yield from host_samples(self._found[0], self._rates, self._labels)
        yield from component_samples(*self._found[1:], self._rates.processes, self._labels)

    def _look(self) -> None:
        host = self._host()
        passed = host.at - self._before.at
        if passed < LEAST_S and not self._first:
            return
        components = self._components()
        processes = self._processes(components)
        if passed > 0:
            self._rates = rates(self._before, host)
            self._rates.processes = {
                pid: 100 * max(0.0, each.cpu_s - self._cpu_before.get(pid, each.cpu_s)) / passed
                for pid, each in processes.items()
            }
        self._before, self._first = host, False
        self._cpu_before = {pid: each.cpu_s for pid, each in processes.items()}
        self._found = host, components, processes


class Load:
    """Of a node, as it is told while somebody listens; with rates of the time since the last look."""

    def __init__(self, node_id: bytes, node: Callable[[], NodeReading], host: Callable[[], HostReading]) -> None:
        self._node_id = node_id
        self._node = node
        self._host = host
        self._before = host()

    def now(self) -> NodeLoad:
        node, before, host = self._node(), self._before, self._host()
        self._before = host
        return NodeLoad(
            node_id=self._node_id,
            cpu_percent=rates(before, host).cpu_percent if host.at > before.at else 0.0,
            cpus=host.cpus,
            memory_used=host.memory_used,
            memory=host.memory_total,
            store_used=node.store_used,
            store=node.store_bytes,
            running=node.granted,
            waiting=node.queued,
        )


def node_samples(node: NodeReading, labels: dict[str, str]) -> Iterator[Sample]:
    yield sample(QUEUED, node.queued)
    yield sample(GRANTED, node.granted)
    yield sample(TASK_S, node.mean_task_s)
    yield sample(DRAINING, node.draining)
    for name, total in sorted(node.total.grains.items()):
        free = node.available.grains.get(name, 0)
        for state, amount in (("used", total - free), ("free", free)):
            yield sample(RESOURCES, amount / GRAINS, name=name, state=state)
        for state, amount in (("USED", total - free), ("AVAILABLE", free)):
            yield sample(RAY_RESOURCES, amount / GRAINS, Name=name, State=state, **labels)
    for worker_state, count in node.workers.items():
        yield sample(WORKERS, count, state=worker_state)
    for kind in ExitKind:
        yield sample(ENDED, node.ended.get(kind, 0), kind=kind.name.lower())
    yield sample(RAY_EVICTIONS, sum(node.ended.get(kind, 0) for kind in _FOR_MEMORY), Name="", **labels)
    yield sample(RAY_FAILURES, node.ended.get(ExitKind.SYSTEM_ERROR, 0), Name="", Type="SYSTEM_ERROR", **labels)
    for name, count in sorted(node.actors.items()):
        yield sample(RAY_ACTORS, count, Name=name, State="ALIVE", Source="executor", **labels)
    yield sample(STORE_BYTES, node.store_bytes)
    yield sample(STORE_USED, node.store_used)
    yield sample(STORE_OBJECTS, node.store_objects)
    yield sample(SPILLED, node.spilled)
    yield sample(RESTORED, node.restored)
    for place, size in (("MMAP_SHM", node.store_used), ("SPILLED", node.spilled)):
        yield sample(RAY_STORE, size, Location=place, **labels)


def host_samples(host: HostReading, now: Rates, labels: dict[str, str]) -> Iterator[Sample]:
    values: dict[Family, float] = {
        RAY_CPU: now.cpu_percent,
        RAY_CPUS: host.cpus,
        RAY_MEMORY_USED: host.memory_used,
        RAY_MEMORY: host.memory_total,
        RAY_SHARED: host.memory_shared,
        RAY_DISK_USED: host.disk_used,
        RAY_DISK_FREE: host.disk_free,
        RAY_DISK_READ: now.disk_read,
        RAY_DISK_WRITTEN: now.disk_written,
        RAY_RECEIVED: now.received,
        RAY_SENT: now.sent,
    }
    for family, value in values.items():
        yield sample(family, value, **labels)


def component_samples(
    components: Mapping[int, str],
    processes: Mapping[int, ProcessReading],
    percents: Mapping[int, float],
    labels: dict[str, str],
) -> Iterator[Sample]:
    """Added up by what they run: a series for each process would come and go with it."""
    cpu: Counter[str] = Counter()
    resident: Counter[str] = Counter()
    shared: Counter[str] = Counter()
    for pid, each in processes.items():
        name = components[pid]
        cpu[name] += percents.get(pid, 0.0)  # type: ignore[assignment]
        resident[name] += each.resident
        shared[name] += each.shared
    for family, sums in ((RAY_COMPONENT_CPU, cpu), (RAY_COMPONENT_RSS, resident), (RAY_COMPONENT_SHARED, shared)):
        for name, value in sorted(sums.items()):
            yield sample(family, value, Component=name, **labels)
