"""The waits of this process's threads in ``get`` and ``wait`` that go on now."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

from shoal import _context
from shoal._core.object_ref import ObjectEntry
from shoal._net.reactor import Waiter

#: A wait inside of a task is looked at for a deadlock after so many seconds, and then less and less often.
LOOK_AFTER_S = 3.0
LONGEST_PAUSE_S = 60.0


class Wait:
    """One."""

    __slots__ = (
        "all_needed",
        "entries",
        "error",
        "explained",
        "look_at",
        "looking",
        "number",
        "pause_s",
        "since",
        "task_id",
        "timed",
        "waiter",
    )

    def __init__(self, number: int, waiter: Waiter, entries: list[ObjectEntry], timed: bool, all_needed: bool) -> None:
        self.number = number
        self.waiter = waiter
        self.entries = entries
        #: It ends by itself.
        self.timed = timed
        self.all_needed = all_needed
        self.since = time.monotonic()
        #: What this thread runs; a thread of the user's own runs none.
        task = _context.current_task.get()
        self.task_id = task.task_id if task is not None and task.thread == threading.get_ident() else b""
        #: What it waits for was told.
        self.explained = False
        self.look_at = self.since + LOOK_AFTER_S
        self.pause_s = LOOK_AFTER_S
        #: Such a look is under way.
        self.looking = False
        #: With which it is to end.
        self.error: Exception | None = None


class Waits:
    """Of one process. Thread-safe: each thread adds and removes its own."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, Wait] = {}

    def begin(self, waiter: Waiter, entries: list[ObjectEntry], timed: bool, all_needed: bool) -> Wait:
        wait = Wait(next(self._numbers), waiter, entries, timed, all_needed)
        self._open[wait.number] = wait
        return wait

    def end(self, wait: Wait) -> None:
        del self._open[wait.number]

    def get(self, number: int) -> Wait | None:
        return self._open.get(number)

    def all(self) -> list[Wait]:
        """The oldest first."""
        return list(self._open.values()) if self._open else _NONE

    def of_task(self, task_id: bytes) -> Wait | None:
        return next((wait for wait in self.all() if wait.task_id == task_id), None)


_NONE: list[Any] = []
