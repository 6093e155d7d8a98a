"""Who calls whom, collapsed by function, and where that is drawn."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from shoal_dashboard.charts.call_graph import DRIVER, MAX_FUNCTIONS, call_graph
from shoal_dashboard.charts.graph_layout import BOX_HEIGHT, BOX_WIDTH, drawing
from shoal_dashboard.events.rows import Calls, FunctionCounts


def counts(name: str, **states: int) -> FunctionCounts:
    return FunctionCounts("01", name, "NORMAL_TASK", states, 0, 0, 0.0, 0.0, 0.0)


def test_functions_have_exact_counts_and_lines_the_recorded_calls() -> None:
    graph = call_graph(
        [counts("leaf", FINISHED=90, FAILED=10), counts("root", RUNNING=1)],
        [Calls("root", "leaf", {"FINISHED": 70}), Calls("", "root", {"RUNNING": 1})],
    )
    assert [(each.name, each.tasks) for each in graph.functions] == [(DRIVER, 0), ("leaf", 100), ("root", 1)]
    assert graph.calls == {("root", "leaf"): 70, (DRIVER, "root"): 1}


def test_those_with_fewest_tasks_are_one() -> None:
    many = [counts(f"f{n:03}", FINISHED=1_000 - n) for n in range(MAX_FUNCTIONS + 5)]
    graph = call_graph(many, [Calls("f000", each.func_or_class_name, {"RUNNING": 1}) for each in many])
    assert len(graph.functions) == MAX_FUNCTIONS + 1
    others = graph.functions[-1]
    assert others.name == "5 other functions" and others.collapsed
    assert others.tasks == sum(each.states["FINISHED"] for each in many[-5:])
    assert graph.calls["f000", others.name] == 5


def test_callers_are_above_what_they_call() -> None:
    calls = {("a", "b"): 1, ("b", "c"): 1, ("a", "c"): 1, ("c", "a"): 1, ("b", "b"): 1}
    boxes = {box.name: box for box in drawing(["c", "b", "a", "lone"], {**calls, ("lone", "a"): 1}).boxes}
    assert boxes["lone"].y < boxes["a"].y < boxes["b"].y < boxes["c"].y


_NAMES = [f"f{n}" for n in range(8)]


@given(st.dictionaries(st.tuples(st.sampled_from(_NAMES), st.sampled_from(_NAMES)), st.integers(1, 9), max_size=30))
def test_whatever_calls_what_all_of_it_is_drawn_within_the_picture(calls: dict[tuple[str, str], int]) -> None:
    drawn = drawing(_NAMES, calls)
    assert [box.name for box in drawn.boxes] == _NAMES
    assert {(line.caller, line.callee): line.count for line in drawn.lines} == calls
    places = {(box.x, box.y) for box in drawn.boxes}
    assert len(places) == len(_NAMES), "no two in one place"
    for box in drawn.boxes:
        assert box.x >= 0 and box.x + BOX_WIDTH <= drawn.width
        assert box.y >= 0 and box.y + BOX_HEIGHT <= drawn.height
    for line in drawn.lines:
        xs = [int(number) for number in re.findall(r"(-?\d+) -?\d+", line.path)]
        assert all(0 <= x <= drawn.width for x in xs)


def test_of_nothing_nothing_is_drawn() -> None:
    drawn = drawing([], {})
    assert not drawn.boxes and not drawn.lines and drawn.width > 0
