"""Actors that run several calls at once in threads, and concurrency groups."""

from __future__ import annotations

import threading

import pytest
from e2e.compat.target import better_than_ray, exceptions, new_signal, ray

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def barriers():
    @ray.remote
    class Threads:
        def __init__(self):
            self.barrier = threading.Barrier(3)
            self.seen = []

        def meet(self):
            self.barrier.wait(60)
            return threading.get_ident()

        def add(self, i):
            self.seen.append(i)

        def all(self):
            return sorted(self.seen)

    return Threads


def test_calls_run_in_threads(barriers):
    actor = barriers.options(max_concurrency=3).remote()
    idents = ray.get([actor.meet.remote() for _ in range(3)], timeout=60)
    assert len(set(idents)) == 3


def test_all_calls_run(barriers):
    actor = barriers.options(max_concurrency=4).remote()
    ray.get([actor.add.remote(i) for i in range(200)])
    assert ray.get(actor.all.remote()) == list(range(200))


def test_default_is_one_call_at_a_time():
    @ray.remote
    class A:
        def __init__(self):
            self.busy = False

        def enter(self):
            assert not self.busy
            self.busy = True
            threading.Event().wait(0.002)
            self.busy = False

    a = A.remote()
    ray.get([a.enter.remote() for _ in range(20)])


def test_in_order_execution_is_refused(barriers):
    with pytest.raises(ValueError, match="multi-threaded actors"):
        barriers.options(max_concurrency=2, allow_out_of_order_execution=False).remote()


def test_getting_inside_does_not_block_the_others():
    @ray.remote
    class A:
        def __init__(self):
            self.go = threading.Event()

        def outer(self, me):
            return ray.get(me.inner.remote()) + 1

        def inner(self):
            return 1

    a = A.options(max_concurrency=2).remote()
    assert ray.get(a.outer.remote(a), timeout=60) == 2


def test_each_call_knows_its_own_task():
    @ray.remote
    class A:
        def __init__(self):
            self.barrier = threading.Barrier(2)

        def task_id(self):
            self.barrier.wait(60)
            return ray.get_runtime_context().get_task_id()

    a = A.options(max_concurrency=2).remote()
    refs = [a.task_id.remote() for _ in range(2)]
    assert ray.get(refs) == [ref.task_id().hex() for ref in refs]


def test_kill_while_threads_run():
    @ray.remote
    class A:
        def block(self):
            threading.Event().wait()

        def m(self):
            return 1

    a = A.options(max_concurrency=3).remote()
    blocked = [a.block.remote() for _ in range(2)]
    assert ray.get(a.m.remote()) == 1
    ray.kill(a)
    for ref in blocked:
        with pytest.raises(exceptions.RayActorError):
            ray.get(ref, timeout=60)


# --- concurrency groups ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grouped():
    @ray.remote(concurrency_groups={"io": 2, "compute": 1})
    class Grouped:
        def __init__(self):
            self.go = threading.Event()

        @ray.method(concurrency_group="io")
        def wait(self):
            return self.go.wait(60)

        @ray.method(concurrency_group="compute")
        def open(self):
            self.go.set()
            return "opened"

        def name(self):
            return threading.current_thread().name

    return Grouped


def test_groups_do_not_block_one_another(grouped):
    actor = grouped.remote()
    waiting = [actor.wait.remote() for _ in range(2)]
    assert ray.get(actor.name.remote(), timeout=60)
    assert ray.get(actor.open.remote(), timeout=60) == "opened"
    assert ray.get(waiting) == [True, True]


def test_group_of_one_call(grouped):
    actor = grouped.remote()
    assert ray.get(actor.name.remote()) != ray.get(actor.name.options(concurrency_group="compute").remote())


def test_undeclared_group_of_a_method():
    @ray.remote
    class A:
        @ray.method(concurrency_group="nonsense")
        def m(self):
            return 1

    with pytest.raises((AssertionError, ValueError)):
        A.remote()


@better_than_ray  # there the call fails, or is lost
def test_undeclared_group_of_a_call(grouped):
    actor = grouped.remote()
    with pytest.raises(ValueError, match=r"has only \['compute', 'io'\]"):
        actor.name.options(concurrency_group="nonsense").remote()
    handle = ray.get(ray.put(actor))
    with pytest.raises(ValueError, match="nonsense"):
        handle.name.options(concurrency_group="nonsense").remote()


def test_size_of_a_group():
    @ray.remote(concurrency_groups={"io": 2})
    class A:
        def __init__(self):
            self.lock = threading.Lock()
            self.inside = self.most = 0
            self.both_in = threading.Barrier(2)

        @ray.method(concurrency_group="io")
        def enter(self):
            with self.lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            self.both_in.wait(60)
            with self.lock:
                self.inside -= 1
            return self.most

    a = A.remote()
    assert max(ray.get([a.enter.remote() for _ in range(6)], timeout=60)) == 2


def test_group_by_the_option_of_a_call(grouped):
    actor = grouped.remote()
    names = ray.get([actor.name.options(concurrency_group="compute").remote() for _ in range(5)])
    assert len(set(names)) == 1


@better_than_ray  # there the order is that of the whole actor, and the option is taken
def test_in_order_execution_with_groups_is_refused(grouped):
    with pytest.raises(ValueError, match="multi-threaded actors"):
        grouped.options(allow_out_of_order_execution=False).remote()


def test_out_of_order_execution_of_an_ordinary_actor():
    signal = new_signal()

    @ray.remote
    class A:
        def m(self, x):
            return x

    a = A.options(allow_out_of_order_execution=True).remote()
    waits = a.m.remote(signal.wait.remote())
    assert ray.get(a.m.remote(1), timeout=60) == 1
    ray.get(signal.send.remote())
    assert ray.get(waits, timeout=60) is None


def test_what_blocks_the_loop_of_one_group_does_not_block_the_others():
    @ray.remote(concurrency_groups={"io": 1})
    class A:
        def __init__(self):
            self.go = threading.Event()

        @ray.method(concurrency_group="io")
        async def block(self):
            self.go.wait(60)
            return "let go"

        async def open(self):
            self.go.set()

    a = A.remote()
    blocked = a.block.remote()
    ray.get(a.open.remote(), timeout=60)
    assert ray.get(blocked, timeout=60) == "let go"


def test_groups_of_an_async_actor():
    import asyncio

    @ray.remote(concurrency_groups={"io": 1})
    class A:
        def __init__(self):
            # Of threading, because each group may have an event loop of its own.
            self.go = threading.Event()

        @ray.method(concurrency_group="io")
        async def wait(self):
            await asyncio.get_running_loop().run_in_executor(None, self.go.wait)
            return "let go"

        async def open(self):
            self.go.set()

    a = A.remote()
    waiting = [a.wait.remote() for _ in range(3)]
    ray.get(a.open.remote(), timeout=60)
    assert ray.get(waiting, timeout=60) == ["let go"] * 3
