"""The programs in examples/, and all that each prints."""

from __future__ import annotations

import re
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
#: The AutoML service, asked for what takes the least time; ``make demo`` asks for all that it can.
AUTOML = (
    EXAMPLES / "automl" / "main.py",
    *("--data-sets", "wine", "iris"),
    *("--models", "nearest neighbours", "linear discriminant", "support vectors", "decision tree"),
    *("--plot", "scores.png"),
)

_BLACKBOARD = "Ada was here, Edsger was here, Grace was here"
_TEAM = r"{} team: 4 bundles on \d node\(s\)\n{} team: the cells still add up to 30\n"
#: Patterns of the whole output: figures that differ from run to run, or with Python's documentation, are left open.
OUTPUTS = {
    "squares.py": r"squares: \[0, 1, 4, 9, 16, 25, 36, 49, 64, 81\]\n",
    "parallel_sleeps.py": r"4 seconds of sleep in \d+\.\d s\n",
    "many_tiny_tasks.py": r"100,000 tasks in \d+\.\d s, [\d,]+ a second; they add up to 9,999,900,000\n",
    "wait_loop.py": r"finished in this order:( \d+){40}\n",
    "numpy_dependencies.py": r"product of four 500x500 matrices, trace -137274\.\d{3}\n",
    "counter_actors.py": r"one counter: \[1, 2, 3, 4, 5, 6, 7, 8, 9, 10\]\nafter four tasks added five each: 30\n"
    r"three counters: \[1, 101, 201\]\n",
    "map_reduce.py": r"[\d,]+ words, [\d,]+ different ones\. The most frequent:\n  the +[\d,]+\n"
    r"(  [a-z]+ +[\d,]+\n){4}",
    "tree_reduce.py": r"64 partial sums added in 6 levels: 2,047,968,000\n",
    "named_actor.py": rf"on the blackboard: {_BLACKBOARD}\nno such name: ValueError\n",
    "durable_bank.py": r"[\d,]+ transfers, 3 kills: 10,000 are in the accounts as before\n",
    "placement_group.py": _TEAM.format("first", "first") + _TEAM.format("second", "second"),
}


def check_automl(output: str, directory: Path) -> None:
    """Both requests were served, each has a winner, and the plot is in ``directory``, which is removed."""
    assert "40/40 fits, 2/2 requests done" in output
    assert output.count("<- winner") == 2
    plot = directory / "scores.png"
    assert plot.read_bytes().startswith(b"\x89PNG")
    plot.unlink()


def check_output(example: str, output: str) -> None:
    """Every line of it is the right one."""
    assert re.fullmatch(OUTPUTS[example], output), f"{example} printed:\n{output}"
