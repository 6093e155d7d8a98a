"""What Shoal takes while nothing happens: memory and processor time of a cluster at rest, and of idle actors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

MIB = 1 << 20
ACTORS = 200
#: The processor time is that of so many seconds, after so many in which starting up comes to its end.
LOOK_S = 10.0
SETTLE_S = 5.0


@dataclass(frozen=True)
class Limit:
    key: str
    title: str
    unit: str
    at_most: float


LIMITS = (
    Limit("cluster_mib", "PSS of the embedded cluster at rest, without the arena", "MiB", 87),
    Limit("cluster_cpu", "its CPU", "% of a core", 1),
    Limit("actor_mib", "PSS of one of 200 idle actors", "MiB", 4.5),
    Limit("actors_cpu", "CPU of the cluster with 200 idle actors", "% of a core", 3),
)


def measure() -> dict[str, float]:
    """`Limit.key` → its figure, from a fresh driver; and the number of the cluster's ``processes``."""
    done = subprocess.run([sys.executable, __file__], stdout=subprocess.PIPE, text=True, timeout=180, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run() -> dict[str, float]:
    import shoal

    shoal.init(num_cpus=2, log_to_driver=False)

    class Idle:
        def pid(self) -> int:
            return os.getpid()

    time.sleep(SETTLE_S)
    cluster = processes_below(os.getpid())
    figures: dict[str, float] = {
        "processes": len(cluster),
        "cluster_mib": sum(pss_bytes(pid) for pid in cluster) / MIB,
        "cluster_cpu": cpu_percent(cluster),
    }
    actor_class: Any = shoal.remote(Idle)
    actors = [actor_class.remote() for _ in range(ACTORS)]
    pids = shoal.get([actor.pid.remote() for actor in actors])
    time.sleep(SETTLE_S)
    figures["actor_mib"] = median(pss_bytes(pid) for pid in pids) / MIB
    figures["actors_cpu"] = cpu_percent(processes_below(os.getpid()))
    shoal.shutdown()
    return figures


def processes_below(pid: int) -> list[int]:
    """All descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, unseen = [], [pid]
    while unseen:
        below = children.get(unseen.pop(), [])
        found += below
        unseen += below
    return found


def pss_bytes(pid: int) -> int:
    """Of all that it has mapped but the arena."""
    total, in_arena = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            in_arena = "shoal-arena" in rest
        elif name == "Pss:" and not in_arena:
            total += int(rest.split()[0]) * 1024
    return total


def cpu_percent(pids: list[int]) -> float:
    """Of one core, over `LOOK_S`."""
    before = sum(map(_cpu_seconds, pids))
    time.sleep(LOOK_S)
    return (sum(map(_cpu_seconds, pids)) - before) / LOOK_S * 100


def _cpu_seconds(pid: int) -> float:
    # In nanoseconds, where the ticks of /proc/PID/stat are too coarse for what hardly runs.
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


if __name__ == "__main__":
    print(json.dumps(run()))
