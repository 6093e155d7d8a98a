"""Deadlines of what this worker was sent: what is past its own does not begin, what its owner says is stopped.

A worker goes by its own clock, from the moment when a push arrived, and only to refuse the beginning. That what runs is
to be stopped is for its owner to say (``StopTasks``).
"""

from __future__ import annotations

import time

from shoal import exceptions
from shoal._core.deadlines import BEHIND, RUNNING
from shoal._wire.peer_frames import TaskPush


class Stopped(BaseException):
    """Raised in what is past its deadline; not an Exception, so that user code does not catch it by accident."""

    def __init__(self, error: exceptions.TaskTimeoutError) -> None:
        super().__init__(error)
        #: What its owner is answered, who knows as a rule.
        self.error = error


class TimeLimits:
    """Of one worker. ``stop`` runs in the leading thread, the others where the user's code does."""

    def __init__(self) -> None:
        #: Pushes with a time limit, and when theirs is over, in the time of ``time.monotonic``.
        self._open: dict[bytes, tuple[TaskPush, float]] = {}
        self._stopped: set[bytes] = set()

    def arrived(self, pushes: list[TaskPush]) -> None:
        for push in pushes:
            if push.time_left is not None:
                self._open[push.task_id] = push, time.monotonic() + push.time_left.left_s

    def begin(self, push: TaskPush) -> None:
        """Raises: Stopped when its time is over."""
        _, at = self._open.get(push.task_id, (push, 0.0))
        if push.task_id in self._stopped or time.monotonic() >= at:
            raise Stopped(_error(push, BEHIND))

    def ended(self, push: TaskPush) -> None:
        """Or never begun."""
        self._open.pop(push.task_id, None)
        self._stopped.discard(push.task_id)

    def stop(self, task_id: bytes) -> bool:
        """It will not begin. False when it has ended already, or was handed back."""
        # In this order: who ends it meanwhile takes both away, or leaves a mark that ``arrived`` does not mind.
        self._stopped.add(task_id)
        if task_id in self._open:
            return True
        self._stopped.discard(task_id)
        return False

    def unwind(self, task_id: bytes) -> None:
        """Raises: Stopped when that task, which runs, is to stop."""
        held = self._open.get(task_id)
        if held is not None and task_id in self._stopped:
            raise Stopped(_error(held[0], RUNNING))


def _error(push: TaskPush, where: str) -> exceptions.TaskTimeoutError:
    assert push.time_left is not None
    return exceptions.TaskTimeoutError(push.name, push.task_id.hex(), push.time_left.timeout_s, where)
