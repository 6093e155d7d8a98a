"""Pieces of the arena that this process holds ahead of need, so that it writes small objects without asking first.

A process that writes one object soon after the other asks for a piece, and for the next one when half of it is used.
When it has written nothing for a moment it gives back what it has. The raylet need not grant any, and asks for
them back when others need room.
"""

from __future__ import annotations

import time
from collections import deque

from shoal._net.interrupts import GuardedLock

#: Larger objects are asked for one by one: copying them takes longer than the question.
MAX_BYTES = 1024 * 1024
PIECE_BYTES = 4 * 1024 * 1024
#: Where objects begin, as in the raylet's allocator.
ALIGNMENT = 64
#: Two objects within this time are one soon after the other; what is not used for so long is given back. In seconds.
IDLE_S = 0.05
#: After a refusal nothing is asked for so long, in seconds.
REFUSED_S = 1.0


class Pieces:
    """Thread-safe. Extents are an offset and a size in bytes."""

    def __init__(self) -> None:
        self._lock = GuardedLock()
        #: Begin and end of what is left of each, the oldest first.
        self._left: deque[tuple[int, int]] = deque()
        #: Left over, and too small for what was written next.
        self._scraps: list[tuple[int, int]] = []
        #: Of objects that have been begun: offset, size and owner.
        self._begun: dict[bytes, tuple[int, int, bytes]] = {}
        self._asked = False
        self._ask_after = 0.0
        self._used_at = 0.0
        #: The last object came soon after the one before.
        self._soon = False

    def begin(self, object_id: bytes, size: int, owner: bytes) -> int | None:
        """Where an object is to be written; None = it has to be asked for."""
        length = -(-size // ALIGNMENT) * ALIGNMENT
        with self._lock:
            now = time.monotonic()
            self._soon = now - self._used_at < IDLE_S
            self._used_at = now
            while self._left:
                begin, end = self._left.popleft()
                if begin + length <= end:
                    self._begun[object_id] = begin, size, owner
                    if begin + length < end:
                        self._left.appendleft((begin + length, end))
                    return begin
                self._scraps.append((begin, end - begin))
            return None

    def end(self, object_id: bytes) -> tuple[int, int, bytes] | None:
        """Offset, size and owner of an object that is placed now, or given up; None = it lies in no piece."""
        with self._lock:
            return self._begun.pop(object_id, None)

    def wants(self) -> bool:
        """Whether to ask for a piece: it counts as asked for then."""
        with self._lock:
            left = sum(end - begin for begin, end in self._left)
            if self._asked or not self._soon or 2 * left > PIECE_BYTES or time.monotonic() < self._ask_after:
                return False
            self._asked = True
            return True

    def granted(self, offset: int) -> None:
        with self._lock:
            self._asked = False
            self._left.append((offset, offset + PIECE_BYTES))

    def refused(self) -> None:
        with self._lock:
            self._asked = False
            self._ask_after = time.monotonic() + REFUSED_S

    def __bool__(self) -> bool:
        return bool(self._left or self._scraps)

    def unused(self, *, all_of_them: bool = False) -> list[tuple[int, int]]:
        """Extents to be given back: what nothing was written to for a moment, or all that there is."""
        with self._lock:
            extents, self._scraps = self._scraps, []
            if all_of_them or time.monotonic() - self._used_at > IDLE_S:
                extents += [(begin, end - begin) for begin, end in self._left]
                self._left.clear()
            return extents
