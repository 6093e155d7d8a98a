"""How long a program waits when something dies, and what is left of the throughput when one node of four does.

    python benchmarks/recovery.py [--times 20] [--rows worker actor durable node lineage gcs throughput]

Each time one thing is killed with SIGKILL, and the clock runs from there to the right result in the driver. Median and
worst count. On a `cluster_utils.Cluster` of this machine; ``gcs`` takes an active and a standby one on etcd and NATS,
which have to be installed here. Writes recovery.md and recovery.json to benchmarks/results; of rows that were not asked
for, what stands there stays.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from scaling import RESULTS, Finding, report

import shoal
from shoal.cluster_utils import Cluster
from shoal.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ray: Any = shoal

#: A result that has not come by then does not come, in seconds.
PATIENCE_S = 120.0
MIB = 1 << 20
TASK_S = 0.02
#: Of a durable actor since its last checkpoint.
LOGGED_CALLS = 1_000
#: Before the node dies and after it, in seconds.
STEADY_S, WATCHED_S = 4.0, 12.0
#: Completions are counted in intervals of so many seconds.
INTERVAL_S = 0.5
#: Of the remaining nodes' share; the rest is noise.
KEPT = 0.9
REQUIRED_DIP_S = 5.0


@ray.remote(num_cpus=0.1, max_retries=-1)
def first_try_hangs(directory: str) -> int:
    """Tells its process id; the second try returns at once."""
    file = Path(directory) / "pid"
    if file.exists():
        return 1
    (Path(directory) / "new").write_text(str(os.getpid()))
    (Path(directory) / "new").rename(file)
    time.sleep(3600)
    return 0


class _Actor:
    def pid(self) -> int:
        return os.getpid()


Actor: Any = ray.remote(num_cpus=0.1, max_restarts=-1, max_task_retries=-1)(_Actor)


class _Counter(_Actor):
    def __init__(self) -> None:
        self.value = 0

    def add(self) -> int:
        self.value += 1
        return self.value


Durable: Any = ray.remote(num_cpus=0.1, durable=True, checkpoint_every=0)(_Counter)


@ray.remote(num_cpus=0.1, max_retries=-1)
def make() -> bytes:
    return b"x" * MIB


@ray.remote
def work() -> None:
    time.sleep(TASK_S)


def clocked(result: Callable[[], Any]) -> float:
    """Seconds until there is this result."""
    start = time.perf_counter()
    result()
    return time.perf_counter() - start


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[Cluster]:
    """The driver's node without CPUs, and so many others with one."""
    made = Cluster(True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(nodes):
            made.add_node()
        with shoal.init(made.address, logging_level="ERROR", log_to_driver=False):
            yield made
    finally:
        made.shutdown()


def worker(times: int) -> Iterator[float]:
    """A task's worker: until its second try has returned."""
    with cluster(1):
        for _ in range(times):
            with tempfile.TemporaryDirectory() as directory:
                ref = first_try_hangs.remote(directory)
                os.kill(started(directory), signal.SIGKILL)
                yield clocked(lambda ref=ref: shoal.get(ref, timeout=PATIENCE_S))  # type: ignore[misc]


def actor(times: int) -> Iterator[float]:
    """An actor's worker: until the restarted one has answered."""
    with cluster(1):
        restarted = Actor.remote()
        for _ in range(times):
            os.kill(shoal.get(restarted.pid.remote(), timeout=PATIENCE_S), signal.SIGKILL)
            yield clocked(lambda: shoal.get(restarted.pid.remote(), timeout=PATIENCE_S))


def durable(times: int) -> Iterator[float]:
    """A durable actor's worker: until the restarted one has run 1,000 calls of its log again, and answered."""
    with cluster(1):
        counter = Durable.remote()
        for _ in range(times):
            pid = shoal.get(counter.pid.remote(), timeout=PATIENCE_S)
            made = shoal.get([counter.add.remote() for _ in range(LOGGED_CALLS)], timeout=PATIENCE_S)[-1]
            os.kill(pid, signal.SIGKILL)
            yield clocked(lambda: shoal.get(counter.add.remote(), timeout=PATIENCE_S))
            assert shoal.get(counter.add.remote(), timeout=PATIENCE_S) == made + 2


def node(times: int) -> Iterator[float]:
    """A task's node: until its second try has returned on another one."""
    with cluster(2) as made:
        for _ in range(times):
            with tempfile.TemporaryDirectory() as directory:
                victim = made.worker_nodes[0]
                there = NodeAffinitySchedulingStrategy(victim.node_id, soft=True)
                ref = first_try_hangs.options(scheduling_strategy=there).remote(directory)
                started(directory)
                made.remove_node(victim, allow_graceful=False)
                yield clocked(lambda ref=ref: shoal.get(ref, timeout=PATIENCE_S))  # type: ignore[misc]
                made.add_node()


def lineage(times: int) -> Iterator[float]:
    """The node with the only copy of a task's result: until that has been computed again and is here."""
    with cluster(2) as made:
        for _ in range(times):
            victim = made.worker_nodes[0]
            there = NodeAffinitySchedulingStrategy(victim.node_id, soft=True)
            ref = make.options(scheduling_strategy=there).remote()
            shoal.wait([ref], fetch_local=False, timeout=PATIENCE_S)
            made.remove_node(victim, allow_graceful=False)
            yield clocked(lambda ref=ref: shoal.get(ref, timeout=PATIENCE_S))  # type: ignore[misc]
            made.add_node()


def gcs(times: int) -> Iterator[float]:
    """The GCS that leads: until an actor made after its death has answered."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    deployment: Any = importlib.import_module("support.deployed")
    with deployment.DeployedCluster(gcs={"leader_ttl_s": 3.0}) as deployed:
        deployed.add_node(cpus=2)
        with deployed.connected():
            for _ in range(times):
                leader = next(number for number in range(2) if deployed.listens(number))
                deployed.replicas[leader].kill()
                yield clocked(lambda: shoal.get(Actor.remote().pid.remote(), timeout=PATIENCE_S))
                deployed.replicas[leader] = deployed.start_gcs(leader)


def started(directory: str) -> int:
    """The process of the task that was told this directory, once it runs."""
    deadline = time.monotonic() + PATIENCE_S
    while not (file := Path(directory) / "pid").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the task does not start")
        time.sleep(0.002)
    return int(file.read_text())


def throughput() -> Finding:
    """Tasks of 20 ms on four nodes, one of which dies."""
    with cluster(4) as made:
        shoal.get([work.remote() for _ in range(200)])
        pending = deque(work.remote() for _ in range(64))
        ends: list[float] = []
        start, killed = time.monotonic(), 0.0
        while (now := time.monotonic()) - start < STEADY_S + WATCHED_S:
            if not killed and now - start > STEADY_S:
                made.worker_nodes[0].kill_raylet()
                killed = now
            done, rest = shoal.wait(list(pending), num_returns=1, timeout=PATIENCE_S)
            pending = deque(rest)
            ends += [time.monotonic()] * len(done)
            pending.extend(work.remote() for _ in done)
        shoal.get(list(pending), timeout=PATIENCE_S)
    before = sum(start < end < killed for end in ends) / (killed - start)
    rates = [
        sum(killed + n * INTERVAL_S < end <= killed + (n + 1) * INTERVAL_S for end in ends) / INTERVAL_S
        for n in range(int(WATCHED_S / INTERVAL_S))
    ]
    dip = INTERVAL_S * sum(rate < KEPT * before * 3 / 4 for rate in rates)
    measured = (
        f"{before:.0f}/s before, {median(rates[-8:]):.0f}/s after; below {KEPT:.0%} of three nodes' share for {dip:g} s"
    )
    return Finding(
        "tasks of 20 ms while one node of four dies", measured, f"at most {REQUIRED_DIP_S:g} s", dip <= REQUIRED_DIP_S
    )


ROWS: dict[str, Callable[[int], Iterator[float]]] = {
    "worker": worker,
    "actor": actor,
    "durable": durable,
    "node": node,
    "lineage": lineage,
    "gcs": gcs,
}


def main() -> int:
    arguments = argparse.ArgumentParser(description="Recovery times")
    arguments.add_argument("--times", type=int, default=20)
    arguments.add_argument("--rows", nargs="+", choices=[*ROWS, "throughput"], default=[*ROWS, "throughput"])
    options = arguments.parse_args()
    findings = []
    for row in options.rows:
        if row == "throughput":
            findings.append(throughput())
            continue
        waited = list(ROWS[row](options.times))
        figures = f"median {median(waited):.2f} s, worst of {len(waited)} {max(waited):.2f} s"
        what = (ROWS[row].__doc__ or "").rstrip(".")
        findings.append(Finding(what, figures, "", True))
        print(f"{what}: {figures}", flush=True)
    return report(findings + _others(findings), "Recovery", "recovery")


def _others(findings: list[Finding]) -> list[Finding]:
    """What earlier runs have found of other rows."""
    file = RESULTS / "recovery.json"
    earlier = [Finding(**each) for each in json.loads(file.read_text())] if file.exists() else []
    return [each for each in earlier if each.what not in {finding.what for finding in findings}]


if __name__ == "__main__":
    sys.exit(main())
