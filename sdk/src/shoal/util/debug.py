"""Saying something once: ``if log_once("key"): logger.warning(...)``. Per process; from any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["disable_log_once_globally", "enable_periodic_logging", "log_once", "reset_log_once"]

#: With ``enable_periodic_logging``, what has been said is forgotten when nothing new was for so many seconds.
PERIOD_S = 60.0


class OnceLog:
    """What has been said. ``clock`` tells seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._last_at = 0.0
        self.periodic = False
        self.disabled = False

    def first(self, key: str) -> bool:
        with self._lock:
            if self.disabled:
                return False
            now = self._clock()
            if key not in self._said:
                self._said.add(key)
                self._last_at = now
                return True
            if self.periodic and now - self._last_at > PERIOD_S:
                self._said.clear()
                self._last_at = now
            return False

    def forget(self, key: str | None) -> None:
        with self._lock:
            if key is None:
                self._said.clear()
            else:
                self._said.discard(key)


_once = OnceLog()


def log_once(key: str) -> bool:
    """Whether this is the first call with ``key`` in this process."""
    return _once.first(key)


def disable_log_once_globally() -> None:
    """From now on ``log_once`` is always False in this process."""
    _once.disabled = True


def enable_periodic_logging() -> None:
    """From now on ``log_once`` forgets its keys in this process, when it has met no new one for 60 seconds."""
    _once.periodic = True


def reset_log_once(key: str | None = None) -> None:
    """The next call with ``key`` is the first one again; None = with any key."""
    _once.forget(key)
