"""What is told once about how ``get`` and ``wait`` are used: on an event loop, which stands still meanwhile, or in a
loop that runs tasks one after another."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal._core.serial_gets import ENOUGH, SLOW_S, SerialGets
from shoal_common.ids import task_of_object

if TYPE_CHECKING:
    from shoal._owner.process import Process
    from shoal._owner.waits import Wait

logger = logging.getLogger("shoal")


class Advice:
    """For one process. Both methods are called without its lock, by the thread that waits."""

    def __init__(self, process: Process, find_task: Callable[[bytes], object | None]) -> None:
        """``find_task``: a task of this process that has not ended. No calls of actors: they run in order anyway."""
        self._process = process
        self._find_task = find_task
        self._serial = SerialGets()
        #: Functions and methods that were told to ``await``.
        self._told: set[str] = set()

    def begins(self, wait: Wait) -> None:
        task = wait.task
        if task is not None and asyncio._get_running_loop() is not None and task.function_name not in self._told:
            self._told.add(task.function_name)
            logger.warning("%s", _await_instead(task.task_name, all_needed=wait.all_needed))
        if self._serial.nearly_enough and wait.all_needed:
            with self._process.lock:
                if self._find_task(task_of_object(wait.entries[0].object_id)) is None:
                    self._serial.ended()

    def ended(self, wait: Wait) -> None:
        seconds = time.monotonic() - wait.since
        if seconds < SLOW_S or not wait.all_needed:
            return
        task_ids = self._process.task_ids
        with self._process.lock:
            if len(wait.entries) > 1 or not task_ids.is_latest(task_of_object(wait.entries[0].object_id)):
                self._serial.ended()
                return
            place = _place()
            total = self._serial.waited(place, seconds)
        if total is not None:
            logger.warning(
                "get() at %s has waited %d times in a row for the task that was submitted just before, %.1f s in all: "
                "these tasks run one after another. If none needs the result of another, submit all of them first, and "
                "then get() the list of references: shoal.get([f.remote(x) for x in xs]).",
                place,
                ENOUGH,
                total,
            )


def _await_instead(task_name: str, *, all_needed: bool) -> str:
    called, instead = (
        ("get()", "`await ref` for one object, `await asyncio.gather(*refs)` for several")
        if all_needed
        else ("wait()", "`await asyncio.wait([ref.as_future() for ref in refs])`")
    )
    return (
        f"{task_name} waits in {called} on an event loop, which stands still meanwhile, with all other calls that run "
        f"there. Write {instead}."
    )


def _place() -> str:
    """Of the program, that has called Shoal."""
    frame: Any = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "shoal":
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
