"""What a node adds up of what its processes count."""

from __future__ import annotations

import pytest

from shoal_common.channel.frames import MetricGrowth
from shoal_raylet.workers import metrics
from shoal_raylet.workers.metrics import ProcessMetrics

A, B = b"process a", b"process b"


def counter(value: float, *labels: tuple[str, str], name: str = "runs") -> MetricGrowth:
    return MetricGrowth(name, "counter", "", (), labels, value, [])


def gauge(value: float) -> MetricGrowth:
    return MetricGrowth("heat", "gauge", "", (), (), value, [])


def samples(node: ProcessMetrics) -> list[str]:
    return [line.replace(',NodeId="00"', "") for line in node.page(False).splitlines() if not line.startswith("#")]


def test_counters_of_all_processes_add_up_and_outlive_them() -> None:
    node = ProcessMetrics(b"\0")
    node.add(A, [counter(1, ("JobId", "1")), counter(4, ("JobId", "2"))])
    node.add(B, [counter(2, ("JobId", "1"))])
    node.process_ended(A)
    assert samples(node) == ['shoal_runs_total{JobId="1"} 3.0', 'shoal_runs_total{JobId="2"} 4.0']


def test_a_gauge_is_the_last_word_of_those_that_live() -> None:
    node = ProcessMetrics(b"\0")
    node.add(A, [gauge(1)])
    node.add(B, [gauge(2)])
    assert samples(node) == ['shoal_heat{NodeId="00"} 2.0']
    node.add(A, [gauge(3)])
    assert samples(node) == ['shoal_heat{NodeId="00"} 3.0']
    node.process_ended(A)
    assert samples(node) == ['shoal_heat{NodeId="00"} 2.0']
    node.process_ended(B)
    assert samples(node) == []


def test_two_metrics_of_one_name_do_not_break_the_page() -> None:
    node = ProcessMetrics(b"\0")
    node.add(A, [counter(1, name="heat")])
    node.add(B, [gauge(2)])
    assert samples(node) == ['shoal_heat{NodeId="00"} 2.0']


def test_series_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_SERIES", 2)
    node = ProcessMetrics(b"\0")
    node.add(A, [counter(1, ("k", "old")), counter(1, ("k", "kept")), counter(1, ("k", "old"))])
    node.add(A, [counter(1, ("k", "new"))])
    assert [line.split('k="')[1] for line in samples(node)] == ['new"} 1.0', 'old"} 2.0']
