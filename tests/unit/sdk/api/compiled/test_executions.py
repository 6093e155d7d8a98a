"""Which executions of a compiled graph are under way."""

from __future__ import annotations

import pytest

from shoal import exceptions
from shoal._api.compiled.executions import Executions


def test_rows_come_in_the_order_of_submission() -> None:
    executions = Executions(2, 10, 10)
    first, second = executions.begin(), executions.begin()
    assert executions.on_row(["a", "b"]) is first
    assert (first.take(1), first.take(0)) == ("b", "a")
    assert second.row is None


def test_what_is_dropped_is_not_kept() -> None:
    executions = Executions(2, 10, 10)
    execution = executions.begin()
    execution.drop(0)
    assert not executions.next_is_dropped
    executions.on_row(["a", "b"])
    assert execution.row == [None, "b"]
    execution.drop(1)
    assert execution.row == [None, None]
    executions.begin().drop(0)
    executions.unread[0].drop(1)
    assert executions.next_is_dropped


def test_executions_under_way() -> None:
    executions = Executions(1, 2, 10)
    kept = [executions.begin() for _ in range(2)]
    with pytest.raises(exceptions.CompiledGraphCapacityExceeded, match="more than 2 in-flight"):
        executions.check_inflight(until_taken=False)
    executions.on_row(["a"])
    executions.check_inflight(until_taken=False)
    with pytest.raises(exceptions.CompiledGraphCapacityExceeded):
        executions.check_inflight(until_taken=True)
    kept[0].take(0)
    executions.check_inflight(until_taken=True)


def test_rows_kept_for_later() -> None:
    executions = Executions(1, 10, 1)
    first = executions.begin()
    executions.begin()
    executions.check_buffered()
    executions.on_row(["a"])
    with pytest.raises(exceptions.CompiledGraphCapacityExceeded, match="more than 1 buffered"):
        executions.check_buffered()
    first.drop(0)
    executions.check_buffered()
