"""Remote functions. A line that a type checker must refuse ends with ``# refused``."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any, assert_type

import shoal
from shoal import ObjectRef


@shoal.remote
def scale(x: int, by: str = "1", *, times: float = 1.0) -> bytes:
    """Not called."""
    return by.encode() * int(x * times)


@shoal.remote(num_cpus=2, max_retries=0)
def total(values: list[int]) -> int:
    return sum(values)


@shoal.remote
def nothing() -> None: ...


number: ObjectRef[int] = shoal.put(1)
text = shoal.put("a")
assert_type(text, ObjectRef[str])

# Its own signature, and the type of what it returns.
assert_type(scale.remote(1), ObjectRef[bytes])
assert_type(scale.remote(x=1, by="2", times=2), ObjectRef[bytes])
assert_type(total.remote([1]), ObjectRef[int])
assert_type(nothing.remote(), ObjectRef[None])
scale.remote("1")  # refused
scale.remote(1, 2)  # refused
scale.remote(1, times="2")  # refused
scale.remote(1, wrong=2)  # refused
total.remote(["1"])  # refused
total.remote([1], 2)  # refused
nothing.remote(1)  # refused

# Refs of what it takes.
scale.remote(number)
scale.remote(number, text)
scale.remote(1, text, times=2.0)
scale.remote(number, "2", times=2.0)
scale.remote(x=number, by=text)
total.remote(shoal.put([1]))

# Options.
assert_type(scale.options(num_cpus=1, name="scale").remote(1), ObjectRef[bytes])
scale.options(num_cpus=1).remote("1")  # refused
first, second = scale.options(num_returns=2).remote(1)


@shoal.remote(num_returns=2)
def two() -> tuple[int, str]:
    return 1, "a"


one, other = two.remote()

# Values.
assert_type(shoal.get(scale.remote(1)), bytes)
assert_type(shoal.get([scale.remote(1), scale.remote(2)]), list[bytes])
assert_type(shoal.wait([total.remote([1])]), tuple[list[ObjectRef[int]], list[ObjectRef[int]]])
assert_type(number.future(), concurrent.futures.Future[int])
wrong: str = shoal.get(number)  # refused
shoal.get(1)  # refused


async def main() -> None:
    assert_type(await number, int)
    assert_type(await asyncio.wait_for(number, 1), int)


# A function in another variable, without a decorator, and one of which nothing is known.
square = shoal.remote(lambda x: x * x)
square.remote(2)


def untyped(x, y):  # type: ignore[no-untyped-def]
    return x + y


assert_type(shoal.get(shoal.remote(untyped).remote(1, number)), Any)
