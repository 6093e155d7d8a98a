"""What a process tells of its tasks, in virtual time: counts are exact whatever happens, what is told is bounded."""

from __future__ import annotations

import random
from typing import Any

import pytest

from shoal._core import task_events
from shoal._core.task_events import MAX_ALIVE, MAX_FAILURES, MAX_REPORTED, MAX_SHORT, Report, TaskEvents
from shoal._core.task_record import FunctionRecord, Tally, TaskRecord
from shoal._core.tasks import TaskQueue
from shoal._wire.peer_frames import TaskPush
from shoal_common.channel.frames import SchedulingClass
from shoal_common.events.task_events import INTERVAL_S, Failure, TaskKind, TaskState

FAILURE = Failure("TASK_EXECUTION_EXCEPTION", "ValueError", "no")
JOB = b"job1"


class World:
    """A queue without workers; the test moves the time, and tasks to their end."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.events = TaskEvents(lambda: self.now)
        self.waiting: list[TaskRecord] = []
        port: Any = None
        self.queue = TaskQueue(0, SchedulingClass(name="", resources=()), b"node", port)
        self.queue.home.ask_for(1)  # so it waits for a worker
        self.submitted = 0

    def function(self, name: str) -> FunctionRecord:
        return FunctionRecord(b"", name, tally=self.events.tally(JOB, name, TaskKind.NORMAL_TASK))

    def submit(self, function: FunctionRecord) -> TaskRecord:
        self.submitted += 1
        record = TaskRecord(TaskPush(self.submitted.to_bytes(20, "big"), b"", function.name, b""), function, [])
        self.events.submitted(record, tally_of(record))
        self.queue.pending.append(record)
        return record

    def end(self, record: TaskRecord) -> None:
        self.queue.pending.remove(record)

    def finish(self, record: TaskRecord, duration_us: int = 10) -> None:
        self.end(record)
        if record.told or self.events.short_left:
            self.events.finished(record, tally_of(record), duration_us, b"worker")
        else:  # as the way of replies does
            tally_of(record).runs.append(duration_us)

    def fail(self, record: TaskRecord, *, cancelled: bool = False) -> None:
        self.end(record)
        self.events.failed(record, tally_of(record), FAILURE, cancelled=cancelled)

    def report(self) -> Report:
        self.events.look(self.waiting, [self.queue], [])
        report = self.events.take()
        self.events.validate()
        return report or Report([], [], 0, 0)


def tally_of(record: TaskRecord) -> Tally:
    assert record.function.tally is not None
    return record.function.tally


@pytest.fixture
def world() -> World:
    return World()


def test_each_failure_is_told_by_itself(world: World) -> None:
    records = [world.submit(world.function("f")) for _ in range(MAX_SHORT + 10)]
    for record in records[:MAX_SHORT]:
        world.finish(record)
    for record in records[MAX_SHORT:]:
        world.fail(record)
    report = world.report()
    failed = [event for event in report.events if event.state == TaskState.FAILED]
    assert [event.task_id for event in failed] == [record.push.task_id for record in records[MAX_SHORT:]]
    assert {event.failure for event in failed} == {FAILURE}


def test_where_it_ran_and_what_it_asked_for_is_told_with_its_end(world: World) -> None:
    world.events.place_of = {b"worker": (b"there", 42)}.__getitem__
    for cpus in (1.0, 50.0):
        function = world.function("f")
        function.resources = {"CPU": cpus}
        world.finish(world.submit(function))
    report = world.report()
    places = [(event.worker_id, event.node_id, event.pid) for event in report.events]
    assert places == [(b"worker", b"there", 42)] * 2
    assert [event.resources for event in report.events] == [{"CPU": 1.0}, {"CPU": 50.0}]


def test_what_is_short_is_told_as_far_as_there_is_room_and_counted_beyond(world: World) -> None:
    function = world.function("f")
    for record in [world.submit(function) for _ in range(3 * MAX_SHORT)]:
        world.finish(record, 7)
    report = world.report()
    assert len(report.events) == MAX_SHORT
    assert report.unnamed == 2 * MAX_SHORT
    (totals,) = report.tallies
    assert (totals.submitted, totals.finished, totals.run_us) == (3 * MAX_SHORT, 3 * MAX_SHORT, 21 * MAX_SHORT)
    world.finish(world.submit(function))
    assert len(world.report().events) == 1, "there is room again in the next interval"


def test_what_lives_on_is_told_once_for_each_state_and_when_it_ends(world: World) -> None:
    record = world.submit(world.function("f"))
    assert world.report().events == [], "it may be over in a moment"
    world.now += 2 * INTERVAL_S
    (event,) = world.report().events
    assert (event.task_id, event.state) == (record.push.task_id, TaskState.PENDING_NODE_ASSIGNMENT)
    assert event.submitted_ms == 1_000_000
    world.now += INTERVAL_S
    assert world.report().events == []
    world.queue.pending.remove(record)
    world.waiting.append(record)
    assert [event.state for event in world.report().events] == [TaskState.PENDING_ARGS_AVAIL]
    world.waiting.clear()
    world.queue.pending.append(record)
    for _ in range(MAX_SHORT + 1):  # however much else there is
        world.finish(world.submit(world.function("g")))
    world.finish(record)
    ends = [event for event in world.report().events if event.function == "f"]
    assert [event.state for event in ends] == [TaskState.FINISHED]


def test_of_very_many_that_wait_some_are_told_at_each_look_and_all_are_counted(world: World) -> None:
    function = world.function("f")
    for _ in range(2 * MAX_ALIVE):
        world.submit(function)
    world.now += 2 * INTERVAL_S
    told = set()
    for _ in range(2):
        report = world.report()
        assert len(report.events) == MAX_ALIVE
        told |= {event.task_id for event in report.events}
    assert len(told) == 2 * MAX_ALIVE
    assert tally_of(world.queue.pending[0]).totals.alive[TaskState.PENDING_NODE_ASSIGNMENT] == 2 * MAX_ALIVE


def test_a_retry_is_told_as_the_failure_of_the_attempt_before(world: World) -> None:
    record = world.submit(world.function("f"))
    record.push.attempt += 1
    world.events.retried(record, tally_of(record), FAILURE)
    world.finish(record)
    first, second = world.report().events
    assert (first.attempt, first.state, first.failure) == (0, TaskState.FAILED, FAILURE)
    assert (second.attempt, second.state) == (1, TaskState.FINISHED)
    totals = tally_of(record).totals
    assert (totals.submitted, totals.finished, totals.failed, totals.retried) == (1, 1, 0, 1)


def test_a_second_end_says_nothing(world: World) -> None:
    record = world.submit(world.function("f"))
    world.fail(record)
    world.events.failed(record, tally_of(record), FAILURE, cancelled=True)
    world.events.finished(record, tally_of(record), 5, b"worker")
    assert len(world.report().events) == 1
    assert (tally_of(record).totals.failed, tally_of(record).totals.finished) == (1, 0)


def test_a_flood_of_failures_is_bounded_and_the_rest_is_counted(world: World) -> None:
    function = world.function("f")
    for _ in range(MAX_FAILURES + 100):
        world.fail(world.submit(function))
    events, lost = [], 0
    while report := world.events.take():
        assert len(report.events) <= MAX_REPORTED
        events += report.events
        lost += report.lost
    assert (len(events), lost) == (MAX_FAILURES, 100)
    assert tally_of(world.submit(function)).totals.failed == MAX_FAILURES + 100


def test_nothing_is_due_when_all_is_over_and_told(world: World) -> None:
    asked = []
    world.events.on_due = lambda: asked.append(world.now)
    record = world.submit(world.function("f"))
    assert asked and world.events.due
    world.report()
    assert world.events.due, "it is alive"
    world.finish(record)
    world.report()
    world.report()
    assert not world.events.due
    assert world.events.take() is None
    world.submit(world.function("f"))
    assert len(asked) == 2


def test_functions_beyond_the_bound_are_counted_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_events, "MAX_FUNCTIONS", 3)
    for number in range(10):
        world.finish(world.submit(world.function(f"f{number}")))
    counted = {totals.function: totals.finished for totals in world.report().tallies}
    assert counted == {"f0": 1, "f1": 1, "f2": 1, "(other functions)": 7}


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_exact_whatever_happens(world: World, seed: int) -> None:
    rng = random.Random(seed)
    functions = [world.function(name) for name in "fgh"]
    alive: list[TaskRecord] = []
    ended = {"finished": 0, "failed": 0, "cancelled": 0}
    failures = unnamed = named = 0
    for _ in range(4_000):
        world.now += rng.random() / 100
        step = rng.random()
        if step < 0.5 or not alive:
            alive.append(world.submit(rng.choice(functions)))
        else:
            record = alive.pop(rng.randrange(len(alive)))
            if step < 0.8:
                world.finish(record, rng.randrange(1, 1_000))
                ended["finished"] += 1
            else:
                cancelled = step > 0.95
                world.fail(record, cancelled=cancelled)
                ended["failed"] += 1
                ended["cancelled"] += cancelled
        if rng.random() < 0.01:
            report = world.report()
            unnamed += report.unnamed
            failures += sum(event.state == TaskState.FAILED for event in report.events)
            named += sum(event.state >= TaskState.FINISHED for event in report.events)
            assert report.lost == 0
    while world.events.take():
        pass
    report = world.report()
    totals = [tally_of(TaskRecord(TaskPush(b"", b"", "", b""), each, [])).totals for each in functions]
    assert sum(each.submitted for each in totals) == world.submitted
    assert sum(each.finished for each in totals) == ended["finished"]
    assert sum(each.failed for each in totals) == ended["failed"]
    assert sum(each.cancelled for each in totals) == ended["cancelled"]
    assert sum(sum(each.alive) for each in totals) == len(alive) == sum(each.unended for each in totals)
    assert named + unnamed <= ended["finished"] + ended["failed"]
