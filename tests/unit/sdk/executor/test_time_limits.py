"""What a worker does with tasks and calls that have a time limit."""

from __future__ import annotations

import pytest

from shoal._core.deadlines import BEHIND, RUNNING
from shoal._executor.time_limits import Stopped, TimeLimits
from shoal._wire.peer_frames import TaskPush, TimeLeft


def push(left_s: float) -> TaskPush:
    return TaskPush(b"t" * 20, b"f", "f", b"", time_left=TimeLeft(60.0, left_s))


def test_in_time_it_begins() -> None:
    limits, call = TimeLimits(), push(60.0)
    limits.arrived([call])
    limits.begin(call)


def test_past_its_deadline_it_does_not_begin() -> None:
    limits, call = TimeLimits(), push(0.0)
    limits.arrived([call])
    with pytest.raises(Stopped) as stopped:
        limits.begin(call)
    assert (stopped.value.error.where, stopped.value.error.timeout_s) == (BEHIND, 60.0)


def test_stopped_by_its_owner_it_does_not_begin() -> None:
    limits, call = TimeLimits(), push(60.0)
    limits.arrived([call])
    assert limits.stop(call.task_id)
    with pytest.raises(Stopped):
        limits.begin(call)


def test_what_runs_is_unwound() -> None:
    limits, call = TimeLimits(), push(60.0)
    limits.arrived([call])
    limits.begin(call)
    limits.unwind(call.task_id)  # nobody has stopped it
    assert limits.stop(call.task_id)
    with pytest.raises(Stopped) as stopped:
        limits.unwind(call.task_id)
    assert stopped.value.error.where == RUNNING


def test_what_has_ended_is_not_stopped_nor_what_comes_after_it() -> None:
    limits, call = TimeLimits(), push(60.0)
    limits.arrived([call])
    limits.begin(call)
    limits.ended(call)
    assert not limits.stop(call.task_id)
    limits.arrived([call])  # a retry
    limits.begin(call)
