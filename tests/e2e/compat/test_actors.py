"""Actors: creation, calls in order, handles, life and end."""

from __future__ import annotations

import asyncio
import os
import pickle

import numpy as np
import pytest
from e2e.compat.target import alive, better_than_ray, eventually, exceptions, new_signal, ray, submodule

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def counters():
    # Inside a function, so that it travels by value: the workers do not have this module on their path.
    @ray.remote
    class Counter:
        def __init__(self, start=0, *, step=1):
            self.value = start
            self.step = step

        def inc(self, by=None):
            self.value += self.step if by is None else by
            return self.value

        def get(self):
            return self.value

        def pid(self):
            return os.getpid()

    return Counter


# --- creation and calls ------------------------------------------------------------------------------------


def test_state(counters):
    counter = counters.remote()
    assert ray.get([counter.inc.remote() for _ in range(5)]) == [1, 2, 3, 4, 5]
    assert ray.get(counter.get.remote()) == 5


def test_constructor_arguments(counters):
    assert ray.get(counters.remote(10, step=5).inc.remote()) == 15
    assert ray.get(counters.remote(ray.put(7)).get.remote()) == 7


def test_actors_are_separate_processes(counters):
    actors = [counters.remote() for _ in range(3)]
    pids = ray.get([actor.pid.remote() for actor in actors])
    assert len({*pids, os.getpid()}) == 4


def test_method_arguments(counters):
    counter = counters.remote()
    assert ray.get(counter.inc.remote(by=3)) == 3
    assert ray.get(counter.inc.remote(ray.put(4))) == 7


@pytest.mark.parametrize("wrong", [lambda c: c.remote(1, 2), lambda c: c.remote(nonsense=1)])
def test_wrong_constructor_arguments_are_refused_at_once(counters, wrong):
    with pytest.raises(TypeError):
        wrong(counters)


def test_wrong_method_arguments_are_refused_at_once(counters):
    counter = counters.remote()
    with pytest.raises(TypeError, match="too many positional arguments"):
        counter.inc.remote(1, 2)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        counter.inc.remote(nonsense=1)


def test_missing_method(counters):
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        counters.remote().nonsense  # noqa: B018


def test_direct_call_of_a_method(counters):
    with pytest.raises(TypeError, match="Actor methods cannot be called directly"):
        counters.remote().inc()


def test_unknown_option_of_a_call(counters):
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        counters.remote().inc.options(nonsense=1).remote()


def test_several_returns():
    @ray.remote
    class A:
        @ray.method(num_returns=2)
        def two(self):
            return 1, 2

        def pair(self):
            return 3, 4

    a = A.remote()
    assert ray.get(a.two.remote()) == [1, 2]
    assert ray.get(a.pair.remote()) == (3, 4)
    assert ray.get(a.pair.options(num_returns=2).remote()) == [3, 4]
    assert a.pair.options(num_returns=0).remote() is None


def test_static_and_class_methods():
    @ray.remote
    class A:
        label = "class"

        @staticmethod
        def static(x):
            return x + 1

        @classmethod
        def named(cls):
            return cls.label

    a = A.remote()
    assert ray.get(a.static.remote(1)) == 2
    assert ray.get(a.named.remote()) == "class"


def test_inheritance_from_plain_classes():
    class Base:
        def __init__(self, x):
            self.x = x

        def base(self):
            return self.x

        def both(self):
            return "base"

    @ray.remote
    class Derived(Base):
        def __init__(self, x):
            super().__init__(x * 2)

        def both(self):
            return super().both() + " derived"

    a = Derived.remote(2)
    assert ray.get([a.base.remote(), a.both.remote()]) == [4, "base derived"]


def test_methods_see_one_another():
    @ray.remote
    class A:
        def outer(self):
            return self._inner() + 1

        def _inner(self):
            return 1

    a = A.remote()
    assert ray.get(a.outer.remote()) == 2
    assert ray.get(a._inner.remote()) == 1


def test_class_without_a_constructor():
    @ray.remote
    class A:
        def m(self):
            return 1

    assert ray.get(A.remote().m.remote()) == 1


def test_thousand_calls_in_order():
    @ray.remote
    class Recorder:
        def __init__(self):
            self.seen = []

        def add(self, i):
            self.seen.append(i)

        def all(self):
            return self.seen

    recorder = Recorder.remote()
    for i in range(1000):
        recorder.add.remote(i)
    assert ray.get(recorder.all.remote()) == list(range(1000))


def test_call_waits_for_the_arguments_of_earlier_calls():
    signal = new_signal()

    @ray.remote(num_cpus=0)
    def slow():
        ray.get(signal.wait.remote())
        return "first"

    @ray.remote
    class Recorder:
        def __init__(self):
            self.seen = []

        def add(self, x):
            self.seen.append(x)
            return list(self.seen)

    recorder = Recorder.remote()
    recorder.add.remote(slow.remote())
    second = recorder.add.remote("second")
    ready, _ = ray.wait([second], timeout=0.5)
    assert not ready
    ray.get(signal.send.remote())
    assert ray.get(second) == ["first", "second"]


def test_large_arguments_and_results():
    @ray.remote
    class Store:
        def put(self, array):
            self.array = array

        def get(self):
            return self.array

    store = Store.remote()
    array = np.arange(300_000)
    store.put.remote(array)
    np.testing.assert_array_equal(ray.get(store.get.remote()), array)


def test_actor_calls_tasks_and_actors(counters):
    @ray.remote
    def inc(x):
        return x + 1

    @ray.remote
    class Parent:
        def __init__(self):
            self.child = counters.remote(10)

        def work(self):
            return ray.get([inc.remote(1), self.child.inc.remote()])

    assert ray.get(Parent.remote().work.remote()) == [2, 11]


def test_actor_class_used_inside_a_task(counters):
    @ray.remote
    def use():
        counter = counters.remote(5)
        return ray.get(counter.inc.remote())

    assert ray.get(use.remote()) == 6


def test_ray_call_and_ray_ready(counters):
    counter = counters.remote(3)
    assert ray.get(counter.__ray_ready__.remote())
    assert ray.get(counter.__ray_call__.remote(lambda self, x: self.value + x, 4)) == 7


# --- handles -------------------------------------------------------------------------------------------------


def test_handle_passed_to_tasks(counters):
    counter = counters.remote()

    @ray.remote
    def inc(handle):
        return ray.get(handle.inc.remote())

    assert sorted(ray.get([inc.remote(counter) for _ in range(4)])) == [1, 2, 3, 4]
    assert ray.get(counter.get.remote()) == 4


def test_handle_nested_captured_and_stored(counters):
    counter = counters.remote()

    @ray.remote
    def by_argument(box):
        return ray.get(box["handle"].inc.remote())

    @ray.remote
    def by_closure():
        return ray.get(counter.inc.remote())

    assert ray.get(by_argument.remote({"handle": counter})) == 1
    assert ray.get(by_closure.remote()) == 2
    stored = ray.get(ray.put([counter]))[0]
    assert ray.get(stored.inc.remote()) == 3


def test_handle_returned_by_a_task(counters):
    @ray.remote
    def make():
        return counters.remote(41)

    assert ray.get(ray.get(make.remote()).inc.remote()) == 42


def test_handles_are_equal_by_actor(counters):
    a, b = counters.remote(), counters.remote()
    again = ray.get(ray.put(a))
    assert a == again
    assert hash(a) == hash(again)
    assert a != b
    assert len({a, again, b}) == 2


def test_handle_shows_its_class(counters):
    assert "Counter" in repr(counters.remote())


def test_order_of_each_caller_is_kept(counters):
    @ray.remote
    class Recorder:
        def __init__(self):
            self.seen = {}

        def add(self, caller, i):
            self.seen.setdefault(caller, []).append(i)

        def all(self):
            return self.seen

    recorder = Recorder.remote()

    @ray.remote
    def call(caller):
        ray.get([recorder.add.remote(caller, i) for i in range(100)])

    ray.get([call.remote(c) for c in range(4)])
    assert ray.get(recorder.all.remote()) == {c: list(range(100)) for c in range(4)}


def test_method_without_a_variable_for_the_actor(counters):
    assert ray.get(counters.remote(5).inc.remote()) == 6


# --- resources -------------------------------------------------------------------------------------------------


def test_actors_hold_no_cpu_by_default(counters):
    actors = [counters.remote() for _ in range(8)]
    assert ray.get([actor.get.remote() for actor in actors]) == [0] * 8


def test_assigned_resources():
    @ray.remote
    class A:
        def assigned(self):
            return ray.get_runtime_context().get_assigned_resources()

    assert ray.get(A.remote().assigned.remote()) == {}
    two = A.options(num_cpus=2)
    assert ray.get(two.remote().assigned.remote()) == {"CPU": 2.0}
    custom = A.options(resources={"custom": 0.5})
    assert ray.get(custom.remote().assigned.remote()) == {"CPU": 1.0, "custom": 0.5}


def test_held_resources_come_back(counters):
    holder = counters.options(num_cpus=4).remote()
    ray.get(holder.get.remote())

    @ray.remote
    def f():
        return "ran"

    waiting = f.remote()
    ready, _ = ray.wait([waiting], timeout=0.3)
    assert not ready
    ray.kill(holder)
    assert ray.get(waiting, timeout=60) == "ran"


# --- errors ------------------------------------------------------------------------------------------------------


def test_method_error_leaves_the_actor_alive(counters):
    @ray.remote
    class A:
        def fail(self):
            raise KeyError("missing")

        def works(self):
            return 1

    a = A.remote()
    with pytest.raises(KeyError):
        ray.get(a.fail.remote())
    assert ray.get(a.works.remote()) == 1


def test_constructor_error():
    @ray.remote
    class A:
        def __init__(self):
            raise ValueError("no actor today")

        def m(self):
            return 1

    a = A.remote()
    for _ in range(2):
        with pytest.raises(exceptions.ActorDiedError, match="no actor today") as caught:
            ray.get(a.m.remote())
        assert caught.value.actor_init_failed
        assert caught.value.actor_id == a._actor_id.hex()
        assert "creation task" in str(caught.value)
        assert isinstance(caught.value, exceptions.RayActorError)


def test_constructor_argument_that_failed(counters):
    @ray.remote
    def fail():
        raise ValueError("upstream")

    counter = counters.remote(fail.remote())
    with pytest.raises(exceptions.RayActorError, match="upstream"):
        ray.get(counter.get.remote())


def test_method_argument_that_failed(counters):
    @ray.remote
    def fail():
        raise ValueError("upstream")

    counter = counters.remote()
    with pytest.raises(ValueError, match="upstream"):
        ray.get(counter.inc.remote(fail.remote()))
    assert ray.get(counter.get.remote()) == 0


def test_pending_calls_limit():
    signal = new_signal()

    @ray.remote
    class A:
        def wait(self):
            ray.get(signal.wait.remote())

    a = A.options(max_pending_calls=2).remote()
    pending = [a.wait.remote(), a.wait.remote()]
    with pytest.raises(exceptions.PendingCallsLimitExceeded):
        a.wait.remote()
    ray.get(signal.send.remote())
    ray.get(pending)
    ray.get(a.wait.remote())


# --- end -----------------------------------------------------------------------------------------------------------


def test_kill(counters):
    counter = counters.remote()
    pid = ray.get(counter.pid.remote())
    ray.kill(counter)
    eventually(lambda: not alive(pid), "the killed actor's process is gone")
    with pytest.raises(exceptions.ActorDiedError, match="kill") as caught:
        ray.get(counter.get.remote())
    assert not caught.value.actor_init_failed
    assert caught.value.actor_id == counter._actor_id.hex()
    ray.kill(counter)


def test_kill_fails_running_and_queued_calls():
    signal = new_signal()

    @ray.remote
    class A:
        def block(self):
            ray.get(signal.wait.remote())

    a = A.remote()
    calls = [a.block.remote() for _ in range(3)]
    eventually(lambda: ray.get(signal.waiters.remote()) == 1, "the first call runs")
    ray.kill(a)
    for call in calls:
        with pytest.raises(exceptions.RayActorError):
            ray.get(call, timeout=60)
    ray.get(signal.send.remote())


def test_kill_before_it_started(counters):
    counter = counters.remote()
    ray.kill(counter)
    with pytest.raises(exceptions.RayActorError):
        ray.get(counter.get.remote(), timeout=60)


@pytest.mark.parametrize("thing", [1, "actor", None], ids=repr)
def test_kill_something_else(thing):
    with pytest.raises(ValueError, match="only supported for actors"):
        ray.kill(thing)


def test_kill_a_reference():
    with pytest.raises(ValueError, match="only supported for actors"):
        ray.kill(ray.put(1))


def test_method_and_attribute_of_one_name():
    @ray.remote
    class A:
        def __init__(self):
            self.value = 3
            self.kind = "an attribute"
            self.made = "an attribute"

        def value(self):
            return self.value

        @staticmethod
        def kind():
            return "static"

        @classmethod
        def made(cls):
            return cls.__name__

    a = A.remote()
    assert ray.get([a.value.remote(), a.kind.remote(), a.made.remote()]) == [3, "static", "A"]


def test_exit_actor():
    @ray.remote
    class A:
        def leave(self):
            ray.actor.exit_actor()

        def m(self):
            return 1

    a = A.remote()
    assert ray.get(a.m.remote()) == 1
    with pytest.raises(exceptions.RayActorError):
        ray.get(a.leave.remote())
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(a.m.remote())


def test_exit_actor_cannot_be_caught():
    exit_actor = submodule("actor").exit_actor

    @ray.remote
    class A:
        def leave(self):
            try:
                exit_actor()
            except Exception:
                return "still here"

    with pytest.raises(exceptions.RayActorError):
        ray.get(A.remote().leave.remote())


def test_exit_actor_runs_atexit(tmp_path):
    path = str(tmp_path / "exited")
    exit_actor = submodule("actor").exit_actor

    @ray.remote
    class A:
        def leave(self):
            import atexit

            atexit.register(lambda: open(path, "w").close())
            exit_actor()

    a = A.remote()
    with pytest.raises(exceptions.RayActorError):
        ray.get(a.leave.remote())
    eventually(lambda: os.path.exists(path), "atexit ran")


def test_exit_actor_outside_of_actors():
    with pytest.raises(TypeError, match="exit_actor"):
        submodule("actor").exit_actor()


def test_terminate_after_pending_calls(counters):
    counter = counters.remote()
    calls = [counter.inc.remote() for _ in range(10)]
    with pytest.raises(exceptions.RayActorError):
        ray.get(counter.__ray_terminate__.remote())
    assert ray.get(calls) == list(range(1, 11))
    with pytest.raises(exceptions.RayActorError):
        ray.get(counter.get.remote())


@pytest.mark.parametrize("how", ["_exit", "sys.exit", "SIGKILL"])
def test_crash(how):
    @ray.remote
    class A:
        def crash(self):
            import signal
            import sys

            if how == "_exit":
                os._exit(7)
            elif how == "sys.exit":
                sys.exit(7)
            os.kill(os.getpid(), signal.SIGKILL)

    a = A.remote()
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(a.crash.remote())
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(a.crash.remote())


def test_last_handle_gone_ends_the_actor(counters):
    counter = counters.remote()
    pid = ray.get(counter.pid.remote())
    assert alive(pid)
    del counter
    eventually(lambda: not alive(pid), "the actor's process is gone")


def test_pending_calls_finish_after_the_last_handle_is_gone(counters):
    counter = counters.remote()
    calls = [counter.inc.remote() for _ in range(20)]
    del counter
    assert ray.get(calls) == list(range(1, 21))


def test_handle_held_by_a_task_keeps_the_actor(counters):
    signal = new_signal()
    counter = counters.remote()

    @ray.remote(num_cpus=0)
    def use(box):
        ray.get(signal.wait.remote())
        return ray.get(box[0].inc.remote())

    using = use.remote([counter])
    del counter
    ray.get(signal.send.remote())
    assert ray.get(using, timeout=60) == 1


def test_handle_held_by_an_object_keeps_the_actor(counters):
    counter = counters.remote()
    pid = ray.get(counter.pid.remote())
    box = ray.put([counter])
    del counter
    assert ray.get(ray.get(box)[0].inc.remote()) == 1
    del box
    eventually(lambda: not alive(pid), "the actor's process is gone")


def test_actor_ends_with_the_actor_that_made_it(counters):
    @ray.remote
    class Parent:
        def __init__(self):
            self.child = counters.remote()

        def child_pid(self):
            return ray.get(self.child.pid.remote())

    parent = Parent.remote()
    pid = ray.get(parent.child_pid.remote())
    ray.kill(parent)
    eventually(lambda: not alive(pid), "the child actor's process is gone")


def test_shutdown_hook_runs_on_graceful_end(tmp_path):
    path = str(tmp_path / "closed")

    @ray.remote
    class A:
        def __ray_shutdown__(self):
            open(path, "w").close()

        def m(self):
            return 1

    a = A.remote()
    assert ray.get(a.m.remote()) == 1
    del a
    eventually(lambda: os.path.exists(path), "__ray_shutdown__ ran")


@better_than_ray  # which makes the coroutine, and forgets it
def test_shutdown_hook_may_be_a_coroutine_and_runs_on_the_actors_event_loop(tmp_path):
    path = tmp_path / "closed"

    @ray.remote
    class A:
        async def open(self):
            self.loop = asyncio.get_running_loop()

        async def __ray_shutdown__(self):
            await asyncio.sleep(0)
            path.write_text(str(asyncio.get_running_loop() is self.loop))

    a = A.remote()
    ray.get(a.open.remote())
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(a.__ray_terminate__.remote())
    assert path.read_text() == "True"


def test_handles_pickle_with_the_cloudpickle_of_the_api(counters):
    counter = counters.remote(3)
    again = pickle.loads(ray.cloudpickle.dumps(counter))
    assert ray.get(again.get.remote()) == 3
