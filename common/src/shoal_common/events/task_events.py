"""Task events as they travel: from the process that owns the tasks, or runs them, through its node to whoever listens.

A process counts everything and names some. ``FunctionTally`` has the counts of one function since the process began, so
that a report that is lost costs nothing once the next one has come. ``TaskEvent`` is one attempt as far as its sender
knows it: each failure, whatever lives longer than the interval of reports, and of what ends sooner as many as there is
room for.

All are msgpack arrays. Times are milliseconds since 1970, by the clock of whoever was there.
"""

from __future__ import annotations

import enum

import msgspec

#: A process reports so many seconds after something has changed.
INTERVAL_S = 1.0


class TaskState(enum.IntEnum):
    """In the order in which an attempt goes through them. The names are Ray's."""

    PENDING_ARGS_AVAIL = 0
    PENDING_NODE_ASSIGNMENT = 1
    SUBMITTED_TO_WORKER = 2
    RUNNING = 3
    FINISHED = 4
    FAILED = 5


#: Those of what has not ended.
ALIVE = (
    TaskState.PENDING_ARGS_AVAIL,
    TaskState.PENDING_NODE_ASSIGNMENT,
    TaskState.SUBMITTED_TO_WORKER,
    TaskState.RUNNING,
)


class TaskKind(enum.IntEnum):
    """The names are Ray's."""

    NORMAL_TASK = 0
    ACTOR_TASK = 1
    ACTOR_CREATION_TASK = 2


class Failure(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Why an attempt has failed."""

    #: As Ray names it, as TASK_EXECUTION_EXCEPTION.
    type: str
    #: Of the exception.
    error_class: str
    #: First lines.
    text: str


class TaskEvent(msgspec.Struct, array_like=True, gc=False):
    """Empty and 0: the sender does not know, and what others have told stands."""

    task_id: bytes
    attempt: int
    #: A ``TaskState``.
    state: int
    #: When it came to it, or was first seen in it.
    at_ms: int
    #: A ``TaskKind``.
    kind: int
    #: Function, or class and method.
    function: str
    #: What the option ``name`` says, if it says something else.
    name: str = ""
    parent: bytes = b""
    actor_id: bytes = b""
    node_id: bytes = b""
    worker_id: bytes = b""
    pid: int = 0
    submitted_ms: int = 0
    started_ms: int = 0
    failure: Failure | None = None
    #: What it asks for, in units: calls of one function may differ in that.
    resources: dict[str, float] = {}


class FunctionTally(msgspec.Struct, array_like=True, gc=False, eq=False):
    """Of one function or method in one process, since that began. Each run counts that was submitted by itself: a retry
    does not, an object that was lost and is made again does."""

    job_id: bytes
    function: str
    #: A ``TaskKind``.
    kind: int
    submitted: int = 0
    finished: int = 0
    failed: int = 0
    #: Of ``failed``.
    cancelled: int = 0
    #: Attempts after which another one followed.
    retried: int = 0
    #: Of all attempts that were answered, in microseconds: sum, least and most.
    run_us: int = 0
    min_us: int = 0
    max_us: int = 0
    #: By ``TaskState``, of those that had not ended when the process last looked.
    alive: list[int] = msgspec.field(default_factory=lambda: [0] * len(ALIVE))

    @property
    def unended(self) -> int:
        return self.submitted - self.finished - self.failed

    def add(self, other: FunctionTally) -> None:
        """The same function's in another process, or node."""
        if other.run_us:
            self.min_us = min(self.min_us, other.min_us) if self.run_us else other.min_us
            self.max_us = max(self.max_us, other.max_us)
        self.submitted += other.submitted
        self.finished += other.finished
        self.failed += other.failed
        self.cancelled += other.cancelled
        self.retried += other.retried
        self.run_us += other.run_us
        self.alive = [ours + theirs for ours, theirs in zip(self.alive, other.alive, strict=True)]


encode_events = msgspec.msgpack.Encoder().encode
decode_events = msgspec.msgpack.Decoder(list[TaskEvent]).decode
