"""Tasks and actors that wait for each other get a ``DeadlockError``; those that only wait for long do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import shoal
from shoal.cluster_utils import Cluster
from shoal.exceptions import ActorDiedError, DeadlockError
from tests.support.actors import Gate


@pytest.fixture(scope="module", autouse=True)
def two_nodes() -> Iterator[None]:
    """With labels to place things by."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"first": 8}})
    try:
        cluster.add_node(num_cpus=2, resources={"second": 8})
        with shoal.init(address=cluster.address, logging_level="ERROR", log_to_driver=False):
            yield
    finally:
        cluster.shutdown()


@shoal.remote(num_cpus=0)
class Asks:
    """Asks the next one; the last asks the first."""

    def meet(self, other: Any) -> None:
        self._other = other

    def ask(self, rest: int) -> str:
        return shoal.get(self._other.ask.remote(rest - 1)) if rest else "answered"

    def ask_by_task(self) -> str:
        return shoal.get(ask.remote(self._other))

    def ask_for_argument(self) -> str:
        return shoal.get(hand_on.remote(self._other.ask.remote(1)))

    def ask_within(self, seconds: float) -> str:
        return shoal.get(self._other.ask.remote(1), timeout=seconds)

    def wait_at(self, gate: Any) -> str:
        shoal.get(gate.pass_through.remote())
        return "passed"


@shoal.remote
def ask(actor: Any) -> str:
    return shoal.get(actor.ask.remote(1))


@shoal.remote
def hand_on(value: Any) -> Any:
    return value


def ring(size: int, **options: Any) -> list[Any]:
    """Every second one on the second node."""
    nodes = [{"first": 0.1}, {"second": 0.1}]
    actors = [Asks.options(resources=nodes[number % 2], **options).remote() for number in range(size)]
    shoal.get([actor.meet.remote(actors[(number + 1) % size]) for number, actor in enumerate(actors)])
    return actors


def deadlock(ref: Any) -> DeadlockError:
    """The error is that of the call that has closed the circle; the others' names it as their cause."""
    with pytest.raises(DeadlockError) as caught:
        shoal.get(ref)
    error: Any = caught.value
    while not isinstance(getattr(error, "cause", None), type(None)):
        error = error.cause
    return error


@pytest.mark.parametrize("size", [1, 2, 3])
def test_actors_that_wait_for_each_other(size: int) -> None:
    actors = ring(size)
    error = deadlock(actors[0].ask.remote(size))
    assert len(error.cycle) == size + 1
    assert sum("waits in get for Asks.ask" in each for each in error.cycle) == size
    assert sum("is queued behind Asks.ask" in each for each in error.cycle) == 1
    assert shoal.get(actors[0].ask.remote(0)) == "answered", "they live on"


def test_a_task_in_the_middle() -> None:
    first, _ = ring(2)
    error = deadlock(first.ask_by_task.remote())
    assert any(each.startswith("ask (") for each in error.cycle)


def test_an_argument_in_the_middle() -> None:
    first, _ = ring(2)
    assert any("hand_on needs as an argument" in each for each in deadlock(first.ask_for_argument.remote()).cycle)


@shoal.remote(num_cpus=0)
class Asked:
    """Its constructor asks another one, whose constructor asks it, or itself."""

    def __init__(self, other: Any) -> None:
        if other is None:
            this = shoal.get_runtime_context().current_actor
            other = Asked.options(resources={"second": 0.1}).remote(this)
        elif other == "itself":
            other = shoal.get_runtime_context().current_actor
        shoal.get(other.answer.remote())

    def answer(self) -> str:
        return "answered"


@pytest.mark.parametrize("other", ["itself", None], ids=["itself", "another"])
def test_constructors_that_wait_for_each_other(other: Any) -> None:
    asked = Asked.options(resources={"first": 0.1}).remote(other)
    with pytest.raises(ActorDiedError) as caught:
        shoal.get(asked.answer.remote())
    assert "DeadlockError" in str(caught.value)
    assert "Asked.answer waits for its actor, which begins with Asked.__init__" in str(caught.value)


def test_threads_that_are_all_in_the_circle() -> None:
    first, _ = ring(2, max_concurrency=2)
    asked = [first.ask.remote(4) for _ in range(8)]
    with pytest.raises(DeadlockError):
        shoal.get(asked)


def test_a_coroutine_that_waits_in_get_holds_up_its_event_loop() -> None:
    @shoal.remote(num_cpus=0)
    class Async:
        async def me(self, this: Any) -> str:
            return shoal.get(this.other.remote())  # type: ignore[no-any-return]

        async def other(self) -> str:
            return "other"

    actor = Async.remote()
    deadlock(actor.me.remote(actor))


def test_what_only_takes_long_is_none() -> None:
    """Spare threads, coroutines that await, queues, and waits that end by themselves; longer than suspicion takes."""

    @shoal.remote(num_cpus=0)
    class Async:
        async def me(self, this: Any, gate: Any) -> Any:
            return await this.other.remote(gate)

        async def other(self, gate: Any) -> str:
            await gate.pass_through.remote()
            return "other"

    gate = Gate.remote()
    actor, spare, queued, limited = Async.remote(), ring(2, max_concurrency=3), ring(2), ring(2)
    assert shoal.get(spare[0].ask.remote(4)) == "answered"
    held = [each.wait_at.remote(gate) for each in queued]
    shoal.get(gate.arrived.remote(2))
    asked = [queued[0].ask.remote(1), ask.remote(queued[0])]
    ends = limited[0].ask_within.remote(5.0)
    awaits = actor.me.remote(actor, gate)
    with pytest.raises(shoal.exceptions.GetTimeoutError):
        shoal.get(ends)
    assert shoal.wait([awaits, *held, *asked], num_returns=1, timeout=0)[0] == []
    shoal.get(gate.open.remote())
    assert shoal.get([awaits, *held, *asked]) == ["other", "passed", "passed", "answered", "answered"]
