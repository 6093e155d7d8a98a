"""Which of a worker's tasks are interrupted."""

from __future__ import annotations

import pytest

from shoal._executor.cancels import MAX_MARKS, Cancels, Interrupted
from shoal._wire.peer_frames import TaskPush

TASK, OTHER = b"t" * 20, b"o" * 20


def test_a_mark_interrupts_once() -> None:
    cancels = Cancels()
    cancels.mark(TASK)
    cancels.check(OTHER)
    with pytest.raises(Interrupted):
        cancels.check(TASK)
    cancels.check(TASK)


def test_what_was_answered_instead_is_not_interrupted() -> None:
    cancels = Cancels()
    cancels.mark(TASK)
    cancels.unmark(TASK)
    cancels.check(TASK)


def test_marks_on_what_had_ended_do_not_pile_up() -> None:
    cancels = Cancels()
    for number in range(2 * MAX_MARKS):
        cancels.mark(number.to_bytes(20, "big"))
    assert len(cancels.marked) == MAX_MARKS
    with pytest.raises(Interrupted):
        cancels.check((2 * MAX_MARKS - 1).to_bytes(20, "big"))


def test_user_code_sees_a_keyboard_interrupt() -> None:
    assert issubclass(Interrupted, KeyboardInterrupt)


def test_an_object_that_is_made_again_under_the_same_id_is_not_interrupted() -> None:
    cancels = Cancels()
    cancels.mark(TASK)
    cancels.arrived([TaskPush(OTHER, b"", "f", b""), TaskPush(TASK, b"", "f", b"")])
    cancels.check(TASK)
