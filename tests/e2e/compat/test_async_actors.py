"""Actors with coroutine methods, and awaiting references."""

from __future__ import annotations

import asyncio

import pytest
from e2e.compat.target import eventually, exceptions, new_signal, ray, submodule

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def gates():
    @ray.remote
    class Gate:
        def __init__(self):
            self.event = asyncio.Event()
            self.inside = 0
            self.most = 0

        async def enter(self):
            self.inside += 1
            self.most = max(self.most, self.inside)
            await self.event.wait()
            self.inside -= 1
            return self.most

        async def open(self):
            self.event.set()

        async def count(self):
            return self.inside

        def plain(self):
            return "plain"

        async def fail(self):
            raise KeyError("async")

    return Gate


def test_calls_interleave(gates):
    gate = gates.remote()
    entered = [gate.enter.remote() for _ in range(50)]
    eventually(lambda: ray.get(gate.count.remote()) == 50, "all calls wait inside")
    gate.open.remote()
    assert ray.get(entered) == [50] * 50


def test_max_concurrency_limits_them():
    signal = new_signal()

    @ray.remote(max_concurrency=3)
    class A:
        async def hold(self):
            await signal.wait.remote()

        async def quick(self):
            return "got in"

    a = A.remote()
    holding = [a.hold.remote() for _ in range(3)]
    eventually(lambda: ray.get(signal.waiters.remote()) == 3, "the actor is full")
    waiting = a.quick.remote()
    ready, _ = ray.wait([waiting], timeout=0.3)
    assert not ready
    ray.get(signal.send.remote())
    ray.get(holding)
    assert ray.get(waiting) == "got in"


def test_default_is_a_thousand(gates):
    gate = gates.remote()
    entered = [gate.enter.remote() for _ in range(900)]
    eventually(lambda: ray.get(gate.count.remote()) == 900, "all calls wait inside")
    gate.open.remote()
    assert max(ray.get(entered)) == 900


def test_plain_methods_of_async_actors(gates):
    assert ray.get(gates.remote().plain.remote()) == "plain"


def test_error(gates):
    gate = gates.remote()
    with pytest.raises(KeyError):
        ray.get(gate.fail.remote())
    assert ray.get(gate.plain.remote()) == "plain"


def test_in_order_execution_is_refused(gates):
    with pytest.raises(ValueError, match="async actors"):
        gates.options(allow_out_of_order_execution=False).remote()


def test_await_inside():
    @ray.remote
    def double(x):
        return x * 2

    @ray.remote
    class A:
        async def one(self, x):
            return await double.remote(x)

        async def many(self, n):
            return await asyncio.gather(*[double.remote(i) for i in range(n)])

        async def nested(self, box):
            return await box[0]

    a = A.remote()
    assert ray.get(a.one.remote(2)) == 4
    assert ray.get(a.many.remote(10)) == [2 * i for i in range(10)]
    assert ray.get(a.nested.remote([double.remote(4)])) == 8


def test_await_of_a_failed_task_inside():
    @ray.remote
    def fail():
        raise ValueError("upstream")

    @ray.remote
    class A:
        async def m(self):
            try:
                await fail.remote()
            except ValueError as error:
                return type(error.cause).__name__

    assert ray.get(A.remote().m.remote()) == "ValueError"


def test_wait_with_asyncio_inside():
    signal = new_signal()

    @ray.remote
    def now(x):
        return x

    @ray.remote(num_cpus=0)
    def later():
        ray.get(signal.wait.remote())

    @ray.remote
    class A:
        async def m(self, slow):
            quick = asyncio.ensure_future(asyncio.wrap_future(now.remote(1).future()))
            done, pending = await asyncio.wait(
                [quick, asyncio.ensure_future(asyncio.wrap_future(slow[0].future()))],
                return_when=asyncio.FIRST_COMPLETED,
            )
            return len(done), len(pending)

    assert ray.get(A.remote().m.remote([later.remote()])) == (1, 1)
    ray.get(signal.send.remote())


def test_async_constructor_state_and_loop():
    @ray.remote
    class A:
        def __init__(self):
            self.loops = set()

        async def note(self):
            self.loops.add(id(asyncio.get_running_loop()))
            return len(self.loops)

    a = A.remote()
    assert max(ray.get([a.note.remote() for _ in range(20)])) == 1


def test_background_task_of_an_async_actor():
    @ray.remote
    class A:
        async def start(self):
            self.done = asyncio.Event()
            self.task = asyncio.create_task(self.work())

        async def work(self):
            await asyncio.sleep(0)
            self.done.set()

        async def finish(self):
            await self.done.wait()
            return "worked"

    a = A.remote()
    ray.get(a.start.remote())
    assert ray.get(a.finish.remote()) == "worked"


def test_async_actor_calls_itself_by_handle():
    @ray.remote
    class A:
        async def outer(self):
            me = ray.get_runtime_context().current_actor
            return await me.inner.remote() + 1

        async def inner(self):
            return 1

    assert ray.get(A.remote().outer.remote(), timeout=60) == 2


def test_exit_actor_of_an_async_actor():
    exit_actor = submodule("actor").exit_actor

    @ray.remote
    class A:
        async def leave(self):
            exit_actor()

        async def m(self):
            return 1

    a = A.remote()
    assert ray.get(a.m.remote()) == 1
    with pytest.raises(exceptions.RayActorError):
        ray.get(a.leave.remote())
    with pytest.raises(exceptions.RayActorError):
        ray.get(a.m.remote())


# --- await in the driver ---------------------------------------------------------------------------------------


async def test_await_in_the_driver():
    @ray.remote
    def inc(x):
        return x + 1

    assert await inc.remote(1) == 2
    assert await asyncio.gather(*[inc.remote(i) for i in range(10)]) == list(range(1, 11))


async def test_await_of_a_put_object():
    assert await ray.put("here") == "here"


async def test_await_raises_the_error():
    @ray.remote
    def fail():
        raise ValueError("awaited")

    with pytest.raises(ValueError, match="awaited"):
        await fail.remote()


async def test_await_several_times():
    @ray.remote
    def f():
        return "value"

    ref = f.remote()
    assert await ref == "value"
    assert await ref == "value"


async def test_await_with_a_timeout():
    signal = new_signal()
    waiting = signal.wait.remote()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(waiting, timeout=0.1)
    await signal.send.remote()
    assert await waiting is None


async def test_as_future():
    @ray.remote
    def f():
        return 5

    future = f.remote().as_future()
    assert asyncio.isfuture(future)
    assert await future == 5


def test_concurrent_future():
    @ray.remote
    def f():
        return 5

    @ray.remote
    def fail():
        raise ValueError("in the future")

    assert f.remote().future().result(timeout=60) == 5
    assert isinstance(fail.remote().future().exception(timeout=60), ValueError)


def test_callbacks_that_libraries_register():
    import queue

    @ray.remote
    def f(x):
        return 10 // x

    told = queue.Queue()
    f.remote(2)._on_completed(told.put)
    assert told.get(timeout=60) == 5
    f.remote(0)._on_completed(told.put)
    assert isinstance(told.get(timeout=60), ZeroDivisionError)


def test_concurrent_futures_can_be_waited_for():
    import concurrent.futures

    @ray.remote
    def f(i):
        return i

    futures = [f.remote(i).future() for i in range(10)]
    assert sorted(future.result() for future in concurrent.futures.as_completed(futures, timeout=60)) == list(range(10))


async def test_as_completed_of_asyncio():
    @ray.remote
    def f(i):
        return i

    results = [await future for future in asyncio.as_completed([f.remote(i).as_future() for i in range(10)])]
    assert sorted(results) == list(range(10))


def test_constructor_that_is_a_coroutine():
    @ray.remote
    class Slow:
        async def __init__(self, start, step=1):
            self.task = asyncio.get_running_loop().create_task(self.count(step))
            await asyncio.sleep(0.01)
            self.start = start

        async def count(self, step):
            return step * 10

        async def total(self):
            return self.start + await self.task

    @ray.remote
    class Fails:
        async def __init__(self):
            await asyncio.sleep(0)
            raise KeyError("no")

        def ready(self):
            return True

    assert ray.get(Slow.remote(5, step=2).total.remote()) == 25
    with pytest.raises(exceptions.RayActorError, match="KeyError"):
        ray.get(Fails.remote().ready.remote())
