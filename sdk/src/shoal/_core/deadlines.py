"""Deadlines of tasks and actor calls: the option ``timeout_s``, counted from the submission on.

A call past its deadline does not begin any more, wherever it waits, and is stopped where it runs, as far as that can be
done. Its caller gets the error at once; what the call still answers is dropped.

Only calls that have one are noted here. One timer serves all, set for the earliest.
"""

from __future__ import annotations

import heapq

from shoal._core.task_record import Queue, TaskRecord

#: Where a call was when its deadline passed.
ARGUMENTS = "waiting for its arguments"
UNSENT = "waiting for its actor"
UNPLACED = "waiting for a worker"
PAUSING = "pausing before its next try"
BEHIND = "queued behind others"
RUNNING = "running"


class Deadlines:
    """Those to come, of one process. Not thread-safe: the process's lock protects it."""

    def __init__(self) -> None:
        self._open: dict[bytes, tuple[TaskRecord, Queue]] = {}
        #: (when, task id), also of calls that have ended meanwhile.
        self._order: list[tuple[float, bytes]] = []

    def add(self, record: TaskRecord, queue: Queue) -> None:
        assert record.deadline is not None
        self._open[record.push.task_id] = (record, queue)
        heapq.heappush(self._order, (record.deadline.at, record.push.task_id))

    def forget(self, record: TaskRecord) -> None:
        """It has ended."""
        self._open.pop(record.push.task_id, None)
        if len(self._order) > 2 * len(self._open) + 64:
            self._order = [item for item in self._order if self._is_open(item)]
            heapq.heapify(self._order)

    def due(self, now: float) -> list[tuple[TaskRecord, Queue]]:
        """Those that pass now, the earliest first. They are forgotten."""
        passed = []
        while self._order and self._order[0][0] <= now:
            item = heapq.heappop(self._order)
            if self._is_open(item):
                record, queue = self._open.pop(item[1])
                assert record.deadline is not None
                record.deadline.passed = True
                passed.append((record, queue))
        return passed

    def next(self) -> float | None:
        """When something may be due."""
        while self._order and not self._is_open(self._order[0]):
            heapq.heappop(self._order)
        return self._order[0][0] if self._order else None

    def clear(self) -> None:
        self._open.clear()
        self._order.clear()

    def _is_open(self, item: tuple[float, bytes]) -> bool:
        held = self._open.get(item[1])
        return held is not None and held[0].deadline is not None and held[0].deadline.at == item[0]

    def validate(self) -> None:
        """Asserts what must always hold; for tests."""
        order = set(self._order)
        for task_id, (record, _) in self._open.items():
            assert record.deadline is not None and not record.deadline.passed
            assert (record.deadline.at, task_id) in order
        assert len(self._order) <= 2 * len(self._open) + 65
