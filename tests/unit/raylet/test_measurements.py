"""What a node tells Prometheus, out of what it reads of itself and of its machine."""

from __future__ import annotations

import os
from pathlib import Path

from shoal_common.events.node_events import NodeLoad
from shoal_common.kinds import ExitKind
from shoal_common.placement.resources import ResourceSet
from shoal_common.service.metrics import Labels, exposed_name
from shoal_raylet.measurements import FAMILIES, Load, Measurements, NodeReading
from shoal_raylet.workers.host import HostReading, ProcessReading, read_host, read_processes


def reading() -> NodeReading:
    return NodeReading(
        queued=3,
        granted=1,
        mean_task_s=0.5,
        draining=False,
        total=ResourceSet.of({"CPU": 4, "disk": 1}),
        available=ResourceSet.of({"CPU": 1.5, "disk": 1}),
        workers={"idle": 2, "actor": 1},
        ended={ExitKind.NODE_OUT_OF_MEMORY: 2, ExitKind.MEMORY_LIMIT: 1, ExitKind.SYSTEM_ERROR: 4},
        actors={"A": 1},
        store_bytes=100,
        store_used=60,
        store_objects=5,
        spilled=7,
        restored=8,
    )


def host(at: float, busy_s: float = 0.0, read: int = 0) -> HostReading:
    return HostReading(at, 2, busy_s, 1000, 400, 10, 70, 30, read, 0, 0, 0)


class Machine:
    """Reads what the test says."""

    def __init__(self) -> None:
        self.host = host(0.0)
        self.processes = {7: ProcessReading(1.0, 50, 20), 8: ProcessReading(0.0, 30, 10)}
        self.measurements = Measurements(
            "s",
            "worker",
            reading,
            lambda: self.host,
            lambda: {7: "raylet", 8: "shoal::f", 9: "shoal::f"},
            lambda pids: {pid: self.processes[pid] for pid in pids if pid in self.processes},
        )

    def values(self) -> dict[tuple[str, str], float]:
        """By exposed name and the labels that not all have."""

        def own(labels: Labels) -> str:
            return ",".join(value for name, value in labels if name not in ("RayNodeType", "SessionName"))

        return {(exposed_name(each.family), own(each.labels)): each.value for each in self.measurements.samples()}


def test_a_node_tells_what_it_has_under_both_names() -> None:
    values = Machine().values()
    assert values["shoal_node_queued_leases", ""] == 3
    assert values["shoal_node_resources", "CPU,used"] == 2.5
    assert values["ray_resources", "CPU,USED"] == 2.5 and values["ray_resources", "CPU,AVAILABLE"] == 1.5
    assert values["ray_memory_manager_worker_eviction_total", ""] == 3
    assert values["ray_node_manager_unexpected_worker_failure_total", ",SYSTEM_ERROR"] == 4
    assert values["ray_object_store_memory", "MMAP_SHM"] == 60
    assert values["ray_component_rss_bytes", "raylet"] == 50


def test_rates_are_of_the_time_between_two_looks() -> None:
    machine = Machine()
    assert machine.values()["ray_node_cpu_utilization", ""] == 0
    machine.host = host(10.0, busy_s=5.0, read=1000)
    machine.processes = {7: ProcessReading(6.0, 50, 20), 9: ProcessReading(3.0, 30, 10)}
    values = machine.values()
    assert values["ray_node_cpu_utilization", ""] == 25
    assert values["ray_node_disk_io_read_speed", ""] == 100
    assert values["ray_component_cpu_percentage", "raylet"] == 50
    assert values["ray_component_cpu_percentage", "shoal::f"] == 0, "it is new: nothing is known of before"
    machine.host = host(10.5, busy_s=5.9)
    assert machine.values()["ray_node_cpu_utilization", ""] == 25, "too soon to say something else"


def test_every_metric_that_is_declared_is_told() -> None:
    machine = Machine()
    assert {each.family for each in machine.measurements.samples()} == set(FAMILIES)


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    found = read_host(tmp_path)
    assert 0 < found.memory_used < found.memory_total
    assert found.disk_free > 0 and found.cpu_busy_s > 0
    own = read_processes([os.getpid(), 2**22 + 1])
    assert list(own) == [os.getpid()] and own[os.getpid()].resident > 0


def test_a_load_has_the_rates_since_the_last_look() -> None:
    now = host(10.0, busy_s=1.0)
    load = Load(b"n", reading, lambda: now)
    assert load.now().cpu_percent == 0, "no time has passed"
    now = host(15.0, busy_s=6.0)
    assert load.now() == NodeLoad(
        b"n", cpu_percent=50, cpus=2, memory_used=400, memory=1000, store_used=60, store=100, running=1, waiting=3
    )
