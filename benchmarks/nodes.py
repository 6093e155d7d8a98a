"""Tasks and actor calls on another node, over TCP, against the same on the driver's own node.

    python benchmarks/nodes.py [--rounds 5] [--seconds 1.5]

Two raylets of one CPU each on this machine. The rounds take turns, here, there, here, there; the median of the rounds
counts. Writes nodes.md and nodes.json to benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from scaling import Finding, report

REQUIRED = 0.5
WARM_UP_SECONDS = 1.0
HERE, THERE = "here", "there"

#: Makes so many calls and returns how many.
Step = Callable[[], float]


def steps(ray: Any, place: str) -> dict[str, Step]:
    """Every row's step, for the node that has the resource ``place``."""

    def do_nothing() -> None:
        pass

    class Actor:
        def nothing(self) -> None:
            pass

    nothing = ray.remote(resources={place: 0.001})(do_nothing)
    actor = ray.remote(num_cpus=0, resources={place: 0.001})(Actor).remote()

    def alone(call: Callable[[], Any]) -> Step:
        def step() -> int:
            for _ in range(100):
                ray.get(call())
            return 100

        return step

    def together(call: Callable[[], Any]) -> Step:
        def step() -> int:
            return len(ray.get([call() for _ in range(1000)]))

        return step

    return {
        "tasks, one at a time": alone(nothing.remote),
        "tasks, 1,000 at once": together(nothing.remote),
        "actor calls, one at a time": alone(actor.nothing.remote),
        "actor calls, 1,000 at once": together(actor.nothing.remote),
    }


def rate(step: Step, seconds: float) -> float:
    made, start = 0.0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        made += step()
    return made / elapsed


def main() -> int:
    arguments = argparse.ArgumentParser(description="Calls between nodes against calls within one")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=1.5, help="length of one measurement")
    options = arguments.parse_args()

    import shoal
    from shoal.cluster_utils import Cluster

    cluster = Cluster(True, head_node_args={"num_cpus": 1, "resources": {HERE: 1}})
    try:
        cluster.add_node(num_cpus=1, resources={THERE: 1})
        with shoal.init(cluster.address, logging_level="ERROR", log_to_driver=False):
            findings = measure(shoal, options.rounds, options.seconds)
    finally:
        cluster.shutdown()
    return report(findings, "Calls between nodes", "nodes")


def measure(ray: Any, rounds: int, seconds: float) -> list[Finding]:
    of_place = {place: steps(ray, place) for place in (HERE, THERE)}
    findings = []
    for row in of_place[HERE]:
        rates: dict[str, list[float]] = {HERE: [], THERE: []}
        for place in rates:
            rate(of_place[place][row], WARM_UP_SECONDS)
        for _ in range(rounds):
            for place, measured in rates.items():
                measured.append(rate(of_place[place][row], seconds))
        here, there = median(rates[HERE]), median(rates[THERE])
        text = f"{there:,.0f}/s; on the same node {here:,.0f}/s: {there / here:.0%}"
        findings.append(Finding(row, text, f"≥ {REQUIRED:.0%}", there >= REQUIRED * here))
    return findings


if __name__ == "__main__":
    sys.exit(main())
