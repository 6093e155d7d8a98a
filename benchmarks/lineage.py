"""Results that are lost with their node: how long it takes to make them again, against how long it took to make them.

    python benchmarks/lineage.py [--tasks 1000] [--rounds 3]

Each round: a new node makes the results, 1 MiB each, and is killed; another new one of the same size makes them again.
The workers of both have run something before. Counted from when the driver knows of the death, and besides from the
kill on. Writes lineage.md and lineage.json to benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
import time
from statistics import median
from typing import Any

from scaling import Finding, report

REQUIRED = 2.0
MIB = 1 << 20


def main() -> int:
    arguments = argparse.ArgumentParser(description="Recomputing against computing")
    arguments.add_argument("--tasks", type=int, default=1000)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()

    import shoal
    from shoal.cluster_utils import Cluster

    cluster = Cluster(True, head_node_args={"num_cpus": 1})
    node_args = {
        "num_cpus": 2,
        "resources": {"maker": 1_000_000},
        "object_store_memory": (options.tasks + 100) * MIB * 5 // 4,
    }
    try:
        with shoal.init(cluster.address, logging_level="ERROR", log_to_driver=False):
            times = []
            for _ in range(options.rounds):
                victim = cluster.add_node(**node_args)
                warm_up(shoal)
                refs, seconds = make(shoal, options.tasks)
                other = cluster.add_node(**node_args)
                times.append((seconds, *make_again(shoal, cluster, victim, refs)))
                del refs
                cluster.remove_node(other, allow_graceful=False)
    finally:
        cluster.shutdown()
    first, again, after_kill = (median(column) for column in zip(*times, strict=True))
    text = f"{again:.2f} s from when the death is known, {after_kill:.2f} s from the kill; made in {first:.2f} s"
    row = f"{options.tasks:,} results of 1 MiB made again"
    finding = Finding(row, text, f"≤ {REQUIRED:g} times as long", again <= REQUIRED * first)
    return report([finding], "Lost results", "lineage")


def warm_up(shoal: Any) -> None:
    shoal.get([maker(shoal).remote(1) for _ in range(50)])


def maker(shoal: Any) -> Any:
    def block(size: int) -> bytes:
        return bytes(size)

    return shoal.remote(resources={"maker": 1})(block)


def make(shoal: Any, count: int) -> tuple[list[Any], float]:
    block = maker(shoal)
    start = time.perf_counter()
    refs = [block.remote(MIB) for _ in range(count)]
    shoal.wait(refs, num_returns=count, fetch_local=False)
    return refs, time.perf_counter() - start


def make_again(shoal: Any, cluster: Any, victim: Any, refs: list[Any]) -> tuple[float, float]:
    """Seconds from when the driver knows, and from the kill."""
    from shoal.experimental import get_local_object_locations

    killed = time.perf_counter()
    cluster.remove_node(victim, allow_graceful=False)
    while any(place["node_ids"] for place in get_local_object_locations(refs).values()):
        time.sleep(0.01)
    warm_up(shoal)
    known = time.perf_counter()
    shoal.wait(refs, num_returns=len(refs), fetch_local=False)
    done = time.perf_counter()
    return done - known, done - killed


if __name__ == "__main__":
    sys.exit(main())
