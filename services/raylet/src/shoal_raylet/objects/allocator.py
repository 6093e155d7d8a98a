"""Which bytes of the arena are free. Pure: it only counts.

Address-ordered first fit: an allocation takes the lowest extent that holds it, so that pages which were
faulted in once are reused before fresh ones are touched (copying into fresh shared memory is ten times
slower). Neighbouring free extents always merge. A size-segregated allocator would search faster, but an
arena holds only objects over 100 KiB: some ten thousand extents at most.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

#: Every object starts at a multiple of this: a cache line, and enough for any numpy dtype.
ALIGNMENT = 64
#: Large objects start on a page, so that a reader can map or advise on them alone.
PAGE = 4096
LARGE_BYTES = 1024 * 1024


class Allocator:
    """Free extents of ``[0, capacity)``, in bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        #: Starts and ends of the free extents, ascending; no two of them touch.
        self._starts: list[int] = [0] if capacity else []
        self._ends: list[int] = [capacity] if capacity else []
        self._free = capacity

    @property
    def used(self) -> int:
        """Allocated bytes, rounded up to the alignment."""
        return self.capacity - self._free

    @staticmethod
    def rounded(size: int) -> int:
        """Bytes that an object of ``size`` bytes takes."""
        return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)

    def allocate(self, size: int) -> int | None:
        """The offset of ``size`` free bytes, or None when no extent holds them."""
        length = self.rounded(size)
        if length > self._free:
            return None
        alignment = PAGE if size >= LARGE_BYTES else ALIGNMENT
        for i, (start, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            offset = -(-start // alignment) * alignment
            if offset + length <= end:
                self._take(i, offset, offset + length)
                return offset
        return None

    def free(self, offset: int, size: int) -> None:
        """Give back what ``allocate(size)`` answered.

        Raises: ValueError when a part of it is free already.
        """
        start, end = offset, offset + self.rounded(size)
        i = bisect_left(self._starts, start)
        if (i > 0 and self._ends[i - 1] > start) or (i < len(self._starts) and self._starts[i] < end):
            raise ValueError(f"bytes {start} to {end} of the arena are free already")
        joins_previous = i > 0 and self._ends[i - 1] == start
        joins_next = i < len(self._starts) and self._starts[i] == end
        if joins_previous and joins_next:
            self._ends[i - 1] = self._ends.pop(i)
            del self._starts[i]
        elif joins_previous:
            self._ends[i - 1] = end
        elif joins_next:
            self._starts[i] = start
        else:
            self._starts.insert(i, start)
            self._ends.insert(i, end)
        self._free += end - start

    def extents(self) -> list[tuple[int, int]]:
        """The free extents as (start, end), ascending."""
        return list(zip(self._starts, self._ends, strict=True))

    def validate(self) -> None:
        extents = self.extents()
        assert all(0 <= start < end <= self.capacity for start, end in extents)
        assert all(end < start for (_, end), (start, _) in pairwise(extents)), "extents that touch are one"
        assert self._free == sum(end - start for start, end in extents)

    def _take(self, i: int, start: int, end: int) -> None:
        before, after = self._starts[i] < start, end < self._ends[i]
        if before and after:
            self._starts.insert(i + 1, end)
            self._ends.insert(i, start)
        elif before:
            self._ends[i] = start
        elif after:
            self._starts[i] = end
        else:
            del self._starts[i], self._ends[i]
        self._free -= end - start
