"""The last hour of loads, in steps, with the time as an argument."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shoal_common.events.node_events import NodeLoad
from shoal_dashboard.charts import ring as ring_module
from shoal_dashboard.charts.ring import STEP_S, STEPS, Last, Ring

A, B = b"a" * 16, b"b" * 16


def load(node_id: bytes = A, cpu_percent: float = 50, running: int = 1) -> NodeLoad:
    return NodeLoad(node_id, cpu_percent, 4, 1_000, 4_000, 10, 100, running, 2)


@pytest.fixture
def ring() -> Iterator[Ring]:
    ring = Ring()
    yield ring
    ring.validate()


def at(step: int) -> float:
    return step * STEP_S + 0.01


def test_the_cluster_is_the_sum_of_its_nodes(ring: Ring) -> None:
    ring.told(load(A, 50), at(10))
    ring.told(load(B, 100), at(10))
    ring.step(at(11), {"RUNNING": 3, "PENDING_NODE_ASSIGNMENT": 4, "FINISHED": 10})
    span = ring.span(after=10)
    assert {name: span.series[name] for name in ("cpus_busy", "cpus", "memory_used", "running", "waiting")} == {
        "cpus_busy": [6.0],
        "cpus": [8.0],
        "memory_used": [2_000.0],
        "running": [2.0],
        "waiting": [4.0],
    }
    assert (span.series["tasks_running"], span.series["tasks_waiting"]) == ([3.0], [4.0])
    assert ring.span(A).series["cpus_busy"][-1] == 2.0
    assert "tasks_running" not in ring.span(A).series
    assert ring.span(b"nobody").series == {}


def test_tasks_that_end_are_told_a_second(ring: Ring) -> None:
    ring.step(at(1), {"FINISHED": 100})
    ring.step(at(2), {"FINISHED": 150, "FAILED": 5})
    ring.step(at(4), {"FINISHED": 250, "FAILED": 5})
    assert ring.span(after=0).series["tasks_finished"] == [None, 10.0, None, 10.0]
    assert ring.span(after=0).series["tasks_failed"] == [None, 1.0, None, 0.0]


def test_a_silent_node_counts_no_more_and_is_forgotten_after_an_hour(ring: Ring) -> None:
    ring.told(load(), at(1))
    for step in range(2, 8):
        ring.step(at(step), {})
    assert ring.span(A, after=1).series["cpus"] == [4, 4, 4, None, None, None]
    assert ring.nodes() == {}
    ring.step(at(1 + STEPS), {})
    assert ring.span(A).series["cpus"][:4] == [4, 4, 4, None]
    ring.step(at(2 + STEPS), {})
    assert ring.span(A).series == {}


def test_an_hour_is_kept_and_what_is_missing_is_empty(ring: Ring) -> None:
    for step in range(2 * STEPS):
        ring.told(load(running=step), at(step))
        ring.step(at(step), {})
    running = ring.span(A).series["running"]
    assert len(running) == STEPS and running[0] == STEPS and running[-1] == 2 * STEPS - 1
    ring.step(at(2 * STEPS - 1), {"RUNNING": 9})
    assert ring.span().series["tasks_running"][-1] == 0, "a step is complete once"
    ring.step(at(10 * STEPS), {})
    assert ring.span().series["running"] == [None] * STEPS
    assert ring.newest == 10 * STEPS


def test_who_asks_again_gets_what_has_come_since(ring: Ring) -> None:
    assert ring.span().series["cpus"] == [] and ring.span().newest == -1
    for step in range(5):
        ring.told(load(), at(step))
        ring.step(at(step), {})
    assert ring.span(after=2).series["cpus"] == [4, 4]
    assert ring.span(after=4).series["cpus"] == []
    assert len(ring.span(after=99).series["cpus"]) == STEPS, "of another life of the dashboard"


def test_last_values(ring: Ring) -> None:
    assert ring.last()["cpus"] == Last(None, None, None)
    for step, running in enumerate([100, *range(1, 13)]):
        ring.told(load(running=running), at(step))
        ring.step(at(step), {})
    assert ring.last(A)["running"] == Last(12, 6.5, 100)


def test_nodes_beyond_the_bound_are_in_the_cluster_only(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "MAX_NODES", 1)
    ring.told(load(A), at(1))
    ring.told(load(B), at(1))
    ring.step(at(1), {})
    assert ring.span().series["cpus"][-1] == 8
    assert ring.span(B).series == {}
