"""The cost of a call must not grow with how many there are.

    python benchmarks/scaling.py           all cases, each in a process of its own; writes results/scaling.{md,json}
    python benchmarks/scaling.py CASE      one case; prints its figures as JSON

Times on a shared machine scatter, so "no slower" means at least ``NO_SLOWER`` of the rate it is compared with.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

NO_SLOWER = 0.8
#: A case that takes longer has failed; in seconds.
CASE_DEADLINE = 300
DRIVER_MEMORY_LIMIT_GB = 2.0


@dataclass(frozen=True)
class Finding:
    what: str
    measured: str
    required: str
    #: Nothing is required where ``required`` is empty.
    passed: bool


def million_tasks(ray: Any) -> list[Finding]:
    """A million tasks submitted at once against ten thousand."""

    @ray.remote
    def nothing() -> None:
        pass

    def rate(n: int) -> float:
        start = time.perf_counter()
        ray.get([nothing.remote() for _ in range(n)])
        return n / (time.perf_counter() - start)

    rate(10_000)
    small = median(rate(10_000) for _ in range(5))
    large = rate(1_000_000)
    # Linux counts the maximum in KiB.
    memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return [
        Finding(
            "1,000,000 tasks at once",
            f"{large:,.0f}/s; 10,000 at once: {small:,.0f}/s",
            f"≥ {NO_SLOWER:.0%} of the rate of 10,000",
            large >= NO_SLOWER * small,
        ),
        Finding(
            "driver memory at its highest",
            f"{memory_gb:.2f} GB",
            f"< {DRIVER_MEMORY_LIMIT_GB:g} GB",
            memory_gb < DRIVER_MEMORY_LIMIT_GB,
        ),
    ]


def hundred_thousand_refs(ray: Any) -> list[Finding]:
    """The rate of calls with 100,000 refs held, against the rate without."""

    class Echo:
        def nothing(self) -> None:
            pass

    @ray.remote
    def nothing() -> None:
        pass

    actor = ray.remote(Echo).remote()

    def task_rate() -> float:
        start = time.perf_counter()
        ray.get([nothing.remote() for _ in range(5_000)])
        return 5_000 / (time.perf_counter() - start)

    def call_rate() -> float:
        start = time.perf_counter()
        for _ in range(1_000):
            ray.get(actor.nothing.remote())
        return 1_000 / (time.perf_counter() - start)

    def rates() -> dict[str, float]:
        return {
            "tasks": median(task_rate() for _ in range(5)),
            "calls one at a time": median(call_rate() for _ in range(5)),
        }

    rates()
    without = rates()
    held = [ray.put(i) for i in range(50_000)] + [nothing.remote() for _ in range(50_000)]
    ray.wait(held, num_returns=len(held))
    with_refs = rates()
    findings = [
        Finding(
            f"{name} while 100,000 refs are held",
            f"{with_refs[name]:,.0f}/s; before: {without[name]:,.0f}/s",
            f"≥ {NO_SLOWER:.0%} of the rate before",
            with_refs[name] >= NO_SLOWER * without[name],
        )
        for name in without
    ]
    del held
    return findings


def hundred_actors(ray: Any) -> list[Finding]:
    """1,000 calls in flight to each of 100 actors."""

    class Counter:
        def __init__(self) -> None:
            self.calls = 0

        def add(self) -> int:
            self.calls += 1
            return self.calls

    start = time.perf_counter()
    actors = [ray.remote(Counter).remote() for _ in range(100)]
    ray.get([actor.add.remote() for actor in actors])
    created = time.perf_counter()
    replies = ray.get([actor.add.remote() for _ in range(1_000) for actor in actors])
    elapsed = time.perf_counter() - created
    expected = [n for n in range(2, 1_002) for _ in actors]
    return [
        Finding(
            "1,000 calls in flight to each of 100 actors",
            f"{len(replies):,} calls in {elapsed:.1f} s; actors created in {created - start:.1f} s",
            "every call answered, in order",
            replies == expected,
        )
    ]


CASES: dict[str, Callable[[Any], list[Finding]]] = {
    case.__name__: case for case in (million_tasks, hundred_thousand_refs, hundred_actors)
}


def run_case(name: str) -> None:
    import shoal

    shoal.init(num_cpus=2)
    findings = CASES[name](shoal)
    shoal.shutdown()
    print(json.dumps([asdict(finding) for finding in findings]))


def run_all() -> int:
    findings: list[Finding] = []
    for name in CASES:
        try:
            done = subprocess.run(
                [sys.executable, __file__, name], stdout=subprocess.PIPE, text=True, timeout=CASE_DEADLINE
            )
        except subprocess.TimeoutExpired:
            findings.append(Finding(name, f"not done after {CASE_DEADLINE} s", "to end", False))
            continue
        if done.returncode == 0:
            findings += [Finding(**finding) for finding in json.loads(done.stdout.splitlines()[-1])]
        else:
            findings.append(Finding(name, f"exit code {done.returncode}", "to end well", False))
    return report(findings, "The cost must not grow", "scaling")


def report(findings: list[Finding], title: str, stem: str) -> int:
    """Prints and writes the table; returns the exit code."""
    lines = [f"# {title}", "", "| | measured | required | |", "|---|---|---|---|"]
    for f in findings:
        outcome = "" if not f.required else "pass" if f.passed else "FAIL"
        lines.append(f"| {f.what} | {f.measured} | {f.required} | {outcome} |")
    table = "\n".join(lines) + "\n"
    print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{stem}.md").write_text(table)
    (RESULTS / f"{stem}.json").write_text(
        json.dumps([asdict(f) for f in findings], indent=1, ensure_ascii=False) + "\n"
    )
    return 0 if all(finding.passed for finding in findings) else 1


if __name__ == "__main__":
    if len(sys.argv) == 2:
        run_case(sys.argv[1])
    else:
        sys.exit(run_all())
