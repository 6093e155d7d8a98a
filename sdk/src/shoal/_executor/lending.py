"""The CPU of what waits: while all of a worker's user code waits for objects, its node lends the CPU to others.

Ray lends it for waits of the main thread only; then a task that waits for its own threads, which wait for other tasks,
can hold the CPU that those need. Lending too early costs a moment of two tasks on one CPU.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from shoal_common.channel import frames

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker


class Lending:
    """Thread-safe."""

    def __init__(self, core: CoreWorker, flush_replies: Callable[[], None], hand_back: Callable[[], None]) -> None:
        """``hand_back``: what has not begun is not to wait behind what waits for long."""
        self._core = core
        self._flush_replies = flush_replies
        self._hand_back = hand_back
        #: There is some to lend.
        self.holds_cpu = True
        #: Threads of the user's code that wait for objects.
        self._waiting: set[int] = set()
        #: They have waited for long.
        self.waits_long = False
        self._lent = False
        #: Counts the times when at least one waits.
        self._wait_number = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def blocking(self, lend_after: float) -> Iterator[None]:
        """Around a wait of user code in any thread: replies go out, and tasks not begun go back and the CPU is lent
        when it lasts longer than ``lend_after`` seconds."""
        thread = threading.get_ident()
        with self._lock:
            if not self._waiting:
                self._wait_number += 1
            self._waiting.add(thread)
            number = self._wait_number
        self._flush_replies()
        if lend_after:
            self._core.reactor.call_later(lend_after, lambda: self._lend_in(number))
        else:
            self.lend_cpu()
        try:
            yield
        finally:
            self.go_on(thread)

    def go_on(self, thread: int) -> None:
        """It waits no more, if it did."""
        if not self._waiting:
            return
        with self._lock:
            self._waiting.discard(thread)
            if not self._waiting:
                self.waits_long = False
                if self._lent:
                    self._lent = False
                    self._core.raylet.send(frames.Unblocked())

    def _lend_in(self, number: int) -> None:
        if number == self._wait_number:
            self.lend_cpu()

    def lend_cpu(self) -> None:
        """Whoever waits, does so for what others are to do."""
        with self._lock:
            if not self._waiting or self.waits_long:
                return
            self.waits_long = True
            if self.holds_cpu:
                self._core.raylet.send(frames.Blocked())
                self._lent = True
        self._hand_back()
