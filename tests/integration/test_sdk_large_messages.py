"""What is too large for a message, or cannot stand in one, is told to whoever gave it, or goes another way."""

from __future__ import annotations

import contextlib

import pytest
from support.processes import PATIENCE_S

import shoal
from shoal import exceptions

BAD = "file-\udcff.txt"


@pytest.fixture(scope="module", autouse=True)
def session():
    with shoal.init(num_cpus=2, object_store_memory=200_000_000, logging_level="ERROR", log_to_driver=False):
        yield


@pytest.fixture(autouse=True)
def still_works():
    yield
    assert shoal.get([identity.remote(1), Actor.remote().identity.remote(2)], timeout=PATIENCE_S) == [1, 2]


@shoal.remote
def identity(x=None, **kwargs):
    return x


@shoal.remote
def total(*args, **kwargs):
    return sum(map(len, args)) + sum(map(len, kwargs.values()))


@shoal.remote(num_cpus=0)
class Actor:
    def identity(self, x=None, **kwargs):
        return x

    def total(self, *args, **kwargs):
        return sum(map(len, args)) + sum(map(len, kwargs.values()))

    def raise_text(self, size):
        raise ValueError("x" * size)


@pytest.mark.parametrize(
    "call",
    [
        lambda actor: identity.options(name=BAD).remote(),
        lambda actor: identity.options(resources={BAD: 1}).remote(),
        lambda actor: identity.options(label_selector={"zone": BAD}).remote(),
        lambda actor: identity.remote(**{BAD: shoal.put(1)}),
        lambda actor: actor.identity.options(name=BAD).remote(),
        lambda actor: actor.identity.remote(**{BAD: shoal.put(1)}),
        lambda actor: actor.identity.options(concurrency_group=BAD).remote(),
        lambda actor: Actor.options(name=BAD).remote(),
        lambda actor: Actor.options(name="a", namespace=BAD).remote(),
        lambda actor: Actor.options(resources={BAD: 1}).remote(),
        lambda actor: Actor.options(concurrency_groups={BAD: 1}).remote(),
        lambda actor: shoal.get_actor(BAD),
        lambda actor: shoal.remote(type(BAD, (), {})),
    ],
    ids=lambda call: "",
)
def test_text_that_is_not_valid_is_refused_where_it_is_given(call):
    actor = Actor.remote()
    assert shoal.get(actor.identity.remote(1), timeout=PATIENCE_S) == 1
    with pytest.raises((UnicodeError, ValueError)):
        call(actor)
    assert shoal.get(actor.identity.remote(3), timeout=PATIENCE_S) == 3


def test_keywords_and_values_may_be_any_text():
    assert shoal.get(identity.remote(BAD, **{BAD: BAD}), timeout=PATIENCE_S) == BAD


def test_references_to_more_than_goes_along_with_a_call():
    """Each of the values is small enough for that."""
    values = [shoal.put(b"x" * 100_000) for _ in range(400)]
    assert shoal.get(total.remote(*values), timeout=PATIENCE_S) == 40_000_000
    actor = Actor.remote()
    named = {f"k{index}": value for index, value in enumerate(values)}
    assert shoal.get(actor.total.remote(*values, **named), timeout=PATIENCE_S) == 80_000_000


def test_results_that_are_more_than_goes_along_with_a_reply():
    @shoal.remote(num_returns=400)
    def many():
        return [b"x" * 100_000 for _ in range(400)]

    references = many.remote()
    assert all(len(value) == 100_000 for value in shoal.get(references, timeout=PATIENCE_S))


@pytest.mark.parametrize("size", [25_000_000, 70_000_000])
def test_large_errors(size):
    """One over the limit of a message says so; it does not end the worker."""

    @shoal.remote(max_retries=0)
    def fail():
        raise ValueError("x" * size)

    actor = Actor.remote()
    for reference in (fail.remote(), actor.raise_text.remote(size)):
        with pytest.raises(exceptions.TaskError) as caught:
            shoal.get(reference, timeout=PATIENCE_S)
        if size < 30_000_000:
            assert isinstance(caught.value.cause, ValueError)
            assert len(str(caught.value.cause)) == size
        else:
            assert "raised ValueError with" in str(caught.value)
            assert "put() large values" in str(caught.value)


def test_a_large_error_in_a_constructor():
    @shoal.remote(num_cpus=0)
    class Fails:
        def __init__(self):
            raise ValueError("x" * 25_000_000)

        def m(self):
            return 1

    with contextlib.suppress(exceptions.ActorDiedError):
        shoal.get(Fails.remote().m.remote(), timeout=PATIENCE_S)
        pytest.fail("it was made")
