"""A call's way: pushed to a leased worker, answered by it, and what becomes of it when that does not happen."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
from support.owners import Party, settle

from shoal import exceptions
from shoal._owner.tasks import task_submitter
from shoal._wire.peer_frames import PushTasks, TaskReplies, TaskReply, Value
from shoal._wire.value_kinds import ERROR, INLINE
from shoal_common.channel import frames
from shoal_common.kinds import ExitKind, RefusalKind

KILLED = "killed by SIGKILL"


# -- answers --------------------------------------------------------------------------------------------------------


def test_the_answer_of_the_leased_worker_is_the_value(driver: Party, worker: Party) -> None:
    (ref,) = driver.submit()
    driver.grant(worker)
    caller, task = worker.work.next()
    assert caller.peer_worker_id == driver.core.worker_id
    worker.answer(caller, task, "done")
    assert driver.get(ref) == "done"


def test_each_of_several_values_has_its_object(driver: Party, worker: Party) -> None:
    refs = driver.submit(num_returns=3)
    driver.grant(worker)
    caller, task = worker.work.next()
    assert task.num_returns == 3
    values = [Value(INLINE, pickle.dumps(number)) for number in range(3)]
    caller.send(TaskReplies([TaskReply(task.task_id, 100, 0, b"", values)]))
    assert driver.core.values.get_many(refs) == [0, 1, 2]


def test_an_error_is_what_all_of_its_objects_hold(driver: Party, worker: Party) -> None:
    refs = driver.submit(num_returns=2)
    driver.grant(worker)
    worker.answer(*worker.work.next(), KeyError("k"), kind=ERROR)
    for ref in refs:
        with pytest.raises(KeyError):
            driver.get(ref)


def test_answers_of_a_worker_that_was_not_asked_are_dropped(
    driver: Party, worker: Party, party: Callable[..., Party]
) -> None:
    (ref,) = driver.submit()
    driver.grant(worker)
    caller, task = worker.work.next()
    stranger = party("stranger", works=True)
    with stranger.core.lock:
        to_driver = stranger.core.peers.connect(driver.core.address)
    assert to_driver is not None
    stranger.answer(to_driver, task, "forged")
    settle(driver, stranger)
    assert driver.core.waiting.wait([ref], 1, 0) == ([], [ref])
    worker.answer(caller, task, "done")
    assert driver.get(ref) == "done"


# -- once more ------------------------------------------------------------------------------------------------------


def test_a_retriable_error_uses_up_the_retries_and_is_the_value_then(driver: Party, worker: Party) -> None:
    (ref,) = driver.submit(retries=2)
    driver.grant(worker)
    for attempt in range(3):
        caller, task = worker.work.next()
        assert task.attempt == attempt
        worker.answer(caller, task, KeyError(attempt), kind=ERROR, retriable=True)
    with pytest.raises(KeyError, match="2"):
        driver.get(ref)


def test_of_a_lost_workers_tasks_only_the_oldest_has_begun(
    driver: Party, worker: Party, party: Callable[..., Party]
) -> None:
    refs = [ref for _ in range(2) for ref in driver.submit(retries=1)]
    driver.grant(worker)
    tasks = [worker.work.next()[1] for _ in range(2)]
    assert [task.attempt for task in tasks] == [0, 0]
    driver.raylet.send(frames.LeaseLost(b"lease", ExitKind.SYSTEM_ERROR, KILLED))
    other = party("other", works=True)
    driver.raylet.wait_for(frames.LeaseDemand, 2)
    driver.grant(other, b"other")
    attempts = {}
    for _ in range(2):
        caller, task = other.work.next()
        attempts[task.task_id] = task.attempt
        other.answer(caller, task, task.attempt)
    assert attempts == {tasks[0].task_id: 1, tasks[1].task_id: 0}
    assert driver.core.values.get_many(refs) == [1, 0]


def test_a_lost_worker_without_a_retry_is_the_value(driver: Party, worker: Party) -> None:
    (ref,) = driver.submit()
    driver.grant(worker)
    caller, task = worker.work.next()
    driver.raylet.send(frames.LeaseLost(b"lease", ExitKind.SYSTEM_ERROR, KILLED))
    with pytest.raises(exceptions.WorkerCrashedError, match=KILLED) as raised:
        driver.get(ref)
    assert raised.value.task_name == "f"
    # What it says now comes too late.
    worker.answer(caller, task, "late")
    with pytest.raises(exceptions.WorkerCrashedError):
        driver.get(ref)


def test_a_worker_whose_connection_ended_is_given_back_when_nobody_says_why(
    driver: Party, worker: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_submitter, "LOSS_REASON_S", 0.01)
    (ref,) = driver.submit()
    driver.grant(worker)
    caller, _ = worker.work.next()
    caller.close("a cable was cut")
    with pytest.raises(exceptions.WorkerCrashedError, match="the connection to it ended"):
        driver.get(ref)
    assert driver.raylet.wait_for(frames.LeaseReturned) == frames.LeaseReturned(b"lease", worker_exits=True)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (RefusalKind.RUNTIME_ENV, exceptions.RuntimeEnvSetupError),
        (RefusalKind.WORKER_START, exceptions.WorkerCrashedError),
        (RefusalKind.GROUP_REMOVED, exceptions.TaskPlacementGroupRemoved),
        (RefusalKind.INFEASIBLE, exceptions.TaskUnschedulableError),
    ],
)
def test_what_no_node_takes_is_an_error_that_says_why(
    driver: Party, kind: RefusalKind, expected: type[Exception]
) -> None:
    (ref,) = driver.submit()
    driver.raylet.wait_for(frames.LeaseDemand)
    driver.raylet.send(frames.LeaseRefused(0, kind, "that is why"))
    with pytest.raises(expected, match="that is why"):
        driver.get(ref)


# -- arguments ------------------------------------------------------------------------------------------------------


def test_a_task_waits_for_its_arguments_and_gets_their_values(driver: Party, worker: Party) -> None:
    (first,) = driver.submit()
    (second,) = driver.submit(first)
    driver.grant(worker)
    caller, task = worker.work.next()
    worker.answer(caller, task, "value")
    _, task = worker.work.next()
    assert task.refs is not None
    assert [pickle.loads(argument.value.payload) for argument in task.refs] == ["value"]
    worker.answer(caller, task, "done")
    assert driver.get(second) == "done"


def test_what_is_made_of_an_error_fails_without_running(driver: Party, worker: Party) -> None:
    (first,) = driver.submit()
    (second,) = driver.submit(first)
    driver.grant(worker)
    worker.answer(*worker.work.next(), exceptions.WorkerCrashedError(KILLED), kind=ERROR)
    with pytest.raises(exceptions.WorkerCrashedError, match=KILLED):
        driver.get(second)
    assert not worker.work.pushed


# -- the end of the others ------------------------------------------------------------------------------------------


def test_without_its_raylet_every_call_fails_now_and_later(driver: Party) -> None:
    (pending,) = driver.submit()
    driver.raylet.wait_for(frames.LeaseDemand)
    driver.raylet.ours.shutdown(2)
    with pytest.raises(exceptions.LocalRayletDiedError):
        driver.get(pending)
    with pytest.raises(exceptions.LocalRayletDiedError):
        driver.get(driver.submit()[0])


def test_what_a_peer_sends_and_nobody_can_handle_ends_its_connection_and_who_waits_is_told(
    driver: Party, worker: Party, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(task_submitter, "LOSS_REASON_S", 0.01)
    (ref,) = driver.submit()
    driver.grant(worker)
    caller, task = worker.work.next()
    caller.send(PushTasks([task]))  # a driver runs nothing
    with pytest.raises(exceptions.WorkerCrashedError, match="a defect in Shoal, of which the log tells more"):
        driver.get(ref)
    assert "PushTasks came from" in caplog.text


def test_what_the_raylet_sends_and_nobody_can_handle_ends_the_session(
    driver: Party, caplog: pytest.LogCaptureFixture
) -> None:
    (ref,) = driver.submit()
    driver.raylet.wait_for(frames.LeaseDemand)
    driver.raylet.send(frames.LeaseSpillback(7, 1, b"m" * 16, "host", 1))  # there is no such class
    with pytest.raises(exceptions.LocalRayletDiedError, match="given up: a defect in Shoal"):
        driver.get(ref)
    assert "LeaseSpillback came from" in caplog.text
