"""Generators. A line that a type checker must refuse ends with ``# refused``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

import shoal
from shoal import ObjectRef, ObjectRefGenerator


@shoal.remote(num_returns="streaming")
def numbers(n: int) -> Iterator[int]:
    yield n


# Checkers cannot tell a generator function from one of which they do not know what it returns.
gen: ObjectRefGenerator[int] = numbers.remote(2)
assert_type(next(gen), ObjectRef[int])
total: int = sum(shoal.get(ref) for ref in gen)
wrong: str = shoal.get(next(gen))  # refused
ready, rest = shoal.wait([gen])
assert_type(ready, list[ObjectRefGenerator[int]])
shoal.cancel(gen)


async def main() -> list[int]:
    return [await ref async for ref in gen]
