"""One timer that is moved about: when a deciding module next has something to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class DeadlineTimer:
    """Calls ``callback`` once at the deadline that was set last; deadlines are in the loop's time, in seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None

    def set(self, deadline: float | None) -> None:
        """None = nothing to wait for. A timer that is due earlier stays: waking early is harmless."""
        if deadline is None:
            self.cancel()
        elif self._handle is None or self._handle.when() > deadline:
            self.cancel()
            self._handle = self._loop.call_at(deadline, self._fire)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self) -> None:
        self._handle = None
        self._callback()
