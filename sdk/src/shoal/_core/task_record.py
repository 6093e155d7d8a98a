"""What an owner knows of one task or actor call."""

from __future__ import annotations

from collections.abc import Reversible
from typing import Any, NamedTuple, Protocol

import msgspec

from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._core.streams import Stream
from shoal._wire.peer_frames import TaskPush
from shoal_common.events.task_events import FunctionTally

#: Top-level reference arguments: (position, keyword, reference).
References = list[tuple[int, str, ObjectRef[Any]]]


class TimeLimit(NamedTuple):
    """What the options say."""

    timeout_s: float
    #: ``retry_exceptions`` covers the timeout.
    retried: bool


class Deadline(msgspec.Struct, gc=False):
    """Of one call."""

    limit: TimeLimit
    #: In the time of ``time.monotonic``.
    at: float
    #: It has passed: the call has failed already, or is to run again once it has stopped.
    passed: bool = False
    #: It runs once more when it has stopped, with as much time again.
    again: bool = False


class Queue(Protocol):
    """Where a call waits, is sent from and answered to: a ``TaskQueue``, or an ``ActorClient``."""

    def expire(self, record: TaskRecord, now: float) -> str:
        """It is past its deadline: take it out, or stop it where it is. Tells where it was, in the words above."""

    def name_of(self, record: TaskRecord) -> str:
        """For humans."""


class Tally(msgspec.Struct, gc=False, eq=False):
    """Where the runs of a function are counted, for ``task_events``. What happens with each run costs as little as can
    be: it is added up when a report is made."""

    totals: FunctionTally
    #: Since the last report.
    submitted: int = 0
    #: Of those that have come to a value since then, in microseconds.
    runs: list[int] = []


class FunctionRecord(msgspec.Struct, gc=False):
    """A remote function as this process exports it."""

    function_id: bytes
    name: str
    #: Exponential mean of the run time in microseconds; 0 = never timed.
    mean_us: float = 0.0
    #: Where its runs are counted; None = nothing is told of them.
    tally: Tally | None = None
    #: What a run asks for, in units.
    resources: dict[str, float] = {}


class TaskRecord(msgspec.Struct, gc=False, eq=False):
    """A submitted task or actor call until its values are there; then, where these lie in object stores, their lineage
    (see ``lineage``)."""

    push: TaskPush
    function: FunctionRecord
    entries: list[ObjectEntry]
    #: References this task needs alive: arguments, nested ones, the actor's handle.
    holds: list[ObjectRef[Any]] | None = None
    #: -1 = as often as need be.
    retries_left: int = 0
    #: Not to be sent yet: some of its arguments are still pending, or it pauses.
    unready: bool = False
    #: It has failed, and waits a while before it runs again.
    pausing: bool = False
    #: Was in flight to a worker that died, so it may be what kills workers: from now on it is pushed by itself.
    suspect: bool = False
    #: So often it has begun and had no value, since it last had one (see ``retries``).
    failures: int = 0
    #: Its share of ``LeasedWorker.ahead_us``: the function's mean may have changed since the push.
    estimate_us: float = 0.0
    #: Bytes of arguments that go along, those of references once they are resolved.
    size: int = 0
    references: References | None = None
    #: The queue it belongs to; None for actor calls.
    queue: Queue | None = None
    #: The client of the actor that it calls; None for tasks.
    actor: Queue | None = None
    #: The option ``timeout_s``.
    deadline: Deadline | None = None
    #: The task or call that submitted it; empty in a driver.
    parent: bytes = b""
    #: It must not begin, or end soon, and is not repeated; whoever has it answers all the same.
    cancelled: bool = False
    #: Of a generator whose items are streamed; ``entries`` has the object that stands for the whole.
    stream: Stream | None = None
    #: Seconds since 1970; 0 = nothing is told of it.
    submitted_at: float = 0.0
    #: What ``TaskEvents`` has told of this attempt: the state + 1; 0 = nothing, negative = it has ended.
    told: int = 0

    @property
    def late(self) -> bool:
        """Its deadline has passed: it must not begin, and what is answered is dropped."""
        return self.deadline is not None and self.deadline.passed

    @property
    def again(self) -> bool:
        """Late, and to run once more when it has stopped."""
        return self.deadline is not None and self.deadline.again

    @property
    def closing(self) -> bool:
        """A generator that is cancelled because nobody reads it any more."""
        return self.stream is not None and self.stream.closing

    def cancel(self) -> None:
        """From now on it is ``cancelled``."""
        self.cancelled = True
        self.retries_left = 0
        if self.deadline is not None:
            self.deadline.again = False

    def retry(self) -> bool:
        """It has begun and has no value: whether it is to run once more, which is counted then."""
        if self.retries_left == 0:
            return False
        if self.retries_left > 0:
            self.retries_left -= 1
        self.push.attempt += 1
        return True


def find_record(records: Reversible[TaskRecord], task_id: bytes) -> TaskRecord | None:
    """Looked for from both ends: whoever cancels many does so in their order, or the other way round."""
    for pair in zip(records, reversed(records), strict=True):
        for record in pair:
            if record.push.task_id == task_id:
                return record
    return None
