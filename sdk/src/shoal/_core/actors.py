"""Calls to one actor from one process: kept in order, sent when the actor is there, settled when it dies.

The GCS owns the actor's life; this follows it. Calls go out in the order of submission (a call waits for the
arguments of the earlier ones), unless the actor runs its calls out of order anyway. Each incarnation of the actor is
a new connection; what was in flight on the old one has an unknown fate.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from shoal._core.tasks import TaskRecord

#: Calls sent and unanswered at most; further ones wait here.
WINDOW = 2_000
#: Calls are sent at once when the last sending is so long ago, else collected for the next one. Seconds.
GATHER_S = 0.0005

RESOLVING = "RESOLVING"  # where it is, or whether it is up again, is being asked
CONNECTED = "CONNECTED"
RESTARTING = "RESTARTING"
DEAD = "DEAD"


class Port(Protocol):
    def push_calls(self, client: ActorClient, records: list[TaskRecord]) -> None: ...

    def fail_call(self, client: ActorClient, record: TaskRecord) -> None:
        """``client.state`` tells whether it is for good."""


class ActorClient:
    """Not thread-safe: the core's lock protects it."""

    def __init__(self, actor_id: bytes, port: Port, *, in_order: bool, window: int) -> None:
        self.actor_id = actor_id
        self._port = port
        self.in_order = in_order
        self.window = max(WINDOW, 2 * window)
        self.state = RESOLVING
        #: Version of the GCS's record that this follows; 0 = none seen.
        self.version = 0
        self.worker_id = b""
        self.connection: Any = None
        #: Submitted and not sent, in order.
        self.queue: deque[TaskRecord] = deque()
        #: Sent and not answered, in order.
        self.in_flight: dict[bytes, TaskRecord] = {}
        self.sequence = 0
        self.last_sent = 0.0
        #: Creator only: the constructor's arguments, kept for restarts; whether the GCS knows the actor; whether the
        #: last handle is gone; whether it was killed before the GCS knew it.
        self.killed = False
        self.creation: TaskRecord | None = None
        self.registered = False
        self.released = False
        #: Why it died or cannot be reached, from the GCS; the port makes the error of it.
        self.cause: Any = None

    @property
    def pending_calls(self) -> int:
        return len(self.queue) + len(self.in_flight)

    def submit(self, record: TaskRecord, now: float) -> bool:
        """Take a call. True when it waits to be sent with others (the caller sees to a ``flush``)."""
        if self.state == DEAD:
            self._port.fail_call(self, record)
            return False
        if self.state == RESTARTING and record.retries_left == 0:
            self._port.fail_call(self, record)
            return False
        self.queue.append(record)
        if self.state != CONNECTED:
            return False
        if not self.in_flight or now - self.last_sent >= GATHER_S:
            self.flush(now)
            return False
        return True

    def flush(self, now: float) -> None:
        """Send what can be sent."""
        if self.state != CONNECTED or not self.queue:
            return
        room = self.window - len(self.in_flight)
        if room <= 0:
            return
        batch: list[TaskRecord] = []
        if self.in_order:
            while self.queue and len(batch) < room and not self.queue[0].unready:
                batch.append(self.queue.popleft())
        else:
            waiting: deque[TaskRecord] = deque()
            while self.queue and len(batch) < room:
                record = self.queue.popleft()
                (waiting if record.unready else batch).append(record)
            self.queue.extendleft(reversed(waiting))
        if batch:
            for record in batch:
                self.sequence += 1
                record.push.sequence = self.sequence
                self.in_flight[record.push.task_id] = record
            self.last_sent = now
            self._port.push_calls(self, batch)

    def on_reply(self, task_id: bytes) -> TaskRecord | None:
        return self.in_flight.pop(task_id, None)

    def resubmit(self, record: TaskRecord, now: float) -> None:
        """A call to be made again, behind what waits."""
        self.queue.append(record)
        self.flush(now)

    def on_alive(self, version: int, worker_id: bytes, connection: Any, now: float) -> None:
        self.version = version
        self.worker_id = worker_id
        self.connection = connection
        self.state = CONNECTED
        self.sequence = 0
        self.flush(now)

    def on_disconnected(self) -> None:
        """The connection ended; the GCS will tell what became of the actor."""
        self.connection = None
        self.state = RESOLVING

    def on_unconnected(self) -> None:
        """The connection never came about: what was sent over it has not arrived, and waits again."""
        self.queue.extendleft(reversed(self.in_flight.values()))
        self.in_flight.clear()
        # So that the GCS tells where the actor is even if that has not changed.
        self.version -= 1
        self.on_disconnected()

    def on_restarting(self, version: int, cause: Any) -> None:
        """Its last incarnation is gone, another will come. Calls in flight that may not be repeated fail now; those
        never sent wait for it."""
        self.version = version
        self.cause = cause
        self.state = RESTARTING
        self._settle_in_flight()

    def on_lost_connection_only(self) -> None:
        """The actor lives on, or has restarted already: what was in flight has an unknown fate."""
        self._settle_in_flight()

    def _settle_in_flight(self) -> None:
        again: list[TaskRecord] = []
        for record in list(self.in_flight.values()):
            if record.retries_left == 0:
                self._port.fail_call(self, record)
            else:
                if record.retries_left > 0:
                    record.retries_left -= 1
                record.push.attempt += 1
                again.append(record)
        self.in_flight.clear()
        self.queue.extendleft(reversed(again))

    def forget_all(self) -> None:
        """Let go of every record."""
        self.queue.clear()
        self.in_flight.clear()
        self.creation = None

    def on_dead(self, version: int, cause: Any) -> None:
        self.version = version
        self.cause = cause
        self.state = DEAD
        self.creation = None
        records = [*self.in_flight.values(), *self.queue]
        self.in_flight.clear()
        self.queue.clear()
        for record in records:
            self._port.fail_call(self, record)
