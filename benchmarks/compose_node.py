"""Rows of compare.py for a driver inside the deployment of compose.yaml, against an embedded cluster on this machine.

    make up && python benchmarks/compose_node.py [--rounds 3] [--seconds 1.0]

The containers' driver attaches to a raylet of two CPUs, as the embedded cluster has. The median of rounds in turn
counts. Writes compose_node.md and compose_node.json to benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from nodes import rate
from programs import (
    get_stored_array,
    one_actor_call_at_a_time,
    one_task_at_a_time,
    small_get,
    small_put,
    task_on_stored_array,
    thousand_actor_calls_at_once,
    thousand_tasks_at_once,
)
from scaling import Finding, report

REQUIRED = 0.8
WARM_UP_SECONDS = 1.0
HERE = Path(__file__).parent
PROGRAMS = {
    "tasks, one at a time": one_task_at_a_time,
    "tasks, 1,000 at once": thousand_tasks_at_once,
    "actor calls, one at a time": one_actor_call_at_a_time,
    "actor calls, 1,000 at once": thousand_actor_calls_at_once,
    "small puts": small_put,
    "small gets": small_get,
    "tasks on a 1 MiB array": task_on_stored_array,
    "gets of a 1 MiB array": get_stored_array,
}


def main() -> int:
    arguments = argparse.ArgumentParser(description="A node of the deployment against an embedded cluster")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=1.0, help="length of one measurement")
    arguments.add_argument("--env-file", help="as for docker compose, e.g. docker/local-images.env")
    arguments.add_argument("--measure", action="store_true", help="only this process, on whatever init() finds")
    options = arguments.parse_args()
    if options.measure:
        print(json.dumps(measure(options.seconds)))
        return 0
    inside = ["docker", "compose", *(["--env-file", options.env_file] if options.env_file else []), "run", "--rm", "-T"]
    inside += ["--volume", f"{HERE.resolve()}:/benchmarks:ro", "driver", "python", "/benchmarks/compose_node.py"]
    embedded = [sys.executable, str(HERE / "compose_node.py")]
    rates: dict[str, dict[str, list[float]]] = {row: {"embedded": [], "inside": []} for row in PROGRAMS}
    for _ in range(options.rounds):
        for name, command in (("embedded", embedded), ("inside", inside)):
            for row, measured in run([*command, "--measure", f"--seconds={options.seconds}"]).items():
                rates[row][name].append(measured)
    return report(list(map(finding, rates, rates.values())), "A node of the deployment", "compose_node")


def run(command: list[str]) -> dict[str, float]:
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=HERE.parent, timeout=300)
    result: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return result


def finding(row: str, rates: dict[str, list[float]]) -> Finding:
    embedded, inside = median(rates["embedded"]), median(rates["inside"])
    text = f"{inside:,.0f}/s; embedded {embedded:,.0f}/s: {inside / embedded:.0%}"
    return Finding(row, text, f"≥ {REQUIRED:.0%}", inside >= REQUIRED * embedded)


def measure(seconds: float) -> dict[str, float]:
    import shoal

    place: dict[str, Any] = {} if "SHOAL_ADDRESS" in os.environ else {"address": "local", "num_cpus": 2}
    rates = {}
    for row, program in PROGRAMS.items():
        # Each on a session of its own, as in compare.py.
        with shoal.init(**place, logging_level="ERROR", log_to_driver=False):
            step = program(shoal)
            rate(step, WARM_UP_SECONDS)
            rates[row] = rate(step, seconds)
    return rates


if __name__ == "__main__":
    sys.exit(main())
