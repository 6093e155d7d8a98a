"""``cancel``, as far as Ray does the same."""

from __future__ import annotations

import asyncio
import time

import pytest
from e2e.compat.target import better_than_ray, exceptions, new_signal, ray

pytestmark = pytest.mark.usefixtures("cluster")

cancelled = exceptions.TaskCancelledError


def test_what_waits_for_a_worker():
    @ray.remote(resources={"custom": 3})
    def never():
        pass

    for force in (False, True):
        ref = never.remote()
        assert ray.cancel(ref, force=force) is None
        with pytest.raises(cancelled):
            ray.get(ref)


def test_who_depends_on_it():
    @ray.remote(resources={"custom": 3})
    def never():
        pass

    @ray.remote
    def depends(value):
        return value

    ref = never.remote()
    dependent = depends.remote(ref)
    ray.cancel(ref)
    with pytest.raises(cancelled):
        ray.get(dependent)


def test_what_has_ended():
    @ray.remote
    def one():
        return 1

    done, put = one.remote(), ray.put(2)
    assert ray.get(done) == 1
    ray.cancel(done)
    ray.cancel(put)
    assert ray.get([done, put]) == [1, 2]


@better_than_ray
def test_what_sleeps():
    """Ray 2.60 sleeps it out."""

    @ray.remote
    def sleep(signal):
        signal.wait.remote()
        time.sleep(3600)

    signal = new_signal()
    ref = sleep.remote(signal)
    while not ray.get(signal.waiters.remote()):
        pass
    ray.cancel(ref)
    with pytest.raises(cancelled):
        ray.get(ref)


@ray.remote
class Patient:
    def until_cancelled(self, signal, raises=False):
        signal.wait.remote()
        while not ray.get_runtime_context().is_canceled():
            time.sleep(0.01)
        if raises:
            raise ValueError("something else")
        return "a value"

    def is_canceled(self):
        return ray.get_runtime_context().is_canceled()


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("raises", [False, True])
def test_a_call_that_runs(concurrency, raises):
    actor, signal = Patient.options(max_concurrency=concurrency).remote(), new_signal()
    ref = actor.until_cancelled.remote(signal, raises)
    while not ray.get(signal.waiters.remote()):
        pass
    with pytest.raises(ValueError, match="force=True is not supported for actor tasks"):
        ray.cancel(ref, force=True)
    ray.cancel(ref)
    with pytest.raises(ValueError if raises else cancelled):
        ray.get(ref)
    assert ray.get(actor.is_canceled.remote()) is False


@pytest.mark.parametrize("catches", [False, True])
def test_a_coroutine(catches):
    @ray.remote
    class Async:
        def __init__(self):
            self.seen = 0

        async def sleep(self, signal):
            signal.wait.remote()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.seen += 1
                if not catches:
                    raise
            return "a value"

        async def has_seen(self):
            return self.seen

        async def is_canceled(self):
            return ray.get_runtime_context().is_canceled()

    actor, signal = Async.remote(), new_signal()
    ref = actor.sleep.remote(signal)
    while not ray.get(signal.waiters.remote()):
        pass
    ray.cancel(ref)
    with pytest.raises(cancelled):
        ray.get(ref)
    assert ray.get(actor.has_seen.remote()) == 1
    with pytest.raises(RuntimeError):
        ray.get(actor.is_canceled.remote())


def test_a_coroutine_that_raises_cancelled_error_itself():
    @ray.remote
    class Async:
        async def method(self):
            raise asyncio.CancelledError

    with pytest.raises(cancelled):
        ray.get(Async.remote().method.remote())


def test_what_is_not_a_reference():
    for wrong in (1, [ray.put(1)], Patient.remote()):
        with pytest.raises(TypeError, match="only supported for object refs"):
            ray.cancel(wrong)
    with pytest.raises(TypeError):
        ray.cancel(ray.put(1), True)


def test_the_driver_is_not_cancelled():
    with pytest.raises(RuntimeError):
        ray.get_runtime_context().is_canceled()
