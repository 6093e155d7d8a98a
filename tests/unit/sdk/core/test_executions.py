"""The calls that a durable actor has run: what is new, what is answered from memory, what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shoal._core.executions import GONE_KEPT, GONE_S, Executions
from shoal._wire.peer_frames import TaskPush, TaskReply
from shoal._wire.value_kinds import INLINE

X, Y = b"x" * 16, b"y" * 16


@pytest.fixture
def executions() -> Iterator[Executions]:
    made = Executions()
    yield made
    made.validate()


def push(sequence: int, attempt: int = 0, caller: bytes = X) -> TaskPush:
    return TaskPush(caller[:4] + sequence.to_bytes(16, "big"), b"", "m", b"", sequence=sequence, attempt=attempt)


def reply(to: TaskPush) -> TaskReply:
    return TaskReply(to.task_id, 1, INLINE, str((to.sequence, to.attempt)).encode())


def run(executions: Executions, *calls: TaskPush, caller: bytes = X) -> None:
    for call in calls:
        assert executions.is_new(caller, call)
        executions.ran(caller, call, reply(call))


def test_calls_are_numbered_across_callers(executions: Executions) -> None:
    first = executions.ran(X, push(1), reply(push(1)))
    second = executions.ran(Y, push(1, caller=Y), reply(push(1, caller=Y)))
    assert (first.number, second.number, executions.number) == (1, 2, 2)


def test_repeat_gets_the_same_answer(executions: Executions) -> None:
    run(executions, push(1), push(2))
    assert not executions.is_new(X, push(1))
    assert executions.answer(X, push(1)) == reply(push(1))


def test_repeat_of_what_the_caller_has_is_dropped(executions: Executions) -> None:
    run(executions, push(1), push(2), push(3))
    executions.answered(X, 2)
    assert not executions.is_new(X, push(2))
    assert executions.answer(X, push(2)) is None
    assert executions.answer(X, push(3)) == reply(push(3))
    assert [(each.answered, len(each.calls)) for each in executions.save()] == [(2, 1)]


def test_what_is_told_late_takes_nothing_back(executions: Executions) -> None:
    run(executions, push(1), push(2))
    executions.answered(X, 2)
    executions.answered(X, 1)
    executions.answered(Y, 7)  # has run nothing here
    assert not executions.is_new(X, push(2))


def test_attempt_after_an_exception_is_a_run_of_its_own(executions: Executions) -> None:
    run(executions, push(1), push(2), push(1, attempt=1))
    assert executions.answer(X, push(1)) != executions.answer(X, push(1, attempt=1))
    executions.answered(X, 1)
    assert not executions.is_new(X, push(1, attempt=1))
    assert executions.answer(X, push(2)) == reply(push(2))


def test_checkpoint_and_back(executions: Executions) -> None:
    run(executions, push(1), push(2))
    run(executions, push(1, caller=Y), caller=Y)
    executions.answered(X, 1)
    restored = Executions()
    restored.restore(executions.number, executions.save(), 0.0)
    restored.validate()
    assert restored.number == 3
    assert not restored.is_new(X, push(1)) and restored.answer(X, push(1)) is None
    assert restored.answer(X, push(2)) == reply(push(2))
    assert restored.answer(Y, push(1, caller=Y)) == reply(push(1, caller=Y))
    assert restored.is_new(X, push(3))


def test_caller_that_is_gone_may_come_back(executions: Executions) -> None:
    run(executions, push(1))
    executions.left(X, 0.0)
    run(executions, push(2))
    executions.left(Y, GONE_S + 1)
    assert executions.answer(X, push(1)) == reply(push(1))


def test_caller_that_is_gone_for_long_is_forgotten(executions: Executions) -> None:
    run(executions, push(1))
    run(executions, push(1, caller=Y), caller=Y)
    executions.left(X, 0.0)
    executions.left(Y, GONE_S)
    assert [each.caller for each in executions.save()] == [Y]


def test_not_too_many_are_remembered(executions: Executions) -> None:
    for number in range(GONE_KEPT + 10):
        caller = number.to_bytes(16, "big")
        run(executions, push(1, caller=caller), caller=caller)
        executions.left(caller, 0.0)
    assert len(executions.save()) == GONE_KEPT
