"""Tells this process's raylet once a second what has happened to its tasks, and to those that it runs for others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from shoal import _context
from shoal._core.task_events import TaskEvents
from shoal_common import ids
from shoal_common.channel import frames
from shoal_common.events.task_events import INTERVAL_S, Failure, TaskEvent, TaskKind, TaskState, encode_events

if TYPE_CHECKING:
    from shoal._owner.process import Process
    from shoal._owner.tasks.actor_submitter import ActorSubmitter
    from shoal._owner.tasks.task_submitter import TaskSubmitter

#: To look at what is alive takes at most this share of the time.
LOOK_SHARE = 0.02
#: The raylet has reported by then, in seconds.
FLUSH_S = 5.0


class Running(Protocol):
    """What a worker runs, by task id."""

    def values(self) -> Iterable[_context.TaskContext]: ...


class TaskReports:
    """Of one process."""

    def __init__(self, process: Process, events: TaskEvents, tasks: TaskSubmitter, actors: ActorSubmitter) -> None:
        self._process = process
        self.events = events
        self._tasks = tasks
        self._actors = actors
        #: A worker's, and whether something runs there or is about to, asked with the lock held.
        self.running: Running | None = None
        self.is_busy: Callable[[], bool] = lambda: False
        #: When it may look again, in the time of ``time.monotonic``.
        self._look_at = 0.0
        #: While something is due there is a timer, and one alone.
        self._timer_set = False
        events.on_due, events.place_of = self._set_timer, self._place_of
        process.before_close.append(self.flush)

    def runs(self) -> None:
        """Something that was sent to this worker is about to run. Caller holds the lock."""
        if not self.events.due:
            self.events.wake()

    def constructs(self, task: _context.TaskContext, actor_id: bytes, parent: bytes, submitted_at: float) -> None:
        """The constructor of this process's actor begins."""
        with self._process.lock:
            tally = self.events.tally(ids.job_of_actor(actor_id), task.task_name, TaskKind.ACTOR_CREATION_TASK)
            tally.submitted += 1
            self.events.add(self._creation(task, actor_id, TaskState.RUNNING, parent, submitted_at))

    def constructed(self, task: _context.TaskContext, actor_id: bytes, failure: Failure | None) -> None:
        with self._process.lock:
            tally = self.events.tally(ids.job_of_actor(actor_id), task.task_name, TaskKind.ACTOR_CREATION_TASK)
            event = self._creation(task, actor_id, TaskState.FAILED if failure else TaskState.FINISHED)
            event.failure = failure
            if failure is None:
                tally.totals.finished += 1
            else:
                tally.totals.failed += 1
            self.events.add(event)
        self.flush()  # a process that makes one call of its actor, or fails, may end before the next report

    def flush(self) -> None:
        """Before this process ends: what is alive then is told of by nobody else."""
        with self._process.lock:
            if not self._process.closed and self.events.due:
                self._look_at = 0.0
                self._send()

    def mark(self) -> str:
        """Tell what has happened until now, and return where: "node:incarnation:number" of its node's report, by which
        who listens knows whether it has come; empty = the raylet does not answer."""
        self.flush()
        process = self._process
        if process.closed:
            return ""
        for answer in process.questions.ask([process.node_id], frames.FlushEvents, FLUSH_S):
            return f"{process.node_id.hex()}:{answer.incarnation}:{answer.number}"
        return ""

    # -- parts --------------------------------------------------------------------------------------------

    def _place_of(self, worker_id: bytes) -> tuple[bytes, int]:
        address = self._process.peers.address_of(worker_id)
        node_id = address.node_id if address is not None else b""
        return node_id, self._tasks.pid_of(worker_id) or self._actors.pid_of(worker_id)

    def _set_timer(self) -> None:
        if not self._timer_set:
            self._timer_set = True
            self._process.reactor.call_later(INTERVAL_S, self._report)

    def _report(self) -> None:
        with self._process.lock:
            self._timer_set = False
            if self._process.closed:
                return
            self._send()
            if self.events.due:
                self._set_timer()

    def _send(self) -> None:
        began = time.monotonic()
        if began >= self._look_at:
            self.events.look(self._tasks.unready(), self._tasks.queues(), self._actors.clients())
            self._tell_running()
            now = time.monotonic()
            self._look_at = now + (now - began) / LOOK_SHARE
        report = self.events.take()
        if self.is_busy():
            # What has just begun, or was not looked at this time, is to be told of the next time.
            self.events.due = True
        if report is not None and not self._process.raylet.closed:
            events = encode_events(report.events)
            self._process.raylet.send(
                frames.TaskReport(report.tallies, events, len(report.events), report.unnamed, report.lost)
            )

    def _tell_running(self) -> None:
        """What has run for a while already: when it began only this process knows."""
        if self.running is None:
            return
        now = time.perf_counter_ns()
        for task in list(self.running.values()):
            if not task.told and now - task.started >= INTERVAL_S * 1e9:
                task.told = True
                kind = TaskKind.ACTOR_TASK if _context.process.actor_id else TaskKind.NORMAL_TASK
                self.events.add(self._event(task, kind, TaskState.RUNNING, _context.process.actor_id))

    def _creation(
        self,
        task: _context.TaskContext,
        actor_id: bytes,
        state: TaskState,
        parent: bytes = b"",
        submitted_at: float = 0.0,
    ) -> TaskEvent:
        event = self._event(task, TaskKind.ACTOR_CREATION_TASK, state, actor_id)
        if state is not TaskState.RUNNING:
            event.at_ms = int(time.time() * 1_000)
        event.parent, event.submitted_ms = parent, int(submitted_at * 1_000)
        event.resources = _context.process.resources
        return event

    def _event(self, task: _context.TaskContext, kind: TaskKind, state: TaskState, actor_id: bytes) -> TaskEvent:
        process = self._process
        started_ms = int(time.time() * 1_000 - (time.perf_counter_ns() - task.started) / 1e6)
        return TaskEvent(
            task.task_id,
            task.attempt,
            state,
            started_ms,
            kind,
            task.task_name,
            actor_id=actor_id,
            node_id=process.node_id,
            worker_id=process.worker_id,
            pid=process.pid,
            started_ms=started_ms,
        )
