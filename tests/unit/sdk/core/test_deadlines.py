"""Deadlines of calls: which are due, in any order of submissions and ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal._core.deadlines import Deadlines
from shoal._core.task_record import Deadline, FunctionRecord, TaskRecord, TimeLimit
from shoal._wire.peer_frames import TaskPush


class NoQueue:
    def expire(self, record: TaskRecord, now: float) -> str:
        raise AssertionError("the deadlines only tell what is due")

    def name_of(self, record: TaskRecord) -> str:
        raise AssertionError("the deadlines only tell what is due")


QUEUE = NoQueue()


def record(number: int, at: float) -> TaskRecord:
    push = TaskPush(number.to_bytes(20, "big"), b"", "f", b"")
    return TaskRecord(push, FunctionRecord(b"", "f"), [], deadline=Deadline(TimeLimit(at, False), at))


def due(deadlines: Deadlines, now: float) -> list[TaskRecord]:
    found = [record for record, _ in deadlines.due(now)]
    deadlines.validate()
    return found


def test_the_earliest_is_due_first() -> None:
    deadlines = Deadlines()
    later, sooner = record(1, 5.0), record(2, 3.0)
    deadlines.add(later, QUEUE)
    deadlines.add(sooner, QUEUE)
    assert deadlines.next() == 3.0
    assert due(deadlines, 2.9) == []
    assert due(deadlines, 3.0) == [sooner]
    assert sooner.late
    assert not later.late
    assert deadlines.next() == 5.0


def test_what_has_ended_is_never_due() -> None:
    deadlines = Deadlines()
    ended = record(1, 1.0)
    deadlines.add(ended, QUEUE)
    deadlines.forget(ended)
    assert deadlines.next() is None
    assert due(deadlines, 9.0) == []


def test_a_call_made_again_has_its_time_again() -> None:
    deadlines = Deadlines()
    again = record(1, 1.0)
    deadlines.add(again, QUEUE)
    assert due(deadlines, 1.0) == [again]
    again.deadline = Deadline(TimeLimit(1.0, True), 2.0)
    deadlines.add(again, QUEUE)
    assert due(deadlines, 1.5) == []
    assert due(deadlines, 2.0) == [again]


def test_what_has_ended_leaves_nothing_behind() -> None:
    deadlines = Deadlines()
    for number in range(10_000):
        call = record(number, 3600.0)
        deadlines.add(call, QUEUE)
        deadlines.forget(call)
        deadlines.validate()


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=200), st.lists(st.floats(0, 10), max_size=20))
def test_each_is_due_once_and_in_time(calls: list[tuple[float, bool]], looks: list[float]) -> None:
    deadlines = Deadlines()
    records = [record(number, at) for number, (at, _) in enumerate(calls)]
    for call in records:
        deadlines.add(call, QUEUE)
    for call, (_, ends) in zip(records, calls, strict=True):
        if ends:
            deadlines.forget(call)
    expected = [call for call, (_, ends) in zip(records, calls, strict=True) if not ends]
    found: list[TaskRecord] = []
    for now in [*sorted(looks), 11.0]:
        now_due = due(deadlines, now)
        assert all(call.deadline is not None and call.deadline.at <= now for call in now_due)
        found += now_due
    assert sorted(call.push.task_id for call in found) == sorted(call.push.task_id for call in expected)
