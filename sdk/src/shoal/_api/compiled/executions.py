"""The executions of one compiled graph: which of them are under way, and whose results lie here.

Results come in the order of submission, those of an execution together: a *row*. Pure.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from shoal import exceptions


class Execution:
    """``row`` is None until it has been read. Whoever has a result of it keeps it."""

    __slots__ = ("_read", "future", "index", "left", "row")

    def __init__(self, index: int, outputs: int, read: set[Execution], future: Any = None) -> None:
        """``read``: where it is from when its row has come until nobody asks for any more of it. ``future``: of whoever
        awaits the row; nothing here looks at it."""
        self._read = read
        self.index = index
        self.row: list[Any] | None = None
        #: Results that somebody may still ask for.
        self.left = set(range(outputs))
        self.future = future

    def take(self, output: int) -> Any:
        """A result that is there; the row is let go with the last one."""
        assert self.row is not None
        value = self.row[output]
        self.drop(output)
        return value

    def drop(self, output: int) -> None:
        """Nobody asks for it any more. From any thread, in the middle of anything."""
        self.left.discard(output)
        row = self.row
        if row is not None:
            row[output] = None
            if not self.left:
                self._read.discard(self)


class Executions:
    """Caller sees to it that one thread begins them, and one has their rows come."""

    def __init__(self, outputs: int, max_inflight: int, max_buffered: int) -> None:
        self._outputs = outputs
        self._max_inflight = max_inflight
        self._max_buffered = max_buffered
        self._submitted = 0
        #: Those whose rows have not come, in the order of submission.
        self.unread: deque[Execution] = deque()
        #: Those whose rows have come, while somebody has a result of them.
        self._read: set[Execution] = set()

    @property
    def next_is_dropped(self) -> bool:
        """Nobody asks for what comes next."""
        return bool(self.unread) and not self.unread[0].left

    def check_inflight(self, *, until_taken: bool) -> None:
        """Before another one begins. ``until_taken``: an execution is under way until its results have been taken, not
        only until they have been read.

        Raises: CompiledGraphCapacityExceeded.
        """
        inflight = len(self.unread)
        if until_taken:
            inflight = sum(1 for each in (*self.unread, *tuple(self._read)) if each.left)
        if inflight >= self._max_inflight:
            raise exceptions.CompiledGraphCapacityExceeded(
                f"The compiled graph can't have more than {self._max_inflight} in-flight executions, and you currently "
                f"have {inflight} in-flight executions. Retrieve an output using shoal.get before submitting more "
                "requests or increase `_max_inflight_executions`."
            )

    def check_buffered(self) -> None:
        """Before a row is read for the sake of a later one. Raises: CompiledGraphCapacityExceeded."""
        buffered = len(self._read)
        if buffered >= self._max_buffered:
            raise exceptions.CompiledGraphCapacityExceeded(
                f"The compiled graph can't have more than {self._max_buffered} buffered results, and you currently "
                f"have {buffered} buffered results. Call `shoal.get()` on CompiledDAGRef's (or await on "
                "CompiledDAGFuture's) to retrieve results, or increase `_max_buffered_results`."
            )

    def begin(self, future: Any = None) -> Execution:
        execution = Execution(self._submitted, self._outputs, self._read, future)
        self._submitted += 1
        self.unread.append(execution)
        return execution

    def on_row(self, row: list[Any]) -> Execution:
        """Of the oldest one whose row has not come."""
        execution = self.unread.popleft()
        execution.row = row
        self._read.add(execution)
        if len(execution.left) < self._outputs:  # some were dropped before there was a row
            for output in range(self._outputs):
                if output not in execution.left:
                    execution.drop(output)
        return execution
