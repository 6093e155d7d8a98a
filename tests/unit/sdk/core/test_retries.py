"""When what has failed runs again."""

from __future__ import annotations

from shoal._core.retries import (
    FIRST_MEMORY_PAUSE_S,
    FIRST_PAUSE_S,
    FREE_RETRIES,
    LAST_MEMORY_PAUSE_S,
    LAST_PAUSE_S,
    pause_before_memory_retry,
    pause_before_retry,
)
from shoal._core.task_record import FunctionRecord, TaskRecord
from shoal._wire.peer_frames import TaskPush


def task(retries: int) -> TaskRecord:
    return TaskRecord(TaskPush(b"t", b"", "f", b""), FunctionRecord(b"f", "f"), [], retries_left=retries)


def test_the_first_retry_comes_at_once_and_each_next_one_later() -> None:
    record = task(-1)
    pauses = [pause_before_retry(record, 1) for _ in range(2_000)]
    assert pauses[:4] == [0, FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LAST_PAUSE_S
    assert record.push.attempt == 2_000


def test_the_pauses_of_two_differ_by_chance() -> None:
    early, late = task(2), task(2)
    for record in (early, late):
        pause_before_retry(record, 1)
    assert pause_before_retry(early, 0) == FIRST_PAUSE_S / 2
    assert pause_before_retry(late, 1) == FIRST_PAUSE_S


def test_retries_are_used_up() -> None:
    record = task(1)
    assert pause_before_retry(record, 1) is not None
    assert pause_before_retry(record, 1) is None
    assert record.retries_left == 0 and record.push.attempt == 1


def test_what_may_run_only_once_never_runs_again() -> None:
    assert pause_before_retry(task(0), 1) is None
    assert pause_before_memory_retry(task(0), True, 1) is None


def test_what_filled_the_memory_waits_longer_each_time() -> None:
    record = task(3)
    pauses = [pause_before_memory_retry(record, True, 1) for _ in range(10)]
    assert pauses[:3] == [FIRST_MEMORY_PAUSE_S, 2 * FIRST_MEMORY_PAUSE_S, 4 * FIRST_MEMORY_PAUSE_S]
    assert pauses[-1] == LAST_MEMORY_PAUSE_S
    assert pause_before_memory_retry(task(1), True, 0) == FIRST_MEMORY_PAUSE_S / 2


def test_what_filled_the_memory_with_others_loses_no_retry() -> None:
    record = task(1)
    for _ in range(FREE_RETRIES):
        assert pause_before_memory_retry(record, True, 1) is not None
    assert record.retries_left == 1
    assert record.push.attempt == FREE_RETRIES
    assert pause_before_memory_retry(record, True, 1) is not None, "the last one is its own"
    assert pause_before_memory_retry(record, True, 1) is None


def test_what_filled_it_alone_loses_one() -> None:
    record = task(1)
    assert pause_before_memory_retry(record, False, 1) is not None
    assert record.retries_left == 0 and record.push.attempt == 1
    assert pause_before_memory_retry(record, False, 1) is None
