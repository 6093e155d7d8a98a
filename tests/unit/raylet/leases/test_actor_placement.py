from __future__ import annotations

import itertools

import pytest

from shoal_common.channel import frames
from shoal_common.placement.resources import ResourceSet
from shoal_raylet.actions import AskWorkerToExit, KillWorker, ReportActorStarted, Send
from shoal_raylet.leases.actor_placement import ActorPlacement, PlacedActor
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.worker_pool import WorkerPool

ONE_CPU = ResourceSet.of({"CPU": 1})


@pytest.fixture
def pool() -> WorkerPool:
    ids = itertools.count(1)
    return WorkerPool(2, 0, 10.0, lambda: b"w%d" % next(ids))


@pytest.fixture
def ledger() -> ResourceLedger:
    return ResourceLedger(ResourceSet.of({"CPU": 2}))


@pytest.fixture
def actors(ledger: ResourceLedger, pool: WorkerPool) -> ActorPlacement:
    return ActorPlacement(ledger, pool)


def actor(name: bytes = b"a", incarnation: int = 1, held: ResourceSet = ONE_CPU) -> PlacedActor:
    return PlacedActor(name, incarnation, b"job1", "A", b"creation", False, held, asked=held, strategy="")


def register(pool: WorkerPool, count: int) -> None:
    for action in pool.balance({"": count}, 0.0):
        worker_id = action.worker_id  # type: ignore[union-attr]
        pool.registered(worker_id, 1, frames.WorkerAddress(b"n", worker_id, "/w"), 0.0)


def test_resources_are_held_from_the_start_and_the_worker_may_come_later(
    actors: ActorPlacement, ledger: ResourceLedger, pool: WorkerPool
) -> None:
    actors.accept(actor())
    assert ledger.available == ONE_CPU
    assert actors.dispatch(0.0) == ([], {"": 1})
    register(pool, 1)
    actions, wanted = actors.dispatch(0.0)
    message = frames.CreateActor(b"a", 1, b"creation", (("CPU", 10_000),), {})
    assert (actions, wanted) == ([Send(b"w1", message)], {})
    assert actors.created(b"w1", b"a", 1, b"") == [ReportActorStarted(b"a", 1, b"w1")]


def test_a_repeated_request_is_known(actors: ActorPlacement) -> None:
    actors.accept(actor(incarnation=2))
    assert actors.is_known(b"a", 1) and actors.is_known(b"a", 2)
    assert not actors.is_known(b"a", 3)


def test_a_constructor_that_raises_ends_its_worker(actors: ActorPlacement, pool: WorkerPool) -> None:
    register(pool, 1)
    actors.accept(actor())
    actors.dispatch(0.0)
    report, exit_ = actors.created(b"w1", b"a", 1, b"error")
    assert report == ReportActorStarted(b"a", 1, b"w1", creation_error=b"error")
    assert isinstance(exit_, AskWorkerToExit)


def test_news_of_an_earlier_incarnation_is_ignored(actors: ActorPlacement, pool: WorkerPool) -> None:
    register(pool, 1)
    actors.accept(actor(incarnation=2))
    actors.dispatch(0.0)
    assert actors.created(b"w1", b"a", 1, b"") == []
    assert actors.created(b"other", b"a", 2, b"") == []


def test_its_workers_end_frees_the_resources(actors: ActorPlacement, ledger: ResourceLedger, pool: WorkerPool) -> None:
    register(pool, 1)
    actors.accept(actor())
    actors.dispatch(0.0)
    actors.worker_lost(b"w1")
    assert ledger.available == ledger.total
    assert actors.get(b"a") is None


def test_stopping(actors: ActorPlacement, ledger: ResourceLedger, pool: WorkerPool) -> None:
    actors.accept(actor())
    assert actors.stop(b"a", True, "kill", 0.0) == []
    assert ledger.available == ledger.total
    register(pool, 1)
    actors.accept(actor())
    actors.dispatch(0.0)
    assert actors.stop(b"a", False, "out of scope", 0.0) == [AskWorkerToExit(b"w1", "out of scope")]
    assert actors.stop(b"a", True, "kill", 0.0) == [KillWorker(b"w1", "INTENDED_SYSTEM_EXIT", "kill")]
    assert actors.stop(b"unknown", True, "kill", 0.0) == []


def test_workers_that_do_not_start_fail_those_that_wait(actors: ActorPlacement, ledger: ResourceLedger) -> None:
    actors.accept(actor())
    (report,) = actors.workers_unstartable("ImportError")
    assert isinstance(report, ReportActorStarted) and "ImportError" in report.failure
    assert ledger.available == ledger.total
    assert actors.workers_unstartable("ImportError") == []
