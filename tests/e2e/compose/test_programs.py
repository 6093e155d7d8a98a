"""The example programs on the deployment."""

from __future__ import annotations

import pytest
from support.stack import Stack

#: What a run prints, apart from the figures that differ from run to run.
EXPECTED = {
    "squares.py": "squares: [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]",
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
