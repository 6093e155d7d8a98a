"""What recording task events costs: the same calls with and without, in turns, in one session.

    python benchmarks/task_events.py [ROUNDS]

Prints, for tasks and actor calls in batches and one at a time, the median rate of both and their ratio.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import shoal

Ref = shoal.ObjectRef[None]
BATCH = 5_000
ONE_BY_ONE = 1_000


@shoal.remote
def nothing() -> None:
    pass


class Nothing:
    def nothing(self) -> None:
        pass


def rate(call: Callable[[], Ref], count: int, *, at_once: bool) -> float:
    began = time.perf_counter()
    if at_once:
        shoal.get([call() for _ in range(count)])
    else:
        for _ in range(count):
            shoal.get(call())
    return count / (time.perf_counter() - began)


def main(rounds: int) -> None:
    shoal.init("local", num_cpus=2, logging_level="ERROR")
    quiet, actor = nothing.options(enable_task_events=False), shoal.remote(Nothing).remote()
    method: Any = actor.nothing
    rows: list[tuple[str, Callable[[], Ref], Callable[[], Ref], int, bool]] = [
        ("tasks, a batch", nothing.remote, quiet.remote, BATCH, True),
        ("tasks, one at a time", nothing.remote, quiet.remote, ONE_BY_ONE, False),
        (
            "actor calls, a batch",
            method.remote,
            method.options(enable_task_events=False).remote,
            BATCH,
            True,
        ),
        (
            "actor calls, one at a time",
            method.remote,
            method.options(enable_task_events=False).remote,
            ONE_BY_ONE,
            False,
        ),
    ]
    for title, told, untold, count, at_once in rows:
        for call in (told, untold):
            rate(call, count, at_once=at_once)
        with_events, without, ratios = [], [], []
        for number in range(rounds):
            order = (told, untold) if number % 2 else (untold, told)
            rates = {call: rate(call, count, at_once=at_once) for call in order}
            with_events.append(rates[told])
            without.append(rates[untold])
            ratios.append(rates[told] / rates[untold])
        print(
            f"{title:28s} {median(with_events):10,.0f}/s with, {median(without):10,.0f}/s without: {median(ratios):.3f}"
        )
    shoal.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
