"""Attempts as a Chrome trace: slices of a thread never overlap, arrows go from parent to child."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from shoal_dashboard.events.chrome_trace import chrome_trace
from shoal_dashboard.events.rows import TaskRow


def row(task_id: str, begins: int, ends: int, *, parent: str = "", worker: str = "w1", **more: Any) -> TaskRow:
    given: dict[str, Any] = {
        "task_id": task_id,
        "attempt_number": 0,
        "name": task_id,
        "state": "FINISHED" if ends else "RUNNING",
        "job_id": "01",
        "actor_id": "",
        "type": "NORMAL_TASK",
        "func_or_class_name": "f",
        "parent_task_id": parent,
        "node_id": "n1",
        "worker_id": worker,
        "worker_pid": 7,
        "error_type": "",
        "error_class": "",
        "error_message": "",
        "required_resources": {},
        "creation_time_ms": begins - 5,
        "state_time_ms": ends,
        "start_time_ms": begins,
        "end_time_ms": ends,
        "state_times_ms": {},
    }
    return TaskRow(**{**given, **more})


def of(trace: list[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    return [event for event in trace if event["ph"] == phase]


def test_one_slice_an_attempt_in_microseconds() -> None:
    (slice_,) = of(chrome_trace([row("a", 1_000, 1_250)], 9_999), "X")
    assert (slice_["ts"], slice_["dur"], slice_["name"], slice_["args"]["task_id"]) == (1_000_000, 250_000, "a", "a")


def test_what_still_runs_is_drawn_until_now() -> None:
    (slice_,) = of(chrome_trace([row("a", 1_000, 0)], 1_500), "X")
    assert slice_["dur"] == 500_000


def test_slices_of_a_thread_do_not_overlap() -> None:
    rows = [row(str(number), 10 * number, 10 * number + 35) for number in range(20)]
    rows += [row("other", 200, 300, worker="w2")]
    trace = chrome_trace(rows, 0)
    threads: dict[int, list[dict[str, Any]]] = {}
    for slice_ in of(trace, "X"):
        threads.setdefault(slice_["tid"], []).append(slice_)
    assert len(threads) == 4 + 1
    for slices in threads.values():
        assert all(first["ts"] + first["dur"] <= second["ts"] for first, second in pairwise(slices))
    assert {event["args"]["name"] for event in of(trace, "M")} == {"node n1", "worker 7"}


def test_an_arrow_from_the_parents_slice_to_the_childs() -> None:
    rows = [row("a", 1_000, 2_000), row("b", 1_500, 1_600, parent="a", worker="w2"), row("c", 3_000, 3_100, parent="a")]
    trace = chrome_trace(rows, 0)
    starts, ends = of(trace, "s"), of(trace, "f")
    assert [arrow["ts"] for arrow in starts] == [1_495_000, 2_000_000], "within the slice of the parent"
    assert [arrow["ts"] for arrow in ends] == [1_500_000, 3_000_000]
    assert [arrow["id"] for arrow in starts] == [arrow["id"] for arrow in ends]


def test_a_failure_shows_its_error() -> None:
    failed = row("a", 1, 2, state="FAILED", error_type="WORKER_DIED", error_message="gone", actor_id="ac")
    (slice_,) = of(chrome_trace([failed], 0), "X")
    assert slice_["cname"] == "terrible"
    assert (slice_["args"]["error"], slice_["args"]["actor_id"]) == ("gone", "ac")
