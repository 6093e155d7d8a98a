"""Cancelled tasks and calls, as the worker that was sent them deals with them.

What has not begun does not begin. A task that runs is interrupted; of an actor's calls only coroutines can be, the
others may ask whether they are cancelled: unwound in the middle they would leave the actor's state half changed.
"""

from __future__ import annotations

from shoal._wire.peer_frames import TaskPush

#: Marks kept at most. One is left over when a task ended just before it was cancelled.
MAX_MARKS = 1_000


class Interrupted(KeyboardInterrupt):
    """Raised in a task that is cancelled, and in place of a call that is."""


class Cancels:
    """Of one worker: marks on what is to be interrupted. ``check`` runs where the user's code does, the others in the
    leading thread."""

    def __init__(self) -> None:
        self.marked: dict[bytes, None] = {}

    def arrived(self, pushes: list[TaskPush]) -> None:
        """An object is made again, under the id of a task that had ended just before it was cancelled."""
        if self.marked:
            for push in pushes:
                self.unmark(push.task_id)

    def mark(self, task_id: bytes) -> None:
        self.marked[task_id] = None
        if len(self.marked) > MAX_MARKS:
            del self.marked[next(iter(self.marked))]

    def unmark(self, task_id: bytes) -> None:
        self.marked.pop(task_id, None)

    def check(self, task_id: bytes) -> None:
        """As it begins, and whenever the main thread is told to look. Each mark interrupts once.

        Raises: Interrupted.
        """
        if task_id in self.marked:
            self.unmark(task_id)
            raise Interrupted
