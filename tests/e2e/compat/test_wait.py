"""wait: arguments, order, timeouts."""

from __future__ import annotations

import numpy as np
import pytest
from e2e.compat.target import exceptions, new_signal, ray

pytestmark = pytest.mark.usefixtures("cluster")


def test_default_is_one():
    refs = [ray.put(i) for i in range(4)]
    ready, rest = ray.wait(refs)
    assert len(ready) == 1
    assert sorted(ready + rest, key=refs.index) == refs


def test_all():
    refs = [ray.put(i) for i in range(4)]
    ready, rest = ray.wait(refs, num_returns=4)
    assert (ready, rest) == (refs, [])


def test_never_more_than_asked_for():
    refs = [ray.put(i) for i in range(10)]
    ready, rest = ray.wait(refs, num_returns=3)
    assert (len(ready), len(rest)) == (3, 7)


def test_empty_list():
    assert ray.wait([]) == ([], [])


def test_ready_ones_come_first():
    signal = new_signal()
    slow = signal.wait.remote()
    quick = ray.put("quick")
    ready, rest = ray.wait([slow, quick])
    assert (ready, rest) == ([quick], [slow])
    ray.get(signal.send.remote())


def test_order_of_the_input_is_kept():
    signal = new_signal()
    slow = [signal.wait.remote() for _ in range(3)]
    quick = [ray.put(i) for i in range(3)]
    mixed = [slow[0], quick[0], slow[1], quick[1], slow[2], quick[2]]
    assert ray.wait(mixed, num_returns=3) == (quick, slow)
    ray.get(signal.send.remote())
    assert ray.wait(mixed, num_returns=6) == (mixed, [])


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_timeout(timeout):
    signal = new_signal()
    slow = signal.wait.remote()
    assert ray.wait([slow], timeout=timeout) == ([], [slow])
    quick = ray.put(1)
    assert ray.wait([slow, quick], num_returns=2, timeout=timeout) == ([quick], [slow])
    ray.get(signal.send.remote())


def test_failed_tasks_are_ready():
    @ray.remote
    def fail():
        raise ValueError("x")

    ref = fail.remote()
    assert ray.wait([ref]) == ([ref], [])
    with pytest.raises(ValueError, match="x"):
        ray.get(ref)


def test_calls_of_a_dead_actor_are_ready():
    @ray.remote
    class A:
        def m(self):
            return 1

    a = A.remote()
    ray.kill(a)
    ref = a.m.remote()
    ready, _ = ray.wait([ref], timeout=60)
    assert ready == [ref]
    with pytest.raises(exceptions.RayActorError):
        ray.get(ref)


def test_one_by_one():
    @ray.remote
    def f(i):
        return i

    pending = [f.remote(i) for i in range(200)]
    results = []
    while pending:
        ready, pending = ray.wait(pending)
        results += ray.get(ready)
    assert sorted(results) == list(range(200))


def test_bounded_number_in_flight():
    @ray.remote
    def f(i):
        return i

    pending, results = [], []
    for i in range(100):
        if len(pending) == 8:
            ready, pending = ray.wait(pending)
            results += ray.get(ready)
        pending.append(f.remote(i))
    results += ray.get(pending)
    assert sorted(results) == list(range(100))


def test_inside_a_task():
    @ray.remote
    def leaf(i):
        return i

    @ray.remote
    def root():
        ready, rest = ray.wait([leaf.remote(i) for i in range(4)], num_returns=2)
        return len(ready), len(rest)

    assert ray.get(root.remote()) == (2, 2)


def test_inside_an_actor_with_borrowed_references():
    @ray.remote
    class A:
        def first(self, box):
            ready, _ = ray.wait(box)
            return ray.get(ready[0])

    signal = new_signal()
    assert ray.get(A.remote().first.remote([signal.wait.remote(), ray.put("here")])) == "here"
    ray.get(signal.send.remote())


@pytest.mark.parametrize("fetch_local", [True, False])
def test_large_objects(fetch_local):
    @ray.remote
    def make():
        return np.zeros(1_000_000)

    refs = [make.remote() for _ in range(3)]
    ready, rest = ray.wait(refs, num_returns=3, fetch_local=fetch_local)
    assert (ready, rest) == (refs, [])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: ray.wait(r), TypeError, "got a single"),
        (lambda r: ray.wait((r,)), TypeError, "expected a list"),
        (lambda r: ray.wait({r}), TypeError, "expected a list"),
        (lambda r: ray.wait("abc"), TypeError, "expected a list"),
        (lambda r: ray.wait(None), TypeError, "expected a list"),
        (lambda r: ray.wait([1]), TypeError, "got list containing"),
        (lambda r: ray.wait([r, r]), ValueError, "list of unique"),
        (lambda r: ray.wait([r], num_returns=0), ValueError, "Invalid number of objects to return 0"),
        (lambda r: ray.wait([r], num_returns=-1), ValueError, "Invalid number of objects to return -1"),
        (lambda r: ray.wait([r], num_returns=2), ValueError, "num_returns cannot be greater than the number"),
        (lambda r: ray.wait([r], timeout=-1), ValueError, "must be nonnegative. Received -1"),
        (lambda r: ray.wait([r], timeout="1"), TypeError, None),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(ray.put(1))
