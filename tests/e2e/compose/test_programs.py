"""The example programs on the deployment."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.stack import ROOT, Stack

#: What a run prints, apart from the figures that differ from run to run.
EXPECTED = {
    "squares.py": "squares: [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]",
    "many_tiny_tasks.py": "they add up to 9,999,900,000",
    "parallel_sleeps.py": "4 seconds of sleep in",
    "wait_loop.py": "finished in this order:",
    "numpy_dependencies.py": "product of four 500x500 matrices, trace",
    "counter_actors.py": "three counters: [1, 101, 201]",
    "map_reduce.py": "The most frequent:",
    "tree_reduce.py": "64 partial sums added in 6 levels: 2,047,968,000",
    "named_actor.py": "on the blackboard: Ada was here, Edsger was here, Grace was here",
}


@pytest.mark.parametrize("example", EXPECTED)
def test_a_driver_inside_the_network(stack: Stack, example: str) -> None:
    assert EXPECTED[example] in stack.drive("python", example)


@pytest.mark.parametrize("example", EXPECTED)
def test_a_driver_outside(stack: Stack, example: str) -> None:
    assert EXPECTED[example] in stack.drive_from_outside(ROOT / "examples" / example)


def test_the_automl_service_from_outside(stack: Stack, tmp_path: Path) -> None:
    plot = tmp_path / "scores.png"
    text = stack.drive_from_outside(ROOT / "examples" / "automl" / "main.py", "--plot", plot, timeout=300)
    assert "on 6 CPUs" in text
    assert plot.stat().st_size > 1000


def test_a_wrong_token_is_refused_outside(stack: Stack) -> None:
    program = f"""
import shoal
try:
    shoal.init("shoal://127.0.0.1:{stack.gateway_port}")
except shoal.exceptions.AuthenticationError as error:
    print("refused:", error)
"""
    assert "refused:" in stack.drive_from_outside("-c", program, SHOAL_AUTH_TOKEN="wrong" * 10)


def test_a_driver_reads_large_objects_in_place(stack: Stack) -> None:
    """The driver maps the arena of a raylet in another container: what a task returns is not copied."""
    program = """
import numpy as np, shoal
shoal.init()
@shoal.remote
def make():
    return np.arange(4_000_000)
array = shoal.get(make.remote())
maps = open("/proc/self/maps").read()
print("sum", int(array.sum()), "writeable", array.flags.writeable, "arena", "memfd:" in maps)
"""
    assert "sum 7999998000000 writeable False arena True" in stack.drive("python", "-c", program)
