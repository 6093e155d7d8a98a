"""Leases as their owner counts them: the raylets that they come from, and the workers."""

from __future__ import annotations

from typing import Any

from shoal._core.task_record import TaskRecord


class Source:
    """One raylet, as a queue's leases come from it."""

    __slots__ = ("announced", "demanded", "granted", "node_id")

    def __init__(self, node_id: bytes) -> None:
        self.node_id = node_id
        #: Cumulative demand as last told to the raylet (see LeaseDemand).
        self.demanded = 0
        #: Granted, or sent on to another raylet.
        self.granted = 0
        #: The raylet knows the scheduling class.
        self.announced = False

    @property
    def outstanding(self) -> int:
        return max(0, self.demanded - self.granted)

    def ask_for(self, count: int) -> None:
        """So many more."""
        self.demanded = max(self.demanded, self.granted) + count


class LeasedWorker:
    """A worker this owner may push tasks to."""

    __slots__ = (
        "ahead_bytes",
        "ahead_us",
        "blocked",
        "connection",
        "granted_at",
        "idle_since",
        "in_flight",
        "lease_id",
        "leaving",
        "pid",
        "recalling",
        "reclaim_at",
        "source",
        "worker_id",
    )

    def __init__(
        self, lease_id: bytes, source: Source, worker_id: bytes, pid: int, connection: Any, now: float
    ) -> None:
        self.lease_id = lease_id
        self.source = source
        self.worker_id = worker_id
        self.pid = pid
        self.connection = connection
        #: Pushed and not answered, oldest first.
        self.in_flight: dict[bytes, TaskRecord] = {}
        #: Estimated run time of ``in_flight``.
        self.ahead_us = 0.0
        #: Bytes of their arguments.
        self.ahead_bytes = 0
        #: Waits in ``get``: gets nothing more until it answers.
        self.blocked = False
        #: Ends after what it runs now: gets nothing more.
        self.leaving = False
        #: A recall is under way.
        self.recalling = False
        self.idle_since = now
        self.granted_at = now
        #: Others wait for it: push nothing after this time (None = nobody does).
        self.reclaim_at: float | None = None
