"""The programs in examples/, and what each prints."""

from __future__ import annotations

from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"

#: What a run prints, apart from the figures that differ from run to run.
EXPECTED = {
    "squares.py": "squares: [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]",
    "parallel_sleeps.py": "4 seconds of sleep in",
    "many_tiny_tasks.py": "they add up to 9,999,900,000",
    "wait_loop.py": "finished in this order:",
    "numpy_dependencies.py": "product of four 500x500 matrices, trace",
    "counter_actors.py": "three counters: [1, 101, 201]",
    "map_reduce.py": "The most frequent:",
    "tree_reduce.py": "64 partial sums added in 6 levels: 2,047,968,000",
    "named_actor.py": "on the blackboard: Ada was here, Edsger was here, Grace was here",
    "placement_group.py": "second team: the cells still add up to 30",
}
