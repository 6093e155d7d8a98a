"""Actors. A line that a type checker must refuse ends with ``# refused``."""

from __future__ import annotations

from typing import Any, assert_type

import shoal
from shoal import ObjectRef
from shoal.actor import ActorClass, ActorHandle, ActorProxy


class _Counter:
    def __init__(self, start: int) -> None:
        self.count = start

    @shoal.method
    def add(self, amount: int = 1) -> int:
        self.count += amount
        return self.read()

    @shoal.method(max_task_retries=2)
    def read(self) -> int:
        return self.count

    @shoal.method
    async def later(self, name: str) -> str:
        return name


# mypy takes no notice of what a class decorator returns, so there the class has a name of its own.
Counter = shoal.remote(_Counter)
assert_type(Counter, ActorClass[_Counter])

counter = Counter.remote(1)
Counter.options(name="counter", max_restarts=1).remote(1)

added: int = shoal.get(counter.add.remote())
added = shoal.get(counter.add.remote(amount=2))
wrong: str = shoal.get(counter.add.remote())  # refused
named: str = shoal.get(counter.later.remote("a"))
named = shoal.get(counter.read.remote())  # refused
counter.add.remote(shoal.put(2))
counter.add.options(name="adding").remote(1)
counter.add.remote("2")  # refused
counter.read.remote(2)  # refused
counter.later.remote("a", "b")  # refused
counter.add.options(name="adding").remote("2")  # refused


def passed_on(counter: ActorProxy[_Counter]) -> ObjectRef[Any]:
    return counter.add.remote(2)


# A handle of which nothing is known, as from ``get_actor``.
anyone: ActorHandle = shoal.get_actor("counter")
assert_type(shoal.get(anyone.whatever.remote(1)), Any)
shoal.kill(anyone)
