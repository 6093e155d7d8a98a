"""The tasks of a job as a tree of functions."""

from __future__ import annotations

from shoal_dashboard.charts.call_tree import MAX_DEPTH, MAX_ROWS, call_tree
from shoal_dashboard.events.rows import Calls


def test_below_a_function_stands_what_its_tasks_have_submitted() -> None:
    branches, left_out = call_tree(
        [
            Calls("", "small", {"RUNNING": 1}),
            Calls("", "root", {"FINISHED": 2, "FAILED": 2}, run_ms=100.0, longest_ms=70.0),
            Calls("root", "leaf", {"FINISHED": 9}),
        ]
    )
    told = [(each.depth, each.calls.function, each.mean_ms) for each in branches]
    assert told == [(0, "root", 25.0), (1, "leaf", 0.0), (0, "small", None)]
    assert left_out == 0


def test_what_calls_itself_ends() -> None:
    calls = [Calls("", "a", {"FINISHED": 1}), Calls("a", "b", {"FINISHED": 1}), Calls("b", "a", {"FINISHED": 1})]
    branches, _ = call_tree(calls)
    assert [(each.calls.function, each.repeated) for each in branches] == [("a", False), ("b", False), ("a", True)]


def test_it_has_bounds() -> None:
    wide = [Calls("", f"f{number}", {"FINISHED": 1}) for number in range(MAX_ROWS + 5)]
    branches, left_out = call_tree(wide)
    assert (len(branches), left_out) == (MAX_ROWS, 5)
    deep = [Calls(f"f{number}" if number else "", f"f{number + 1}", {"FINISHED": 1}) for number in range(100)]
    assert max(each.depth for each in call_tree(deep)[0]) == MAX_DEPTH - 1
