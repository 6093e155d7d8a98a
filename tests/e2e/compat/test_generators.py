"""Generator tasks and methods, whose results are streamed, as far as Ray does the same."""

from __future__ import annotations

import asyncio
import os
import time

import numpy as np
import pytest
from e2e.compat.target import better_than_ray, exceptions, new_signal, ray

pytestmark = pytest.mark.usefixtures("cluster")


def numbers(n):
    """Not ``yield from range(n)``: Ray sends generators something, which a range does not take."""
    for i in range(n):  # noqa: UP028
        yield i


count = ray.remote(numbers)


def outcomes(refs):
    """Values, and the names of the classes of what was raised."""
    found = []
    for ref in refs:
        try:
            found.append(ray.get(ref))
        except Exception as error:
            found.append(type(getattr(error, "cause", None) or error).__name__)
    return found


# -- reading ----------------------------------------------------------------------------------------------


def test_a_generator_gives_its_refs_one_by_one():
    gen = count.remote(5)
    assert isinstance(gen, ray.ObjectRefGenerator)
    assert iter(gen) is gen
    first = next(gen)
    assert isinstance(first, ray.ObjectRef)
    assert [ray.get(ref) for ref in [first, *gen]] == [0, 1, 2, 3, 4]
    with pytest.raises(StopIteration):
        next(gen)
    assert ray.get(gen.completed()) is None


def test_nothing_is_yielded():
    assert list(count.remote(0)) == []


def test_an_item_is_there_before_the_next_one_is_made():
    signal = new_signal()

    @ray.remote
    def steps():
        yield "first"
        ray.get(signal.wait.remote())
        yield "second"

    gen = steps.remote()
    assert ray.get(next(gen)) == "first"
    assert not gen.next_ready() and not gen.is_finished()
    assert ray.wait([gen], timeout=0.1) == ([], [gen])
    assert gen._next_sync(0.1).is_nil()
    ray.get(signal.send.remote())
    assert ray.wait([gen]) == ([gen], [])
    assert gen.next_ready()
    assert ray.get(next(gen)) == "second"


def test_it_runs_without_being_read():
    gen = count.remote(100)
    ray.get(gen.completed())
    assert [ray.get(ref) for ref in gen] == list(range(100))


def test_the_end_is_ready_for_wait():
    gen = count.remote(1)
    next(gen)
    ray.get(gen.completed())
    assert ray.wait([gen]) == ([gen], [])
    assert gen.is_finished() and not gen.next_ready()


def test_wait_for_generators_and_refs():
    signal = new_signal()

    @ray.remote
    def later():
        ray.get(signal.wait.remote())
        yield 1

    waiting, there, ref = later.remote(), count.remote(1), ray.put(1)
    ready, rest = ray.wait([waiting, there, ref], num_returns=2)
    assert ready == [there, ref] and rest == [waiting]
    ray.get(signal.send.remote())
    assert ray.wait([waiting])[0] == [waiting]


def test_get_of_a_generator_is_the_generator():
    gen = count.remote(1)
    assert ray.get(gen) is gen
    with pytest.raises(TypeError):
        ray.get([gen])


def test_async_for():
    async def read():
        return [await ref async for ref in count.remote(5)]

    assert asyncio.run(read()) == [0, 1, 2, 3, 4]


def test_items_of_all_kinds():
    @ray.remote
    def kinds():
        yield None
        yield b"bytes"
        yield b"long" * 100_000
        yield np.arange(300_000)
        yield [ray.put("inside")]

    none, short, long, array, nested = (ray.get(ref) for ref in kinds.remote())
    assert none is None and short == b"bytes" and long == b"long" * 100_000
    assert array.tolist() == list(range(300_000))
    assert ray.get(nested[0]) == "inside"


def test_items_as_arguments():
    @ray.remote
    def double(x):
        return 2 * x

    assert ray.get([double.remote(ref) for ref in count.remote(3)]) == [0, 2, 4]


def test_a_task_reads_a_generator_of_its_own():
    @ray.remote
    def total(n):
        return sum(ray.get(ref) for ref in count.remote(n))

    assert ray.get(total.remote(10)) == 45


def test_options():
    @ray.remote(num_returns="streaming")
    def streamed():
        yield 1

    assert outcomes(streamed.remote()) == [1]
    assert ray.get(count.options(num_returns=2).remote(2)) == [0, 1]
    assert outcomes(count.options(name="other").remote(2)) == [0, 1]


# -- what cannot be ---------------------------------------------------------------------------------------


def test_only_generators_are_streamed():
    @ray.remote
    def plain():
        return [1]

    with pytest.raises(ValueError, match="can only be used with generator functions"):
        plain.options(num_returns="streaming").remote()


def test_it_is_not_passed_on():
    @ray.remote
    def take(gen):
        pass

    gen = count.remote(1)
    with pytest.raises(TypeError, match="cannot return or pass a generator to other task"):
        take.remote(gen)
    with pytest.raises(TypeError, match="cannot return or pass a generator to other task"):
        ray.put([gen])


def test_what_generators_have_besides():
    gen = count.remote(1)
    for call in (lambda: gen.send(1), lambda: gen.throw(ValueError()), gen.close):
        with pytest.raises(NotImplementedError, match="is not supported"):
            call()


# -- errors -----------------------------------------------------------------------------------------------


def test_an_exception_is_the_last_item():
    @ray.remote
    def fails():
        yield 1
        raise ValueError("in the middle")

    gen = fails.remote()
    assert outcomes(gen) == [1, "ValueError"]
    assert ray.get(gen.completed()) is None
    assert list(gen) == []


def test_what_cannot_be_pickled_is_an_error():
    @ray.remote
    def fails():
        yield 1
        yield os.scandir(".")

    assert outcomes(fails.remote()) == [1, "TypeError"]


def test_an_argument_that_is_an_error():
    @ray.remote
    def fails():
        raise ValueError

    @ray.remote
    def never(argument):
        yield argument

    assert outcomes(never.remote(fails.remote())) == ["ValueError"]


def test_retry_exceptions(tmp_path):
    @ray.remote(max_retries=1, retry_exceptions=True)
    def second_time(path):
        yield 1
        yield 2
        if not path.exists():
            path.touch()
            raise ValueError
        yield 3

    gen = second_time.remote(tmp_path / "ran")
    assert outcomes(gen) == [1, 2, 3]


def test_the_worker_dies():
    @ray.remote(max_retries=0)
    def dies(signal):
        yield 1
        ray.get(signal.wait.remote())
        os._exit(1)

    signal = new_signal()
    gen = dies.remote(signal)
    assert ray.get(next(gen)) == 1
    ray.get(signal.send.remote())
    assert outcomes(gen) == ["WorkerCrashedError"]
    with pytest.raises(exceptions.WorkerCrashedError):
        ray.get(gen.completed())


def test_the_worker_dies_and_all_is_repeated(tmp_path):
    @ray.remote(max_retries=1)
    def dies_once(path):
        for i in range(10):
            if i == 5 and not path.exists():
                path.touch()
                os._exit(1)
            yield i
            yield np.full(50_000, i)

    found = outcomes(dies_once.remote(tmp_path / "ran"))
    assert found[::2] == list(range(10))
    assert [int(array[-1]) for array in found[1::2]] == list(range(10))


# -- back-pressure ----------------------------------------------------------------------------------------


@ray.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1

    def get(self):
        return self.count


def reaches(counter, count):
    deadline = time.monotonic() + 120
    while ray.get(counter.get.remote()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return ray.get(counter.get.remote()) == count


def counting(counter, n):
    for i in range(n):
        ray.get(counter.add.remote())
        yield i


def test_backpressure():
    counter = Counter.remote()
    gen = ray.remote(counting).options(_generator_backpressure_num_objects=2).remote(counter, 6)
    assert reaches(counter, 2)
    next(gen)
    assert reaches(counter, 3)
    assert len([ray.get(ref) for ref in gen]) == 5
    assert ray.get(counter.get.remote()) == 6


def test_backpressure_of_actors():
    @ray.remote(_actor_generator_backpressure_num_objects=1)
    class Maker:
        def make(self, counter, n):
            yield from counting(counter, n)

    counter, maker = Counter.remote(), Maker.remote()
    gen = maker.make.remote(counter, 3)
    assert reaches(counter, 1)
    assert outcomes(gen) == [0, 1, 2]
    assert outcomes(maker.make.options(_generator_backpressure_num_objects=-1).remote(counter, 3)) == [0, 1, 2]


# -- actors -----------------------------------------------------------------------------------------------


def test_methods_of_an_actor():
    @ray.remote
    class Maker:
        def make(self, n):
            yield from numbers(n)
            if n == 2:
                raise ValueError

        @ray.method(num_returns=2)
        def pair(self):
            yield 1
            yield 2

    maker = Maker.remote()
    assert outcomes(maker.make.remote(3)) == [0, 1, 2]
    assert outcomes(maker.make.remote(2)) == [0, 1, "ValueError"]
    assert ray.get(maker.pair.remote()) == [1, 2]


def test_threads_of_an_actor():
    signal = new_signal()

    @ray.remote(max_concurrency=2)
    class Maker:
        def make(self, n):
            yield from numbers(n)

        def slow(self):
            yield 1
            ray.get(signal.wait.remote())
            yield 2

    maker = Maker.remote()
    slow = maker.slow.remote()
    assert ray.get(next(slow)) == 1
    assert outcomes(maker.make.remote(3)) == [0, 1, 2]
    ray.get(signal.send.remote())
    assert outcomes(slow) == [2]


def test_async_generators():
    @ray.remote
    class Maker:
        def __init__(self):
            self.event = asyncio.Event()

        async def make(self, n):
            for i in range(n):
                await asyncio.sleep(0)
                yield i
            if n == 2:
                raise ValueError

        async def wait(self):
            yield 1
            await self.event.wait()
            yield 2

        async def go_on(self):
            self.event.set()

        def plain(self):
            yield "plain"

    maker = Maker.remote()
    waiting = maker.wait.remote()
    assert ray.get(next(waiting)) == 1
    assert outcomes(maker.make.remote(3)) == [0, 1, 2]
    assert outcomes(maker.make.remote(2)) == [0, 1, "ValueError"]
    assert outcomes(maker.plain.remote()) == ["plain"]
    ray.get(maker.go_on.remote())
    assert outcomes(waiting) == [2]


def test_the_actor_dies():
    @ray.remote
    class Maker:
        def make(self):
            yield 1
            time.sleep(1000)

    maker = Maker.remote()
    gen = maker.make.remote()
    assert ray.get(next(gen)) == 1
    ray.kill(maker)
    assert outcomes(gen) == ["ActorDiedError"]


def test_a_call_is_repeated_when_the_actor_restarts(tmp_path):
    @ray.remote(max_restarts=1, max_task_retries=1)
    class Maker:
        def make(self, path):
            for i in range(6):
                if i == 3 and not path.exists():
                    path.touch()
                    os._exit(1)
                yield i

    assert outcomes(Maker.remote().make.remote(tmp_path / "ran")) == [0, 1, 2, 3, 4, 5]


# -- num_returns="dynamic" --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*dynamic:DeprecationWarning", "ignore:.*dynamic:UserWarning")
def test_dynamic():
    @ray.remote(num_returns="dynamic")
    def make(n):
        for i in range(n):
            yield np.full(50_000, i)

    @ray.remote
    def length(items):
        return len(items), [int(ray.get(ref)[0]) for ref in items]

    ref = make.remote(3)
    assert isinstance(ref, ray.ObjectRef)
    items = ray.get(ref)
    assert isinstance(items, ray.DynamicObjectRefGenerator)
    assert len(items) == 3
    assert [int(ray.get(item)[0]) for item in items] == [0, 1, 2]
    assert ray.get(length.remote(ref)) == (3, [0, 1, 2])


@pytest.mark.filterwarnings("ignore:.*dynamic:DeprecationWarning", "ignore:.*dynamic:UserWarning")
def test_dynamic_that_fails():
    @ray.remote(num_returns="dynamic")
    def make():
        yield 1
        raise ValueError

    assert outcomes(ray.get(make.remote())) == [1, "ValueError"]


# -- better than Ray --------------------------------------------------------------------------------------


@better_than_ray
def test_async_functions_are_no_tasks():
    async def make():
        yield 1

    with pytest.raises(ValueError, match="'async def' should not be used for remote tasks"):
        ray.remote(make)
