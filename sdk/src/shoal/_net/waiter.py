"""One thread's wait for what the reactor brings: it sleeps, is woken to look again, and is done."""

from __future__ import annotations

import threading

from shoal._net import interrupts


class Waiter:
    """One thread's wait for ``remaining`` events. Not reusable."""

    __slots__ = ("_lock", "done", "remaining")

    def __init__(self, remaining: int = 1) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.done = False
        self.remaining = remaining

    def finish(self) -> None:
        self.done = True
        self.wake()

    def wake(self) -> None:
        """Let the thread look again: it is done, or promoted to leader."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # already released and not yet noticed

    def sleep(self, timeout: float | None) -> None:
        main = interrupts.in_reactor and threading.get_ident() == interrupts.main_thread
        if main:
            interrupts.in_reactor = False
            interrupts.deliver()
        try:
            self._lock.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        finally:
            if main:
                interrupts.in_reactor = True
