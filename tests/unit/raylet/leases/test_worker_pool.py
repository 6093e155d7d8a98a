from __future__ import annotations

import itertools

import pytest

from shoal_common.channel import frames
from shoal_common.placement.runtime_env import key
from shoal_raylet.actions import (
    Action,
    AskWorkerToExit,
    KillWorker,
    ManyWorkers,
    PrepareEnvironment,
    ReleaseEnvironment,
    StartWorker,
    WorkersUnstartable,
)
from shoal_raylet.leases.environments import IDLE_ENVIRONMENT_S
from shoal_raylet.leases.worker_pool import IDLE_EXIT_S, MANY, MAX_STARTING, WorkerPool, WorkerState

JOB, OTHER = b"job1", b"job2"
LEASED, ACTOR = WorkerState.LEASED, WorkerState.ACTOR


def make_pool(soft_limit: int = 2, fresh: int = 0, timeout_s: float = 10.0) -> WorkerPool:
    counter = itertools.count(1)
    return WorkerPool(soft_limit, fresh, timeout_s, lambda: b"w%d" % next(counter))


def start(pool: WorkerPool, count: int, now: float = 0.0) -> list[bytes]:
    """``count`` registered fresh workers."""
    started = [a.worker_id for a in pool.balance({"": count}, now) if isinstance(a, StartWorker)]
    for worker_id in started:
        pool.registered(worker_id, 100, frames.WorkerAddress(b"n", worker_id, "/path"), now)
    return started


def take(
    pool: WorkerPool,
    job: bytes,
    state: WorkerState = LEASED,
    env: str = "",
    now: float = 0.0,
    gpus: tuple[str, ...] = (),
) -> bytes | None:
    worker = pool.take(job, env, gpus, state, now)
    return worker.worker_id if worker is not None else None


def test_fresh_workers_are_kept_ready() -> None:
    pool = make_pool(fresh=2)
    assert start(pool, 0) == [b"w1", b"w2"]
    assert pool.balance({"": 0}, 0.0) == []
    assert take(pool, JOB) == b"w1"
    assert pool.balance({"": 0}, 0.0) == [StartWorker(b"w3")]


def test_a_worker_never_changes_its_job_or_environment() -> None:
    pool = make_pool()
    start(pool, 1)
    assert take(pool, JOB) == b"w1"
    pool.put_back(b"w1", 1.0)
    assert take(pool, OTHER) is None
    assert take(pool, JOB, env='{"env_vars":{"A":"1"}}') is None
    assert take(pool, JOB) == b"w1"


@pytest.mark.parametrize("gpus", [(), ("0",), ("0", "1")], ids=str)
def test_a_worker_runs_with_the_gpus_that_it_had_first(gpus: tuple[str, ...]) -> None:
    pool = make_pool()
    start(pool, 1)
    assert take(pool, JOB, gpus=gpus) == b"w1"
    pool.put_back(b"w1", 1.0)
    for others in {(), ("0",), ("1",), ("0", "1")} - {gpus}:
        assert take(pool, JOB, gpus=others) is None
        assert take(pool, JOB, ACTOR, gpus=others) is None
    assert take(pool, JOB, gpus=gpus) == b"w1"


def test_a_task_gets_the_worker_used_last_and_an_actor_a_fresh_one() -> None:
    pool = make_pool()
    start(pool, 3)
    used = [take(pool, JOB) for _ in range(2)]
    for worker_id in used:
        assert worker_id is not None
        pool.put_back(worker_id, 1.0)
    assert take(pool, JOB, ACTOR) == b"w3"
    assert take(pool, JOB) == used[1]
    assert take(pool, JOB, ACTOR) == used[0]


def test_idle_workers_beyond_the_limit_are_asked_to_exit() -> None:
    pool = make_pool(soft_limit=1)
    workers = start(pool, 2)
    assert [take(pool, JOB) for _ in workers] == workers
    for worker_id in workers:
        pool.put_back(worker_id, 1.0)
    assert pool.balance({"": 0}, 1.5) == []
    assert pool.next_deadline({"": 0}) == 1.0 + IDLE_EXIT_S
    assert pool.balance({"": 0}, 2.0) == [AskWorkerToExit(b"w1", "idle")]
    # It is on its way out, and not used again.
    assert take(pool, JOB) == b"w2"
    assert take(pool, JOB) is None


def test_nobody_is_sent_away_while_somebody_waits() -> None:
    pool = make_pool(soft_limit=0)
    start(pool, 1)
    take(pool, OTHER)
    pool.put_back(b"w1", 0.0)
    assert not any(isinstance(action, AskWorkerToExit) for action in pool.balance({"": 1}, 9.0))


def test_starts_in_parallel_are_bounded() -> None:
    pool = make_pool()
    assert len(pool.balance({"": 1000}, 0.0)) == MAX_STARTING


def test_a_worker_that_does_not_register_is_killed() -> None:
    pool = make_pool(timeout_s=10.0)
    pool.balance({"": 1}, 0.0)
    assert pool.next_deadline({"": 1}) == 10.0
    killed, started = pool.balance({"": 1}, 10.0)
    assert isinstance(killed, KillWorker) and "did not register within 10 s" in killed.detail
    assert started == StartWorker(b"w2")


def test_failed_starts_back_off_and_are_told_after_several() -> None:
    pool = make_pool()
    now, told = 0.0, []
    for _ in range(4):
        (action,) = pool.balance({"": 1}, now)
        assert isinstance(action, StartWorker)
        worker = pool.gone(action.worker_id)
        assert worker is not None
        told += pool.start_failed(worker, "ImportError", now)
        assert pool.balance({"": 1}, now) == []
        deadline = pool.next_deadline({"": 1})
        assert deadline is not None and deadline > now
        now = deadline
    assert told == [WorkersUnstartable("ImportError")]
    assert now > 5.0


def test_a_start_that_succeeds_ends_the_backoff() -> None:
    pool = make_pool()
    for now in (0.0, 1.0, 2.0):
        assert fail(pool, pool.balance({"": 1}, now), now) == []
    (start,) = pool.balance({"": 1}, 10.0)
    assert isinstance(start, StartWorker)
    pool.registered(start.worker_id, 1, None, 10.0)
    assert fail(pool, pool.balance({"": 2}, 11.0), 11.0) == []


def test_starts_that_fail_together_are_one_failure() -> None:
    pool = make_pool()
    assert fail(pool, pool.balance({"": 10}, 0.0), 1.0) == []
    assert fail(pool, pool.balance({"": 10}, 2.0), 3.0) == []
    assert fail(pool, pool.balance({"": 10}, 4.0), 5.0) == []
    assert fail(pool, pool.balance({"": 10}, 6.0), 7.0) == [WorkersUnstartable("x")]


def fail(pool: WorkerPool, starts: list[Action], now: float) -> list[Action]:
    """All these starts."""
    told = []
    for start in starts:
        assert isinstance(start, StartWorker)
        worker = pool.gone(start.worker_id)
        assert worker is not None
        told += pool.start_failed(worker, "x", now)
    return told


def test_a_worker_that_ends_is_not_used() -> None:
    pool = make_pool()
    start(pool, 2)
    take(pool, JOB)
    pool.ending(b"w1", 0.0)
    pool.put_back(b"w1", 0.0)
    pool.ending(b"w2", 0.0)
    assert take(pool, JOB) is None
    gone = pool.gone(b"w1")
    assert gone is not None and gone.job_id == JOB
    assert pool.gone(b"w1") is None


def test_many_workers_are_told_once_and_twice_as_many_again() -> None:
    pool = make_pool(soft_limit=1)
    told: list[ManyWorkers] = []
    while len(pool.workers) < 3 * MANY:
        for action in pool.balance({"": 1}, 0.0):
            if isinstance(action, ManyWorkers):
                told.append(action)
            else:
                assert isinstance(action, StartWorker)
                pool.registered(action.worker_id, 1, frames.WorkerAddress(b"n", action.worker_id, "/path"), 0.0)
                assert take(pool, JOB, ACTOR) == action.worker_id
    assert [action.count for action in told] == [MANY, 2 * MANY]
    assert told[0].actors == MANY - 1, "the last one has just been started"


ENVIRONMENT, OTHER_ENVIRONMENT = '{"env_vars":{"A":"1"}}', '{"env_vars":{"A":"2"}}'


def start_in(pool: WorkerPool, document: str, count: int = 1, now: float = 0.0) -> list[bytes]:
    """``count`` registered fresh workers in a runtime environment."""
    assert pool.balance({document: count}, now) == [PrepareEnvironment(key(document), document)]
    assert pool.balance({document: count}, now) == [], "it is being made"
    pool.environment_prepared(key(document))
    started = [action.worker_id for action in pool.balance({document: count}, now) if isinstance(action, StartWorker)]
    for worker_id in started:
        pool.registered(worker_id, 100, frames.WorkerAddress(b"n", worker_id, "/path"), now)
    return started


def test_a_worker_is_started_for_one_environment() -> None:
    pool = make_pool()
    start(pool, 1)
    assert take(pool, JOB, env=ENVIRONMENT) is None, "a fresh worker without one"
    assert start_in(pool, ENVIRONMENT, 2) == [b"w2", b"w3"]
    assert take(pool, JOB, env=OTHER_ENVIRONMENT) is None
    assert take(pool, JOB, env=ENVIRONMENT) == b"w2"
    pool.put_back(b"w2", 1.0)
    assert take(pool, OTHER, env=ENVIRONMENT) == b"w3", "any job may be the first"
    assert take(pool, JOB) == b"w1"
    assert take(pool, JOB, env=ENVIRONMENT) == b"w2"
    pool.validate()


def test_fresh_workers_of_an_environment_are_not_kept_ready() -> None:
    pool = make_pool(soft_limit=2)
    start_in(pool, ENVIRONMENT)
    assert pool.balance({}, IDLE_EXIT_S) == [AskWorkerToExit(b"w1", "idle")]


def test_idle_workers_of_all_environments_share_the_limit() -> None:
    pool = make_pool(soft_limit=1)
    for document in (ENVIRONMENT, OTHER_ENVIRONMENT):
        (worker_id,) = start_in(pool, document)
        assert take(pool, JOB, env=document) == worker_id
    pool.put_back(b"w1", 1.0)
    pool.put_back(b"w2", 2.0)
    assert pool.balance({}, 3.0) == [AskWorkerToExit(b"w1", "idle")]


def test_an_environment_is_let_go_of_after_its_last_worker() -> None:
    pool = make_pool(soft_limit=1)
    start_in(pool, ENVIRONMENT)
    take(pool, JOB, env=ENVIRONMENT)
    assert pool.balance({}, 900.0) == [], "in use"
    pool.gone(b"w1")
    assert pool.balance({}, 1000.0) == []
    assert pool.next_deadline({}) == 1000.0 + IDLE_ENVIRONMENT_S
    assert pool.balance({}, 1000.0 + IDLE_ENVIRONMENT_S) == [ReleaseEnvironment(key(ENVIRONMENT))]


def test_an_environment_that_vanishes_is_made_again_for_other_workers() -> None:
    pool = make_pool(soft_limit=4)
    start_in(pool, ENVIRONMENT, 2)
    assert take(pool, JOB, env=ENVIRONMENT) == b"w1"
    (starting,) = pool.balance({ENVIRONMENT: 2}, 0.0)
    assert isinstance(starting, StartWorker)
    assert pool.environment_vanished(key(ENVIRONMENT), 1.0) == [ReleaseEnvironment(key(ENVIRONMENT))]
    assert pool.environment_vanished(key(ENVIRONMENT), 1.0) == [], "it is not there"
    prepared, asked = pool.balance({ENVIRONMENT: 1}, 1.0)
    assert asked == AskWorkerToExit(b"w2", "the files of its environment are gone")
    assert prepared == PrepareEnvironment(key(ENVIRONMENT), ENVIRONMENT)
    pool.put_back(b"w1", 2.0)
    pool.registered(starting.worker_id, 1, frames.WorkerAddress(b"n", starting.worker_id, "/path"), 2.0)
    assert take(pool, JOB, env=ENVIRONMENT) is None, "they are in the one that is gone"
    pool.validate()
    pool.environment_prepared(key(ENVIRONMENT))
    *exits, started = sorted(pool.balance({ENVIRONMENT: 1}, 2.0), key=lambda action: isinstance(action, StartWorker))
    assert [action.worker_id for action in exits if isinstance(action, AskWorkerToExit)] == [b"w1", starting.worker_id]
    assert isinstance(started, StartWorker) and started.environment == key(ENVIRONMENT)
    pool.validate()


def test_failures_of_one_environment_do_not_hold_up_others() -> None:
    pool = make_pool()
    start_in(pool, ENVIRONMENT)
    take(pool, JOB, env=ENVIRONMENT)
    now, told = 0.0, []
    for _ in range(4):
        now += 10.0
        (action,) = pool.balance({ENVIRONMENT: 1}, now)
        assert isinstance(action, StartWorker) and action.environment == key(ENVIRONMENT)
        worker = pool.gone(action.worker_id)
        assert worker is not None
        told += pool.start_failed(worker, "no such interpreter", now)
    assert told == [WorkersUnstartable("no such interpreter", key(ENVIRONMENT))]
    assert pool.balance({"": 1, ENVIRONMENT: 1}, now) == [StartWorker(b"w6")]


def test_while_an_environment_is_made_others_idle_workers_end() -> None:
    pool = make_pool(soft_limit=1)
    workers = start(pool, 2)
    assert [take(pool, JOB) for _ in workers] == workers
    for worker_id in workers:
        pool.put_back(worker_id, 0.0)
    pool.balance({ENVIRONMENT: 1}, 0.0)
    assert pool.balance({ENVIRONMENT: 1}, IDLE_EXIT_S) == [AskWorkerToExit(b"w1", "idle")]


def test_an_environment_is_made_before_it_is_wanted() -> None:
    pool = make_pool()
    assert pool.environment_coming(ENVIRONMENT) == [PrepareEnvironment(key(ENVIRONMENT), ENVIRONMENT)]
    pool.environment_prepared(key(ENVIRONMENT))
    assert pool.environment_coming(ENVIRONMENT) == pool.environment_coming("") == []
    assert pool.balance({}, 0.0) == [], "no worker yet"
    assert pool.next_deadline({}) == IDLE_ENVIRONMENT_S
