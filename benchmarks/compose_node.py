"""Rows of compare.py for a driver inside the deployment of compose.yaml, against an embedded cluster on this machine.

    make up && python benchmarks/compose_node.py [--rounds 9] [--seconds 0.4]

The containers' driver attaches to a raylet of two CPUs, as the embedded cluster has. Actors are on the driver's own
node, because what a call to another one costs is measured by nodes.py. In each row both clusters are there, and take
turns; the median of the rounds counts. Writes compose_node.md and compose_node.json to benchmarks/results.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace
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
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--seconds", type=float, default=0.4, help="length of one measurement")
    arguments.add_argument("--env-file", help="as for docker compose, e.g. docker/local-images.env")
    arguments.add_argument("--measure", action="store_true", help="only this process, on whatever init() finds")
    options = arguments.parse_args()
    if options.measure:
        measure(options.rounds, options.seconds)
        return 0
    itself = ["--measure", f"--rounds={options.rounds}", f"--seconds={options.seconds}"]
    inside = ["docker", "compose", *(["--env-file", options.env_file] if options.env_file else []), "run", "--rm", "-T"]
    inside += ["--volume", f"{HERE.resolve()}:/benchmarks:ro", "driver", "python", "/benchmarks/compose_node.py"]
    embedded = [sys.executable, str(HERE / "compose_node.py")]
    with participant([*embedded, *itself]) as first, participant([*inside, *itself]) as second:
        findings = [finding(row, *take_turns(options.rounds, first, second)) for row in PROGRAMS]
    return report(findings, "A node of the deployment", "compose_node")


@contextlib.contextmanager
def participant(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent
    ) as process:
        yield process


def take_turns(rounds: int, *processes: subprocess.Popen[str]) -> list[list[float]]:
    """The rates that each process measures in its next row, after all are ready for it."""
    for process in processes:
        answer(process)
    rates: list[list[float]] = [[] for _ in processes]
    for _ in range(rounds):
        for process, measured in zip(processes, rates, strict=True):
            assert process.stdin is not None
            print(file=process.stdin, flush=True)
            measured.append(float(answer(process)))
    return rates


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"it ended: {process.args!r}")
    return line


def finding(row: str, embedded_rates: list[float], inside_rates: list[float]) -> Finding:
    embedded, inside = median(embedded_rates), median(inside_rates)
    text = f"{inside:,.0f}/s; embedded {embedded:,.0f}/s: {inside / embedded:.0%}"
    return Finding(row, text, f"≥ {REQUIRED:.0%}", inside >= REQUIRED * embedded)


def measure(rounds: int, seconds: float) -> None:
    """Says when it is ready for a row; answers each line of standard input with a rate."""
    import shoal

    place: dict[str, Any] = {} if "SHOAL_ADDRESS" in os.environ else {"address": "local", "num_cpus": 2}
    for program in PROGRAMS.values():
        # Each on a session of its own, as in compare.py.
        with shoal.init(**place, logging_level="ERROR", log_to_driver=False):
            step = program(on_this_node(shoal))
            rate(step, WARM_UP_SECONDS)
            print("ready", flush=True)
            for _ in range(rounds):
                sys.stdin.readline()
                print(rate(step, seconds), flush=True)


def on_this_node(shoal: Any) -> Any:
    """The library, but actors are created on the driver's node."""
    from shoal.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(shoal.get_runtime_context().get_node_id(), soft=False)

    def remote(thing: Any) -> Any:
        return shoal.remote(scheduling_strategy=here)(thing) if isinstance(thing, type) else shoal.remote(thing)

    return SimpleNamespace(remote=remote, get=shoal.get, put=shoal.put)


if __name__ == "__main__":
    sys.exit(main())
