"""What a process has counted, until it reports."""

from __future__ import annotations

import pytest

from shoal._core import metrics
from shoal._core.metrics import MetricTable
from shoal_common.channel.frames import MetricGrowth
from shoal_common.service.metrics import Family

RUNS = Family("runs", "counter", "how many")


def test_it_takes_what_has_grown_since() -> None:
    table = MetricTable()
    table.declare(RUNS)
    table.record(RUNS, (("kind", "a"),), 1)
    table.record(RUNS, (("kind", "a"),), 2)
    (first,) = table.take({"JobId": "1"})
    assert first == MetricGrowth("runs", "counter", "how many", (), (("JobId", "1"), ("kind", "a")), 3, [])
    assert table.take({}) == []
    table.record(RUNS, (("JobId", "mine"),), 5)
    (second,) = table.take({"JobId": "1"})
    assert (second.labels, second.value) == ((("JobId", "mine"),), 5), "a tag of the user's own counts"


def test_a_name_is_of_one_kind() -> None:
    table = MetricTable()
    table.declare(RUNS)
    table.declare(Family("runs", "counter", "in other words"))
    with pytest.raises(ValueError, match="a metric named runs already, a counter: choose another"):
        table.declare(Family("runs", "gauge"))
    table.declare(Family("took", "histogram", boundaries=(1.0, 2.0)))
    with pytest.raises(ValueError, match=r"a histogram with boundaries \[1\.0, 2\.0\]"):
        table.declare(Family("took", "histogram", boundaries=(1.0,)))


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_SERIES", 2)
    table = MetricTable()
    table.declare(RUNS)
    for kind in "abc":
        table.record(RUNS, (("kind", kind),), 1)
    assert [each.labels for each in table.take({})] == [(("kind", "b"),), (("kind", "c"),)]
