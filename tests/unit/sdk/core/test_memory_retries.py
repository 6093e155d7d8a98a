"""A task that was killed for the node's memory."""

from __future__ import annotations

from shoal._core.memory_retries import FIRST_PAUSE_S, FREE_RETRIES, LAST_PAUSE_S, pause_before_retry
from shoal._core.task_record import FunctionRecord, TaskRecord
from shoal._wire.peer_frames import TaskPush


def task(retries: int) -> TaskRecord:
    return TaskRecord(TaskPush(b"t", b"", "f", b""), FunctionRecord(b"f", "f"), [], retries_left=retries)


def test_it_waits_longer_each_time() -> None:
    record = task(3)
    pauses = [pause_before_retry(record, True, 1) for _ in range(10)]
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LAST_PAUSE_S


def test_the_pauses_of_two_differ_by_chance() -> None:
    assert pause_before_retry(task(1), True, 0) == FIRST_PAUSE_S / 2


def test_what_filled_the_memory_with_others_loses_no_retry() -> None:
    record = task(1)
    for _ in range(FREE_RETRIES):
        assert pause_before_retry(record, True, 1) is not None
    assert record.retries_left == 1
    assert record.push.attempt == FREE_RETRIES
    assert pause_before_retry(record, True, 1) is not None, "the last one is its own"
    assert pause_before_retry(record, True, 1) is None


def test_what_filled_it_alone_loses_one() -> None:
    record = task(1)
    assert pause_before_retry(record, False, 1) is not None
    assert record.retries_left == 0 and record.push.attempt == 1
    assert pause_before_retry(record, False, 1) is None


def test_what_may_run_only_once_never_runs_again() -> None:
    assert pause_before_retry(task(0), True, 1) is None
