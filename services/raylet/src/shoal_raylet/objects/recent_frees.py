"""Objects of other nodes whose homes were told lately that nobody needs them. Pure.

A home that dies meanwhile may not have heard of it, nor passed it on to those that had copies, which have then become
the primary ones. So it is said again, to whoever knows of these.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

#: A node is declared dead within this time after it has done anything, in seconds; a few times that.
REMEMBERED_S = 20.0
#: Of each home; beyond that the oldest are forgotten, and end with their job.
MAX_OBJECTS = 10_000


class RecentFrees:
    def __init__(self) -> None:
        #: By home: when it was told, and of what.
        self._told: dict[bytes, deque[tuple[float, bytes]]] = {}

    def told(self, home: bytes, object_ids: Iterable[bytes], now: float) -> None:
        told = self._told.setdefault(home, deque(maxlen=MAX_OBJECTS))
        while told and told[0][0] < now - REMEMBERED_S:
            told.popleft()
        told.extend((now, object_id) for object_id in object_ids)

    def take(self, home: bytes, now: float) -> set[bytes]:
        """It is dead: what it may not have heard."""
        return {object_id for at, object_id in self._told.pop(home, ()) if at >= now - REMEMBERED_S}
