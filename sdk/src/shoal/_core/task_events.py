"""What this process tells of its tasks: everything is counted, some is named. Pure.

One task costs a few additions; to tell of each would cost more than a short task itself. So what a process tells of,
once an interval, is exact counts by function, and single attempts: each that fails, each that lives on when the process
looks (so whatever lasts longer than an interval), and of what is over sooner as many as there is room for.

The owner knows where a task waits, and how it ends; when a run began that still goes on knows the worker alone.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from shoal._core.actors import CONNECTED, ActorClient
from shoal._core.task_record import Tally, TaskRecord
from shoal._core.tasks import TaskQueue
from shoal_common.events.task_events import ALIVE, INTERVAL_S, Failure, FunctionTally, TaskEvent, TaskKind, TaskState

#: Attempts that are named in one interval although nothing is special about them: those that are over; those alive.
MAX_SHORT = 500
MAX_ALIVE = 1_000
#: Failures that are named in one interval; the others are counted.
MAX_FAILURES = 5_000
#: Events in one report; what is more waits for the next one, up to so many: beyond that the oldest are lost.
MAX_REPORTED = 10_000
MAX_WAITING = 100_000
#: Tasks of one queue that are looked at one by one, to name them: the next ones to run.
MAX_LOOKED_AT = 5_000
#: Functions that are counted apart; further ones are counted together.
MAX_FUNCTIONS = 2_000
_OTHERS = "(other functions)"
#: ``TaskRecord.told`` of what has ended.
ENDED = -1

_tally_of = attrgetter("function.tally")


class Report(NamedTuple):
    """``tallies``: those that have changed."""

    tallies: list[FunctionTally]
    events: list[TaskEvent]
    unnamed: int
    lost: int


class TaskEvents:
    """Of one process. Not thread-safe: the process's lock protects it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock``: seconds since 1970."""
        self._clock = clock
        self._tallies: dict[tuple[bytes, str, int], Tally] = {}
        #: As they were reported last.
        self._reported: dict[Tally, tuple[int, ...]] = {}
        self._events: deque[TaskEvent] = deque()
        #: So many may be named in this interval about which nothing is special. When there are none left, what has a
        #: value, and of which nothing was told, may be put into ``tally.runs`` straight away.
        self.short_left = MAX_SHORT
        self._alive_left = 0
        self._failures_left = MAX_FAILURES
        self._unnamed = 0
        self._lost = 0
        #: The next report would say something, or things are alive that it is to look at.
        self.due = False
        #: Called when that has become true.
        self.on_due: Callable[[], None] = lambda: None
        #: Node and process id of a worker that answers; empty and 0 = not known (any more). Told by the owner, since
        #: what the worker's node tells of it may come later, or never.
        self.place_of: Callable[[bytes], tuple[bytes, int]] = lambda _: (b"", 0)

    def tally(self, job_id: bytes, function: str, kind: TaskKind) -> Tally:
        """Where its runs are counted."""
        key = (job_id, function, kind)
        found = self._tallies.get(key)
        if found is None:
            if len(self._tallies) >= MAX_FUNCTIONS:
                key = (job_id, _OTHERS, kind)
                found = self._tallies.get(key)
            if found is None:
                found = self._tallies[key] = Tally(FunctionTally(*key))
        return found

    # -- an attempt -------------------------------------------------------------------------------------

    def submitted(self, record: TaskRecord, tally: Tally) -> None:
        """It begins to wait; also, once more, what had ended and is to make its objects again."""
        tally.submitted += 1
        record.submitted_at = self._clock()
        record.told = 0
        if not self.due:
            self.wake()

    def finished(self, record: TaskRecord, tally: Tally, duration_us: int, worker_id: bytes) -> None:
        """It has a value."""
        if record.told < 0:
            return
        tally.runs.append(duration_us)
        if record.told == 0:
            if self.short_left <= 0:
                return
            self.short_left -= 1
        self._unnamed -= 1
        self._ended(record, tally, TaskState.FINISHED, duration_us, worker_id, None)
        record.told = ENDED

    def failed(
        self,
        record: TaskRecord,
        tally: Tally,
        failure: Failure,
        duration_us: int = 0,
        worker_id: bytes = b"",
        *,
        cancelled: bool = False,
    ) -> None:
        """It has none, and will not have any. Ends that follow another one say nothing."""
        if record.told < 0:
            return
        totals = tally.totals
        totals.failed += 1
        if cancelled:
            totals.cancelled += 1
        if duration_us:
            _add_runs(totals, [duration_us])
        self._name_failure(record, tally, failure, duration_us, worker_id, record.push.attempt)
        record.told = ENDED

    def retried(
        self, record: TaskRecord, tally: Tally, failure: Failure, duration_us: int = 0, worker_id: bytes = b""
    ) -> None:
        """An attempt has failed, and the next one has begun to wait."""
        totals = tally.totals
        totals.retried += 1
        if duration_us:
            _add_runs(totals, [duration_us])
        self._name_failure(record, tally, failure, duration_us, worker_id, record.push.attempt - 1)
        record.told = 0
        if not self.due:
            self.wake()

    def add(self, event: TaskEvent) -> None:
        """What a worker knows of what it runs."""
        self._events.append(event)
        if len(self._events) > MAX_WAITING:
            self._events.popleft()
            self._lost += 1
        if not self.due:
            self.wake()

    # -- reports ------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """A report is due in a while."""
        self.due = True
        self.on_due()

    def look(self, waiting: Iterable[TaskRecord], queues: Iterable[TaskQueue], clients: Iterable[ActorClient]) -> None:
        """What is alive, with its state: counted all of it, and named as far as there is room, what runs first.
        ``waiting``: tasks without their arguments."""
        for tally in self._tallies.values():
            tally.totals.alive = [0] * len(ALIVE)
        self._alive_left = MAX_ALIVE
        now = self._clock()
        queues, clients = list(queues), list(clients)
        for queue in queues:
            for worker in queue.workers.values():
                records = list(worker.in_flight.values())
                self._see(records[:1], TaskState.RUNNING, now, worker.worker_id, worker.source.node_id, worker.pid)
                self._see(records[1:], TaskState.SUBMITTED_TO_WORKER, now, worker.worker_id, worker.source.node_id)
        for client in clients:
            if client.in_flight:
                records, at_once = list(client.in_flight.values()), client.concurrency
                if client.state != CONNECTED:
                    at_once = 0
                self._see(records[:at_once], TaskState.RUNNING, now, client.worker_id)
                self._see(records[at_once:], TaskState.SUBMITTED_TO_WORKER, now, client.worker_id)
        for queue in queues:
            self._see(queue.pending, TaskState.PENDING_NODE_ASSIGNMENT, now)
        for client in clients:
            if client.queue:
                unready = [record for record in client.queue if record.unready]
                self._see(unready, TaskState.PENDING_ARGS_AVAIL, now)
                ready = client.queue if not unready else [record for record in client.queue if not record.unready]
                self._see(ready, TaskState.PENDING_NODE_ASSIGNMENT, now)
        self._see(list(waiting), TaskState.PENDING_ARGS_AVAIL, now)

    def take(self) -> Report | None:
        """Everything since the last time; None = nothing. ``due`` stays as long as something is alive, or left over."""
        changed = []
        alive = False
        for tally in self._tallies.values():
            totals = tally.totals
            totals.submitted += tally.submitted
            tally.submitted = 0
            if tally.runs:
                totals.finished += len(tally.runs)
                self._unnamed += len(tally.runs)
                _add_runs(totals, tally.runs)
                tally.runs = []
            now = (totals.submitted, totals.finished, totals.failed, totals.retried, *totals.alive)
            alive = alive or totals.unended > 0
            if self._reported.get(tally) != now:
                self._reported[tally] = now
                changed.append(totals)
        events = [self._events.popleft() for _ in range(min(len(self._events), MAX_REPORTED))]
        report = Report(changed, events, self._unnamed, self._lost)
        self._unnamed = self._lost = 0
        self.short_left, self._failures_left = MAX_SHORT, MAX_FAILURES
        self.due = alive or bool(self._events) or bool(changed)
        return report if changed or events or report.unnamed or report.lost else None

    # -- parts --------------------------------------------------------------------------------------------

    def _see(
        self,
        records: Collection[TaskRecord],
        state: TaskState,
        now: float,
        worker_id: bytes = b"",
        node_id: bytes = b"",
        pid: int = 0,
    ) -> None:
        if not records:  # in an idle process, Counter's look at what it is given would cost 50 pages of memory
            return
        tallies: Counter[Tally | None] = Counter(map(_tally_of, records))
        for tally, count in tallies.items():
            if tally is not None:
                tally.totals.alive[state] += count
        before = now - INTERVAL_S
        for record in islice(records, MAX_LOOKED_AT):
            if self._alive_left <= 0:
                return
            tally = record.function.tally
            if tally is None or record.told == state + 1 or record.told < 0 or record.submitted_at > before:
                continue
            self._alive_left -= 1
            record.told = state + 1
            event = _event(record, tally, state, record.push.attempt, now)
            event.worker_id, event.node_id, event.pid = worker_id, node_id, pid
            self.add(event)

    def _ended(
        self,
        record: TaskRecord,
        tally: Tally,
        state: TaskState,
        duration_us: int,
        worker_id: bytes,
        failure: Failure | None,
        attempt: int = -1,
    ) -> None:
        now = self._clock()
        event = _event(record, tally, state, record.push.attempt if attempt < 0 else attempt, now)
        if worker_id:
            event.worker_id = worker_id
            event.node_id, event.pid = self.place_of(worker_id)
        if duration_us or state == TaskState.FINISHED:
            event.started_ms = int(now * 1_000) - duration_us // 1_000
        event.failure = failure
        self.add(event)

    def _name_failure(
        self,
        record: TaskRecord,
        tally: Tally,
        failure: Failure,
        duration_us: int,
        worker_id: bytes,
        attempt: int,
    ) -> None:
        if self._failures_left > 0 or record.told:
            self._failures_left -= 1
            self._ended(record, tally, TaskState.FAILED, duration_us, worker_id, failure, attempt)
        else:
            self._lost += 1
            if not self.due:
                self.wake()

    def validate(self) -> None:
        """Asserts what must always hold; for tests."""
        assert len(self._events) <= MAX_WAITING
        assert len(self._tallies) <= MAX_FUNCTIONS + len(TaskKind)
        for tally in self._tallies.values():
            totals = tally.totals
            assert totals.unended + tally.submitted - len(tally.runs) >= 0
            assert totals.cancelled <= totals.failed
            assert totals.min_us <= totals.max_us


def _add_runs(totals: FunctionTally, runs: list[int]) -> None:
    """In microseconds."""
    least = min(runs)
    totals.min_us = min(totals.min_us, least) if totals.run_us else least
    totals.max_us = max(totals.max_us, max(runs))
    totals.run_us += sum(runs)


def _event(record: TaskRecord, tally: Tally, state: TaskState, attempt: int, now: float) -> TaskEvent:
    push, actor, totals = record.push, record.actor, tally.totals
    name = push.name if actor is None else push.task_name
    return TaskEvent(
        push.task_id,
        attempt,
        state,
        int(now * 1_000),
        totals.kind,
        totals.function,
        name if name != totals.function else "",
        record.parent,
        actor.actor_id if isinstance(actor, ActorClient) else b"",
        submitted_ms=int(record.submitted_at * 1_000),
        resources=record.function.resources,
    )
