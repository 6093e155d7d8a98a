"""How soon an autoscaler has a node for what waits.

    python benchmarks/autoscaler.py [--times N]

A cluster whose head has no CPUs, and nodes that are processes of this machine (`AutoscalingCluster`): from the call of
a task that fits nowhere until the GCS lists a node that was started for it, and until the task has returned from there.
Each time all nodes but the head have gone before. Writes results/autoscaler.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from report import describe_machine

import shoal
from shoal.cluster_utils import AutoscalingCluster

RESULTS = Path(__file__).resolve().parent / "results" / "autoscaler.md"
PATIENCE_S = 60.0
IDLE_TIMEOUT_S = 1.0


@shoal.remote(num_cpus=1)
def work() -> None:
    pass


def living() -> int:
    return sum(node["Alive"] for node in shoal.nodes())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_S:g} s")
        time.sleep(0.01)


def reactions(times: int) -> Iterator[tuple[float, float]]:
    """Seconds from the demand until the node is listed, and until the task has returned from it."""
    kinds = {"small": {"resources": {"CPU": 1, "object_store_memory": 80 << 20}, "max_workers": 1}}
    cluster = AutoscalingCluster({"CPU": 0}, kinds, idle_timeout_minutes=IDLE_TIMEOUT_S / 60)
    cluster.start()
    try:
        with shoal.init(cluster.address, logging_level="ERROR", log_to_driver=False):
            for _ in range(times):
                until(lambda: living() == 1)
                start = time.perf_counter()
                ref = work.remote()
                until(lambda: living() == 2)
                listed = time.perf_counter() - start
                shoal.get(ref, timeout=PATIENCE_S)
                yield listed, time.perf_counter() - start
    finally:
        cluster.shutdown()


def main() -> None:
    arguments = argparse.ArgumentParser(description="How soon an autoscaler has a node for what waits")
    arguments.add_argument("--times", type=int, default=10)
    measured = list(reactions(arguments.parse_args().times))
    machine = describe_machine()
    lines = [
        "# Autoscaler",
        "",
        f"From the demand, {len(measured)} times, on {machine['cpus']} CPUs ({machine['cpu_model']}).",
        "",
    ]
    lines += ["| until | median | worst |", "|---|---|---|"]
    for what, seconds in zip(
        ("the node is there", "the task has returned from it"), zip(*measured, strict=True), strict=True
    ):
        lines.append(f"| {what} | {median(seconds):.2f} s | {max(seconds):.2f} s |")
    text = "\n".join(lines) + "\n"
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
