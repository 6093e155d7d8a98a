"""``priority`` of tasks: of what waits for the same resources, a job runs what has the higher one first."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import shoal

pytestmark = pytest.mark.usefixtures("cluster")


@shoal.remote(num_cpus=2)
def run(name: str, log: Path, until: Path | None = None) -> None:
    """Notes that it runs. Waits without lending what it holds, as it would in ``get``."""
    with log.open("a") as file:
        file.write(name + "\n")
    while until is not None and not until.exists():
        time.sleep(0.01)


@shoal.remote(num_cpus=0, priority=1)
def parent(log: Path) -> None:
    shoal.get(run.remote("child", log))


def test_the_higher_one_first_whoever_came_first(tmp_path: Path) -> None:
    log, done = tmp_path / "log", tmp_path / "done"
    first = run.options(priority=9).remote("first", log, done)
    while not log.exists():
        time.sleep(0.01)
    refs = [run.remote("low", log) for _ in range(20)]
    refs += [run.options(priority=2).remote("high", log) for _ in range(3)]
    refs += [run.options(priority=-1).remote("lowest", log) for _ in range(2)]
    # One of another process, whose task has the priority of the one that submits it.
    child = parent.remote(log)
    while "it waits for 2 CPU" not in str(shoal.explain(child)):
        time.sleep(0.05)
    done.touch()
    shoal.get([first, *refs, child])
    assert log.read_text().split() == ["first", *["high"] * 3, "child", *["low"] * 20, *["lowest"] * 2]
