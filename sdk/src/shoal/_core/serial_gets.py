"""Tasks that could run at the same time run one after another, because each is waited for before the next is submitted:
``[get(f.remote(x)) for x in xs]``.

A loop is known by waits in a row, at the same place of the program, each for the task that was submitted last, with
none submitted meanwhile. Whether these tasks need one another's results cannot be seen, so it is told once a place.
"""

from __future__ import annotations

#: So many such waits in a row are a loop.
ENOUGH = 10
#: Shorter waits cost little, in seconds; they neither count nor end a loop.
SLOW_S = 0.05


class SerialGets:
    """The waits of one process."""

    def __init__(self) -> None:
        self._place = ""
        self._count = 0
        self._seconds = 0.0
        self._told: set[str] = set()

    @property
    def nearly_enough(self) -> bool:
        """One more at the same place is to be told."""
        return self._count == ENOUGH - 1

    def waited(self, place: str, seconds: float) -> float | None:
        """A slow wait for the task that was submitted last. Returns how many seconds the loop has waited in all, when
        that is to be told."""
        if place in self._told:
            return None
        if place != self._place:
            self.ended()
            self._place = place
        self._count += 1
        self._seconds += seconds
        if self._count < ENOUGH:
            return None
        self._told.add(place)
        total = self._seconds
        self.ended()
        return total

    def ended(self) -> None:
        """A slow wait for anything else: no loop, or not of this kind."""
        self._place, self._count, self._seconds = "", 0, 0.0
