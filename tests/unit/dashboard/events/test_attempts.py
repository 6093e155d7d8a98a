"""Attempts out of events in any order."""

from __future__ import annotations

import itertools

import pytest

from shoal_common.events.task_events import Failure, TaskEvent, TaskKind, TaskState
from shoal_dashboard.events import attempts as module
from shoal_dashboard.events.attempts import Attempt, Attempts

OWNER, WORKER, NODE = b"owner", b"worker", b"node"
TASK = b"job1" + b"t" * 16


def event(state: TaskState, at_ms: int, attempt: int = 0, task_id: bytes = TASK, **more: object) -> TaskEvent:
    made = TaskEvent(task_id, attempt, state, at_ms, TaskKind.NORMAL_TASK, "f")
    for name, value in more.items():
        setattr(made, name, value)
    return made


WAITS = event(TaskState.PENDING_NODE_ASSIGNMENT, 20, submitted_ms=10, parent=b"p")
#: As the owner sees it, and as the worker knows it.
SEEN = event(TaskState.RUNNING, 40, submitted_ms=10, worker_id=WORKER)
RUNS = event(TaskState.RUNNING, 33, worker_id=WORKER, node_id=NODE, pid=12, started_ms=33)
DONE = event(TaskState.FINISHED, 60, submitted_ms=10, worker_id=WORKER, started_ms=34)


def told(*events: TaskEvent) -> Attempts:
    attempts = Attempts()
    for each in events:
        attempts.happened(WORKER if each is RUNS else OWNER, each)
        attempts.validate()
    return attempts


def ended(attempts: Attempts) -> list[Attempt]:
    return attempts.take()[0]


@pytest.mark.parametrize("order", list(itertools.permutations([WAITS, SEEN, RUNS])))
def test_in_any_order_it_is_the_same(order: tuple[TaskEvent, ...]) -> None:
    attempts = told(*order, DONE)
    (end,) = ended(attempts)
    assert not attempts.alive
    assert (end.state, end.owner, end.worker_id, end.node_id, end.pid) == (TaskState.FINISHED, OWNER, WORKER, NODE, 12)
    assert (end.submitted_ms, end.parent, end.job_id) == (10, b"p", b"job1")
    assert end.times[TaskState.RUNNING] == 33, "the worker knows best"
    assert end.times[TaskState.FINISHED] == 60


def test_what_is_told_late_of_what_has_ended_is_dropped() -> None:
    attempts = told(DONE, RUNS)
    assert len(ended(attempts)) == 1
    assert not attempts.alive


def test_attempts_are_apart() -> None:
    failure = Failure("WORKER_DIED", "WorkerCrashedError", "gone")
    attempts = told(
        event(TaskState.FAILED, 30, failure=failure), event(TaskState.RUNNING, 40, 1), event(TaskState.FINISHED, 50, 1)
    )
    assert [(each.attempt, each.state, each.failure) for each in ended(attempts)] == [
        (0, TaskState.FAILED, failure),
        (1, TaskState.FINISHED, None),
    ]


def test_what_changes_is_told_once() -> None:
    attempts = told(WAITS)
    assert [each.task_id for each in attempts.take()[2]] == [TASK]
    assert attempts.take() == ([], [], [])
    attempts.happened(OWNER, DONE)
    ends, keys, alive = attempts.take()
    assert (len(ends), keys, alive) == (1, [(TASK, 0)], [])


def test_the_tasks_of_a_process_that_has_ended_have_failed() -> None:
    attempts = told(WAITS, event(TaskState.RUNNING, 30, task_id=b"job1" + b"u" * 16))
    attempts.process(OWNER, NODE, 1)
    attempts.process_ended(OWNER, 99, "killed by SIGKILL")
    attempts.validate()
    ends = ended(attempts)
    assert {each.failure.type for each in ends if each.failure} == {"OWNER_DIED"}
    assert [each.times[TaskState.FAILED] for each in ends] == [99, 99]


def test_and_those_of_all_processes_of_a_node() -> None:
    attempts = told(WAITS)
    attempts.process(OWNER, NODE, 1)
    attempts.node_ended(b"other", 98, "lost")
    assert attempts.alive
    attempts.node_ended(NODE, 99, "lost")
    assert len(ended(attempts)) == 1


def test_where_it_ran_is_known_by_its_worker() -> None:
    attempts = Attempts()
    attempts.process(WORKER, NODE, 77)
    attempts.happened(OWNER, DONE)
    (end,) = ended(attempts)
    assert (end.node_id, end.pid) == (NODE, 77)


def test_the_oldest_of_too_many_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ALIVE", 10)
    attempts = Attempts()
    for number in range(30):
        attempts.happened(OWNER, event(TaskState.RUNNING, 1, task_id=number.to_bytes(20, "big")))
        attempts.validate()
    assert (len(attempts.alive), attempts.lost) == (10, 20)
