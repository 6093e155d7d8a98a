"""The waits of this process's threads in ``get`` and ``wait`` that go on now."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import msgspec

from shoal import _context
from shoal._core.object_ref import ObjectEntry
from shoal._net.waiter import Waiter

#: A wait inside of a task is looked at for a deadlock after so many seconds, and then less and less often.
LOOK_AFTER_S = 3.0
LONGEST_PAUSE_S = 60.0
#: Looks come after 1, 2, 4, … times the first pause, until the pauses are that long.
_LONG_PAUSES = 5


class Wait(msgspec.Struct, eq=False):
    """One. A struct, because each ``get`` that waits makes one."""

    number: int
    waiter: Waiter
    entries: list[ObjectEntry]
    #: It ends by itself.
    timed: bool
    all_needed: bool
    #: In the time of ``time.monotonic``.
    since: float
    #: What the waiting thread runs.
    task: _context.TaskContext | None
    #: What it waits for was told.
    explained: bool = False
    #: So many looks for a deadlock have been begun; one of them is under way.
    looks: int = 0
    looking: bool = False
    #: With which it is to end.
    error: Exception | None = None

    @property
    def task_id(self) -> bytes:
        """Empty where a thread of the user's own waits."""
        return self.task.task_id if self.task is not None else b""

    @property
    def look_at(self) -> float:
        """When the next look is due."""
        pauses = min(self.looks, _LONG_PAUSES)
        return self.since + LOOK_AFTER_S * (1 << pauses) + LONGEST_PAUSE_S * (self.looks - pauses)


class Waits:
    """Of one process. Thread-safe: each thread adds and removes its own."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, Wait] = {}

    def begin(self, waiter: Waiter, entries: list[ObjectEntry], timed: bool, all_needed: bool) -> Wait:
        task = _context.current_task.get()
        if task is not None and task.thread != threading.get_ident():
            task = None  # inherited by a thread of the user's
        number = next(self._numbers)
        wait = self._open[number] = Wait(number, waiter, entries, timed, all_needed, time.monotonic(), task)
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
