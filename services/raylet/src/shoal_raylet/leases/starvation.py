"""When resources are waited for that no worker lease will give back, so that only the end of an actor can help. Pure.

An actor lives as long as anybody has its handle, and one in a cycle of references is found by the garbage collector
alone, which in a process that does little may not run for hours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shoal_common.placement.resources import ResourceSet

#: Bounds of the pause before it is told again, in seconds: collecting a large heap stops its process for a second.
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 60.0
#: Whoever has waited for less is not starving yet, in seconds.
PATIENCE_S = 0.5
#: After so long without, the next one begins with the first pause again, in seconds.
QUIET_S = 10.0


class Starvation:
    def __init__(self) -> None:
        self._tell_not_before = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._seen_at = 0.0

    def found(
        self, needs: Iterable[ResourceSet], total: ResourceSet, coming: Callable[[], ResourceSet], now: float
    ) -> bool:
        """Whether one of the needs starves, and that is to be told now. ``coming``: what is free, or held by leases."""
        if now < self._tell_not_before:
            return False
        possible = [need for need in needs if need.fits_in(total)]
        if not possible:
            return False
        have = coming()
        if all(need.fits_in(have) for need in possible):
            return False
        if now - self._seen_at >= QUIET_S + self._pause_s:
            self._pause_s = FIRST_PAUSE_S
        self._seen_at = now
        self._tell_not_before = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)
        return True

    def validate(self) -> None:
        assert FIRST_PAUSE_S <= self._pause_s <= LAST_PAUSE_S
