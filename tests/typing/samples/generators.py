"""Generators. A line that a type checker must refuse ends with ``# refused``."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import assert_type

import shoal
from shoal import ObjectRef, ObjectRefGenerator


@shoal.remote
def numbers(n: int) -> Iterator[int]:
    yield n


@shoal.remote(num_returns="streaming", max_retries=0)
def names(n: int, first: str = "a") -> Generator[str, None, None]:
    yield first * n


@shoal.remote(num_cpus=0)
def halves(n: int) -> Iterator[float]:
    yield n / 2


@shoal.remote
def all_at_once(n: int) -> list[int]:
    return [n]


gen = numbers.remote(2)
assert_type(gen, ObjectRefGenerator[int])
assert_type(next(gen), ObjectRef[int])
total: int = sum(shoal.get(ref) for ref in gen)
wrong: str = shoal.get(next(gen))  # refused
ready, rest = shoal.wait([gen])
assert_type(ready, list[ObjectRefGenerator[int]])
shoal.cancel(gen)
numbers.remote("2")  # refused
numbers.remote(shoal.put(2))
assert_type(numbers.options(num_cpus=2).remote(2), ObjectRefGenerator[int])
assert_type(names.remote(2, shoal.put("b")), ObjectRefGenerator[str])
names.remote(2, first=3)  # refused
assert_type(halves.remote(2), ObjectRefGenerator[float])
assert_type(all_at_once.remote(2), ObjectRef[list[int]])


async def main() -> list[int]:
    return [await ref async for ref in gen]
