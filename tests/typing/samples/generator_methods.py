"""Methods that yield. A line that a type checker must refuse ends with ``# refused``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import shoal
from shoal import ObjectRef, ObjectRefGenerator


class _Source:
    @shoal.method
    def numbers(self, n: int) -> Iterator[int]:
        yield n

    @shoal.method(max_task_retries=2)
    def names(self, n: int, first: str = "a") -> Generator[str, None, None]:
        yield first * n

    @shoal.method
    async def later(self, n: int) -> AsyncIterator[float]:
        yield n / 2

    @shoal.method
    def unknown(self, n: int) -> Any:
        return n

    @shoal.method
    def total(self) -> int:
        return sum(self.numbers(2))


Source = shoal.remote(_Source)
source = Source.remote()

gen = source.numbers.remote(2)
first: ObjectRef[int] = next(gen)
wrong: ObjectRef[str] = next(gen)  # refused
total: int = sum(shoal.get(ref) for ref in gen)
all_of_them: ObjectRefGenerator[int] = source.numbers.remote(2)
of_others: ObjectRefGenerator[str] = source.numbers.remote(2)  # refused
source.numbers.remote("2")  # refused
source.numbers.remote(shoal.put(2))
all_of_them = source.numbers.options(name="counting").remote(2)
of_others = source.names.remote(2, shoal.put("b"))
source.names.remote(2, first=3)  # refused
halves: ObjectRefGenerator[float] = source.later.remote(2)
added: ObjectRef[int] = source.total.remote()
anything: ObjectRef[str] = source.unknown.remote(2)


async def main() -> list[int]:
    return [await ref async for ref in gen]
