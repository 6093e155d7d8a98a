"""``ActorPool`` on actors and refs of paper: what runs where, and which result comes next."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from shoal import exceptions
from shoal.util import ActorPool, actor_pool

PENDING = object()


@dataclass(eq=False)
class Ref:
    """A result that the test sets."""

    actor: str
    value: Any
    result: Any = PENDING

    def finish(self) -> None:
        self.result = self.value


class Actors:
    """Stands in for ``shoal``; remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[Ref] = []
        #: Calls finish as soon as somebody waits for them.
        self.quick = True

    def __call__(self, actor: str, value: Any) -> Ref:
        ref = Ref(actor, value)
        self.calls.append(ref)
        return ref

    def wait(self, refs: list[Ref], num_returns: int = 1, timeout: float | None = None) -> tuple[list[Ref], list[Ref]]:
        if self.quick:
            refs[-1].finish()
        ready = [ref for ref in refs if ref.result is not PENDING][:num_returns]
        assert ready or timeout is not None, "it would wait for ever"
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, refs: Any) -> Any:
        if isinstance(refs, list):
            return [self.get(ref) for ref in refs]
        if self.quick and refs.result is PENDING:
            refs.finish()
        assert refs.result is not PENDING, "it would wait for ever"
        if isinstance(refs.result, BaseException):
            raise refs.result
        return refs.result


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> Actors:
    actors = Actors()
    monkeypatch.setattr(actor_pool, "shoal", SimpleNamespace(wait=actors.wait, get=actors.get))
    return actors


def pool_of(*names: Any) -> ActorPool:
    return ActorPool(names)


def test_each_actor_has_one_value_at_a_time(actors: Actors) -> None:
    pool = pool_of("a", "b")
    for value in range(4):
        pool.submit(actors, value)
    assert sorted(ref.actor for ref in actors.calls) == ["a", "b"]
    assert not pool.has_free()
    actors.calls[0].finish()
    assert pool.get_next() == 0
    assert [(ref.actor, ref.value) for ref in actors.calls[2:]] == [(actors.calls[0].actor, 2)]


def test_results_in_order_of_submission(actors: Actors) -> None:
    pool = pool_of("a", "b")
    assert list(pool.map(actors, range(7))) == list(range(7))
    assert not pool.has_next()
    assert pool.has_free()


def test_results_as_they_are_ready(actors: Actors) -> None:
    pool = pool_of("a", "b", "c")
    assert sorted(pool.map_unordered(actors, range(7))) == list(range(7))
    assert [ref.value for ref in actors.calls] == list(range(7))


def test_map_submits_before_it_is_iterated(actors: Actors) -> None:
    pool_of("a", "b").map(actors, [1, 2, 3])
    assert len(actors.calls) == 2


def test_map_forgets_earlier_results_but_not_the_work(actors: Actors) -> None:
    pool = pool_of("a", "b")
    for value in range(5):
        pool.submit(actors, value)
    assert list(pool.map(actors, [10, 11])) == [10, 11]
    assert [ref.value for ref in actors.calls] == [0, 1, 2, 3, 4, 10, 11]


def test_nothing_left(actors: Actors) -> None:
    pool = pool_of("a")
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


@pytest.mark.parametrize("take", [ActorPool.get_next, ActorPool.get_next_unordered])
def test_result_that_is_late_can_be_had_later(actors: Actors, take: Any) -> None:
    actors.quick = False
    pool = pool_of("a")
    pool.submit(actors, 1)
    with pytest.raises(TimeoutError):
        take(pool, timeout=0.1)
    actors.calls[0].finish()
    assert take(pool, timeout=0.1) == 1


@pytest.mark.parametrize("take", [ActorPool.get_next, ActorPool.get_next_unordered])
def test_late_result_can_be_given_up(actors: Actors, take: Any) -> None:
    actors.quick = False
    pool = pool_of("a")
    pool.submit(actors, 1)
    pool.submit(actors, 2)
    with pytest.raises(TimeoutError, match="ignored"):
        take(pool, timeout=0.1, ignore_if_timedout=True)
    assert [ref.value for ref in actors.calls] == [1, 2]
    actors.calls[1].finish()
    assert take(pool, timeout=0.1) == 2
    assert not pool.has_next()


def test_order_is_over_once_a_later_result_was_taken(actors: Actors) -> None:
    actors.quick = False
    pool = pool_of("a", "b")
    pool.submit(actors, 0)
    pool.submit(actors, 1)
    actors.calls[1].finish()
    assert pool.get_next_unordered() == 1
    with pytest.raises(ValueError, match="not allowed"):
        pool.get_next()
    actors.calls[0].finish()
    assert pool.get_next_unordered() == 0


def test_actor_whose_call_failed_works_on(actors: Actors) -> None:
    actors.quick = False
    pool = pool_of("a")
    pool.submit(actors, 1)
    pool.submit(actors, 2)
    actors.calls[0].result = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        pool.get_next()
    actors.calls[1].finish()
    assert pool.get_next() == 2


def test_dead_actor_is_left_out(actors: Actors) -> None:
    actors.quick = False
    pool = pool_of("a", "b")
    for value in range(3):
        pool.submit(actors, value)
    actors.calls[0].result = exceptions.ActorDiedError()
    dead = actors.calls[0].actor
    with pytest.raises(exceptions.ActorDiedError):
        pool.get_next()
    assert not pool.has_free()
    actors.calls[1].finish()
    assert pool.get_next() == 1
    assert actors.calls[2].actor != dead


def test_method_with_several_results(actors: Actors) -> None:
    pool = pool_of("a")
    pool.submit(lambda actor, value: [actors(actor, value), actors(actor, -value)], 3)
    for ref in actors.calls:
        ref.finish()
    assert pool.get_next() == [3, -3]


def test_push_and_pop(actors: Actors) -> None:
    pool = pool_of("a")
    with pytest.raises(ValueError, match="already belongs"):
        pool.push("a")  # type: ignore[arg-type]
    assert pool.pop_idle() == "a"
    assert pool.pop_idle() is None
    pool.submit(actors, 1)
    assert actors.calls == []
    pool.push("b")  # type: ignore[arg-type]
    assert [ref.actor for ref in actors.calls] == ["b"]
    with pytest.raises(ValueError, match="already belongs"):
        pool.push("b")  # type: ignore[arg-type]


def test_an_interrupted_wait_loses_nothing(actors: Actors) -> None:
    pool = pool_of("a")
    pool.submit(actors, 1)
    actors.calls[0].result = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        pool.get_next()
    assert not pool.has_free()
    actors.calls[0].finish()
    assert pool.get_next() == 1
    assert pool.has_free()
