"""The little programs that are compared: the same code runs on Shoal and on Ray, whose module is passed in.

A program does its set-up and returns a step: a function that does a bounded piece of work and says how much it was, in
the row's unit. How often a step runs, and how long, is the business of ``participant.py``.

The functions and classes that run remotely are defined inside the programs, so that they are pickled by value and
the workers need not find this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Step = Callable[[], float]
#: The module ``shoal`` or ``ray``.
Library = Any

MIB = 1 << 20
GB = 1e9
BIG_ARRAY_BYTES = 256 * MIB


def one_task_at_a_time(ray: Library) -> Step:
    @ray.remote
    def nothing() -> None:
        pass

    def step() -> float:
        for _ in range(20):
            ray.get(nothing.remote())
        return 20

    return step


def thousand_tasks_at_once(ray: Library) -> Step:
    @ray.remote
    def nothing() -> None:
        pass

    def step() -> float:
        ray.get([nothing.remote() for _ in range(1000)])
        return 1000

    return step


def nested_tasks(ray: Library) -> Step:
    @ray.remote
    def nothing() -> None:
        pass

    @ray.remote
    def submit_hundred() -> None:
        ray.get([nothing.remote() for _ in range(100)])

    def step() -> float:
        ray.get([submit_hundred.remote() for _ in range(4)])
        return 400

    return step


def one_actor_call_at_a_time(ray: Library) -> Step:
    actor = _actor_class(ray).remote()

    def step() -> float:
        for _ in range(50):
            ray.get(actor.nothing.remote())
        return 50

    return step


def thousand_actor_calls_at_once(ray: Library) -> Step:
    actor = _actor_class(ray).remote()

    def step() -> float:
        ray.get([actor.nothing.remote() for _ in range(1000)])
        return 1000

    return step


def two_actors_call_two_actors(ray: Library) -> Step:
    class Caller:
        def __init__(self, targets: list[Any]) -> None:
            self.targets = targets

        def call(self, n: int) -> None:
            ray.get([target.nothing.remote() for _ in range(n // 2) for target in self.targets])

    targets = [_actor_class(ray).remote() for _ in range(2)]
    callers = [ray.remote(Caller).remote(targets) for _ in range(2)]

    def step() -> float:
        ray.get([caller.call.remote(500) for caller in callers])
        return 1000

    return step


def thousand_async_actor_calls_at_once(ray: Library) -> Step:
    class Actor:
        async def nothing(self) -> None:
            pass

    actor = ray.remote(Actor).remote()

    def step() -> float:
        ray.get([actor.nothing.remote() for _ in range(1000)])
        return 1000

    return step


def small_put(ray: Library) -> Step:
    def step() -> float:
        for _ in range(100):
            ray.put(0)
        return 100

    return step


def small_get(ray: Library) -> Step:
    ref = ray.put(0)

    def step() -> float:
        for _ in range(100):
            ray.get(ref)
        return 100

    return step


def put_big_arrays(ray: Library) -> Step:
    # Not zeros: the kernel backs those with one page that stays in the cache.
    array = np.ones(BIG_ARRAY_BYTES, dtype=np.uint8)

    def step() -> float:
        ray.put(array)
        return BIG_ARRAY_BYTES / GB

    return step


def task_on_stored_array(ray: Library) -> Step:
    @ray.remote
    def size(array: Any) -> int:
        return int(array.nbytes)

    ref = ray.put(np.ones(MIB, dtype=np.uint8))

    def step() -> float:
        for _ in range(20):
            ray.get(size.remote(ref))
        return 20

    return step


def get_stored_array(ray: Library) -> Step:
    ref = ray.put(np.ones(MIB, dtype=np.uint8))

    def step() -> float:
        for _ in range(100):
            ray.get(ref)
        return 100

    return step


def wait_one_by_one(ray: Library) -> Step:
    @ray.remote
    def nothing() -> None:
        pass

    def step() -> float:
        pending = [nothing.remote() for _ in range(1000)]
        while pending:
            _, pending = ray.wait(pending)
        return 1

    return step


def object_holding_refs(ray: Library) -> Step:
    refs = [ray.put(i) for i in range(1000)]

    def step() -> float:
        ray.get(ray.put(refs))
        return 1

    return step


def actor_lives(ray: Library) -> Step:
    actor_class = _actor_class(ray)

    def step() -> float:
        actor = actor_class.remote()
        ray.get(actor.nothing.remote())
        ray.kill(actor)
        return 1

    return step


def _actor_class(ray: Library) -> Any:
    class Actor:
        def nothing(self) -> None:
            pass

    return ray.remote(Actor)
