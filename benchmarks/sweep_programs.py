"""The programs of the sweep: calls of many sizes and shapes. As in `programs`, each runs on both libraries."""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from programs import GB, MIB, Library, Step

Program = Callable[[Library], Step]

#: A step moves about so many bytes, in at most so many calls.
STEP_BYTES = 200_000_000
STEP_CALLS = 2_000
#: The objects that do not fit into their store, and the store.
SPILLED_OBJECTS = 24
SPILLED_BYTES = 128 * MIB
SPILLING_STORE = 2048 * MIB


def calls_of(size: int) -> int:
    """In one step, with ``size`` bytes each."""
    return min(STEP_CALLS, max(20, STEP_BYTES // size))


def task_arguments(size: int) -> Program:
    def program(ray: Library) -> Step:
        @ray.remote
        def take(data: bytes) -> None:
            pass

        argument, calls = os.urandom(size), calls_of(size)

        def step() -> float:
            ray.get([take.remote(argument) for _ in range(calls)])
            return calls

        return step

    return program


def task_returns(size: int) -> Program:
    def program(ray: Library) -> Step:
        @ray.remote
        def give() -> bytes:
            return bytes(size)

        calls = calls_of(size)

        def step() -> float:
            ray.get([give.remote() for _ in range(calls)])
            return calls

        return step

    return program


def actor_arguments(size: int) -> Program:
    def program(ray: Library) -> Step:
        class Actor:
            def take(self, data: bytes) -> None:
                pass

        actor, argument, calls = ray.remote(Actor).remote(), os.urandom(size), calls_of(size)

        def step() -> float:
            ray.get([actor.take.remote(argument) for _ in range(calls)])
            return calls

        return step

    return program


def actor_returns(size: int) -> Program:
    def program(ray: Library) -> Step:
        class Actor:
            def give(self) -> bytes:
                return bytes(size)

        actor, calls = ray.remote(Actor).remote(), calls_of(size)

        def step() -> float:
            ray.get([actor.give.remote() for _ in range(calls)])
            return calls

        return step

    return program


def small_items(ray: Library) -> Step:
    @ray.remote
    def numbers(n: int) -> Any:
        for i in range(n):  # noqa: UP028  Ray sends generators something, which a range does not take
            yield i

    def step() -> float:
        read = 0
        for ref in numbers.remote(STEP_CALLS):
            assert ray.get(ref) == read
            read += 1
        return read

    return step


def arrays_as_items(ray: Library) -> Step:
    @ray.remote
    def arrays(n: int) -> Any:
        for _ in range(n):
            yield np.zeros(MIB, dtype=np.uint8)

    items = calls_of(MIB)

    def step() -> float:
        return sum(len(ray.get(ref)) for ref in arrays.remote(items)) / MIB

    return step


def more_than_fits(ray: Library) -> Step:
    """Put and read back in order, one at a time."""
    # Not zeros: the kernel backs those with one page that stays in the cache.
    array = np.frombuffer(os.urandom(MIB) * (SPILLED_BYTES // MIB), dtype=np.uint8)

    def step() -> float:
        refs = [ray.put(array) for _ in range(SPILLED_OBJECTS)]
        for ref in refs:
            assert ray.get(ref)[-1] == array[-1]
        return SPILLED_OBJECTS * SPILLED_BYTES / GB

    return step


def ten_thousand_ref_arguments(ray: Library) -> Step:
    @ray.remote
    def count(*values: int) -> int:
        return len(values)

    refs = [ray.put(i) for i in range(10_000)]

    def step() -> float:
        assert ray.get(count.remote(*refs)) == len(refs)
        return len(refs)

    return step


def nested_refs(ray: Library) -> Step:
    """Refs in lists: the task gets them itself, from their owner."""

    @ray.remote
    def total(refs: list[Any]) -> int:
        return sum(ray.get(refs))

    refs = [ray.put(i) for i in range(1_000)]

    def step() -> float:
        assert ray.get(total.remote(refs)) == sum(range(1_000))
        return len(refs)

    return step


def get_one_by_one(ray: Library) -> Step:
    @ray.remote
    def nothing() -> None:
        pass

    def step() -> float:
        for ref in [nothing.remote() for _ in range(1_000)]:
            ray.get(ref)
        return 1_000

    return step


def await_many(ray: Library) -> Step:
    @ray.remote
    def nothing() -> None:
        pass

    async def gather() -> None:
        async def one(ref: Any) -> None:
            await ref

        await asyncio.gather(*(one(nothing.remote()) for _ in range(5_000)))

    def step() -> float:
        asyncio.run(gather())
        return 5_000

    return step


def chain(ray: Library) -> Step:
    """Each task takes the result of the one before."""

    @ray.remote
    def add_one(number: int) -> int:
        return number + 1

    def step() -> float:
        ref = ray.put(0)
        for _ in range(1_000):
            ref = add_one.remote(ref)
        assert ray.get(ref) == 1_000
        return 1_000

    return step


def _two_actors(ray: Library) -> tuple[Any, Any]:
    class Actor:
        def add_one(self, number: int) -> int:
            return number + 1

    actor = ray.remote(Actor)
    return actor.remote(), actor.remote()


def ping_pong_by_calls(ray: Library) -> Step:
    """There and back by two actors, one number at a time."""
    one, other = _two_actors(ray)

    def step() -> float:
        for number in range(100):
            assert ray.get(other.add_one.remote(ray.get(one.add_one.remote(number)))) == number + 2
        return 100

    return step


def ping_pong_compiled(ray: Library) -> Step:
    """The same in a compiled graph."""
    dag = importlib.import_module(f"{ray.__name__}.dag")
    one, other = _two_actors(ray)
    with dag.InputNode() as number:
        graph = other.add_one.bind(one.add_one.bind(number)).experimental_compile()

    def step() -> float:
        for number in range(100):
            assert ray.get(graph.execute(number)) == number + 2
        return 100

    return step


def actor_pool_map(ray: Library) -> Step:
    """By two actors, each with one value at a time."""
    pool_module = importlib.import_module(f"{ray.__name__}.util")
    pool = pool_module.ActorPool(list(_two_actors(ray)))

    def step() -> float:
        results = pool.map(lambda actor, number: actor.add_one.remote(number), range(500))
        assert sum(results) == sum(range(501))
        return 500

    return step


def _square(number: int) -> int:
    return number * number


def pool_map(chunksize: int | None) -> Program:
    """``multiprocessing``'s pool of two, on the cluster. ``chunksize`` None: as the library chooses."""

    def program(ray: Library) -> Step:
        pool_module = importlib.import_module(f"{ray.__name__}.util.multiprocessing")
        pool, count = pool_module.Pool(2), 500 if chunksize else 20_000

        def step() -> float:
            assert len(pool.map(_square, range(count), chunksize=chunksize)) == count
            return count

        return step

    return program


def tree(ray: Library) -> Step:
    """1,024 leaves, added up in pairs."""

    @ray.remote
    def one() -> int:
        return 1

    @ray.remote
    def add(a: int, b: int) -> int:
        return a + b

    def step() -> float:
        level = [one.remote() for _ in range(1_024)]
        while len(level) > 1:
            level = [add.remote(a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
        assert ray.get(level[0]) == 1_024
        return 2_047

    return step


def hundred_actors(ray: Library) -> Step:
    """Started, called and killed."""

    class Actor:
        def nothing(self) -> None:
            pass

    actor_class = ray.remote(Actor)

    def step() -> float:
        actors = [actor_class.remote() for _ in range(100)]
        ray.get([actor.nothing.remote() for actor in actors])
        for actor in actors:
            ray.kill(actor)
        return 100

    return step


def eight_threads(ray: Library) -> Step:
    """Of the driver, each with one task at a time."""

    @ray.remote
    def nothing() -> None:
        pass

    def call() -> None:
        for _ in range(100):
            ray.get(nothing.remote())

    def step() -> float:
        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 800

    return step


def arrays_between_tasks(ray: Library) -> Step:
    """100 tasks make 8 MiB arrays for 100 others."""

    @ray.remote
    def make() -> Any:
        return np.ones(MIB, dtype=np.float64)

    @ray.remote
    def use(array: Any) -> float:
        return float(array[0] + array[-1])

    def step() -> float:
        assert sum(ray.get([use.remote(make.remote()) for _ in range(100)])) == 200
        return 100

    return step
