"""What is waited for, and why: asked of the processes that know, told to them, and acted on where nothing can end it.

``explain`` and the report of a long ``get`` walk from an object along all that it waits for; a task that has waited for
some seconds walks from itself, to see whether it comes back there (``_core.waits`` says what is asked of whom, and
``reporting`` answers).
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal import exceptions
from shoal._core.explanation import Explanation, explanation
from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._core.waits import GONE, UNKNOWN, Question, Walk, both, cycle, told, victim
from shoal._net.gcs.records import GroupRecord
from shoal._net.waiter import Waiter
from shoal._owner.reporting import Reporting, or_silent
from shoal._owner.tasks.actor_submitter import ActorSubmitter
from shoal._owner.tasks.task_submitter import TaskSubmitter
from shoal._owner.waits import Wait, Waits
from shoal._wire.peer_frames import AskWait, LookForDeadlock, WaitReport
from shoal._wire.value_kinds import ERROR, PENDING, STORED
from shoal_common.channel import frames
from shoal_common.channel.frames import WorkerAddress
from shoal_common.ids import task_of_object

if TYPE_CHECKING:
    from shoal._owner.process import Process

logger = logging.getLogger("shoal")

AFTER_VARIABLE = "SHOAL_EXPLAIN_AFTER_S"
#: A ``get`` that has waited for so many seconds says for what, once.
AFTER_S = 30.0
#: ``explain`` says what it knows by then, in seconds.
EXPLAIN_S = 5.0
#: Waits of one process that are told about at a time.
MAX_TOLD = 8


class Explaining:
    """Of one process. Callers hold its lock unless a method says otherwise."""

    def __init__(
        self, process: Process, waits: Waits, tasks: TaskSubmitter, actors: ActorSubmitter, reporting: Reporting
    ) -> None:
        self._process = process
        self._waits = waits
        self._tasks = tasks
        self._actors = actors
        self._reporting = reporting
        self._after_s = _after_s()

    # -- for the user -----------------------------------------------------------------------------------

    def explain(self, ref: ObjectRef[Any]) -> Explanation:
        """As ``shoal.explain``. Without the lock."""
        return self._explain(partial(self._walk_object, ref._entry))

    def explain_group(self, group_id: bytes) -> Explanation:
        """The same of a placement group. Without the lock."""
        waiter = Waiter()
        name, found = group_id.hex(), []

        def answered(group: GroupRecord | None, lines: Sequence[str]) -> None:
            state, detail = UNKNOWN, "the GCS does not know it, or does not answer"
            if group is not None:
                state, detail = group.state.name.lower(), "; ".join(lines).partition(": ")[2]
            found.append(Explanation("", "", state, detail, placement_group_id=name))
            self._process.reactor.finish(waiter)

        with self._process.lock:
            self._reporting.of_group(group_id, answered)
        self._process.reactor.wait(waiter, EXPLAIN_S)
        silent = Explanation("", "", UNKNOWN, f"no answer within {EXPLAIN_S:g} s", placement_group_id=name)
        return found[0] if found else silent

    def describe_ref(self, ref: ObjectRef[Any]) -> list[tuple[str, str]]:
        """What is known here, without asking anybody: for notebooks. Without the lock."""
        with self._process.lock:
            entry = ref._entry
            if entry.state == PENDING:
                return self._describe_pending(entry)
            if entry.state == STORED:
                return [("state", "ready"), ("size", f"{entry.size} bytes"), ("node", entry.node_id.hex())]
            if entry.state != ERROR:
                return [("state", "ready")]
            payload = entry.payload
        return _describe_error(pickle.loads(payload))  # runs users' code: not under the lock

    def _describe_pending(self, entry: ObjectEntry) -> list[tuple[str, str]]:
        rows = [("state", "pending")]
        if entry.owner is not None:
            return [*rows, ("owner", f"worker {entry.owner.worker_id.hex()} on node {entry.owner.node_id.hex()}")]
        task_id = task_of_object(entry.object_id)
        if (task := self._tasks.find(task_id)) is not None:
            queue, record = task
            worker = queue.worker_of(record)
            rows.append(("function", record.push.name))
            if worker is not None:
                rows.append(("node", worker.source.node_id.hex()))
        elif (call := self._actors.find(task_id)) is not None:
            client, record = call
            rows += [("function", client.name_of(record)), ("actor", client.actor_id.hex())]
        return rows

    def _explain(self, begin: Callable[[Callable[[Walk], None]], Walk]) -> Explanation:
        waiter = Waiter()
        self._process.flush()
        with self._process.lock:
            walk = begin(lambda _: self._process.reactor.finish(waiter))
        if not walk.done:
            self._process.reactor.wait(waiter, EXPLAIN_S)
        with self._process.lock:
            return _explanation(walk)

    # -- for whoever asks this node's raylet ----------------------------------------------------------------

    def on_waits_wanted(self, node_id: bytes, message: frames.WaitsGet) -> None:
        def answer(text: str = "", known: bool = True) -> None:
            self._process.raylets.send(node_id, frames.WaitsTold(message.request, known, text))

        if message.object_id:
            entry = self._process.table.entries.get(message.object_id)
            if entry is None or entry.owner is not None:
                answer(known=False)
            else:
                self._in_time(entry, lambda walk: answer(str(_explanation(walk))))
            return
        waits = [(wait, entry) for wait in self._waits.all()[:MAX_TOLD] if (entry := _missing(wait)) is not None]
        texts: list[str] = []

        def told(wait: Wait, walk: Walk) -> None:
            waited = f"A get() or wait() has waited for {time.monotonic() - wait.since:.1f} s{_one_of(wait)}:"
            texts.append(f"{waited}\n{_explanation(walk)}")
            if len(texts) == len(waits):
                answer("\n".join(texts))

        for wait, entry in waits:
            self._in_time(entry, partial(told, wait))
        if not waits:
            answer()

    def _in_time(self, entry: ObjectEntry, then: Callable[[Walk], None]) -> None:
        """``then`` gets a walk from there, once: when it is done, or as far as it has come after ``EXPLAIN_S``."""
        left = [then]

        def finish(walk: Walk) -> None:
            if left and not self._process.closed:
                left.pop()(walk)

        walk = self._walk_object(entry, finish)

        def give_up() -> None:
            with self._process.lock:
                finish(walk)

        if left:
            self._process.reactor.call_later(EXPLAIN_S, give_up)

    def _walk_object(self, entry: ObjectEntry, done: Callable[[Walk], None]) -> Walk:
        owner = entry.owner
        if owner is None or entry.state != PENDING:
            return self._walk(Question(self._process.worker_id, object_id=entry.object_id), None, done)
        return self._walk(Question(owner.worker_id, object_id=entry.object_id), owner, done)

    # -- time passes --------------------------------------------------------------------------------------

    def on_tick(self, now: float) -> None:
        """Takes the lock itself when there is something to do."""
        for wait in self._waits.all():
            late = self._after_s and not wait.explained and wait.all_needed and now - wait.since >= self._after_s
            look = wait.task is not None and not wait.timed and now >= wait.look_at
            if not late and not look:
                continue
            with self._process.lock:
                if self._process.closed:
                    return
                if late:
                    wait.explained = True
                    self._tell_of(wait, now)
                if look:
                    wait.looks += 1
                    self._look(wait)

    def _tell_of(self, wait: Wait, now: float) -> None:
        entry = _missing(wait)
        if entry is None:
            return
        waited = f"get() has waited for {now - wait.since:.0f} s"

        def tell(walk: Walk) -> None:
            if self._waits.get(wait.number) is wait:
                logger.warning("%s%s:\n%s", waited, _one_of(wait), explanation(walk.reports, walk.root))

        self._walk_object(entry, tell)

    # -- deadlocks ----------------------------------------------------------------------------------------

    def _look(self, wait: Wait, chosen: bool = False) -> None:
        """Whether this wait is in a cycle, found twice. ``chosen``: another member has found this one to be the one
        that ends."""
        if wait.looking or wait.error is not None:
            return
        wait.looking = True
        root = Question(self._process.worker_id, task_id=wait.task_id)

        def once(first: Walk) -> None:
            if cycle(first.reports, root):
                self._walk(root, None, partial(twice, first))
            else:
                wait.looking = False

        def twice(first: Walk, second: Walk) -> None:
            wait.looking = False
            reports = both(first.reports, second.reports)
            members = cycle(reports, root)
            if not members or self._waits.get(wait.number) is not wait or reports[root].wait != wait.number:
                return
            who = victim(reports, members)
            if chosen or who == root:
                wait.error = exceptions.DeadlockError(told(reports, members))
                self._process.reactor.finish(wait.waiter)
                return
            address = second.addresses.get(who.worker_id)
            message = LookForDeadlock(reports[who].wait)
            if address is None or who.worker_id == self._process.worker_id:
                self.on_look(message)
            elif (connection := self._process.peers.connect(address)) is not None:
                connection.send(message)

        self._walk(root, None, once)

    def on_look(self, message: LookForDeadlock) -> None:
        wait = self._waits.get(message.wait)
        if wait is not None and wait.task is not None and not wait.timed:
            self._look(wait, chosen=True)

    # -- asking -------------------------------------------------------------------------------------------

    def _walk(self, root: Question, at: WorkerAddress | None, done: Callable[[Walk], None]) -> Walk:
        walk = Walk(root)
        if at is not None:
            walk.addresses[at.worker_id] = at
        self._ask(walk, walk.begin(), done)
        return walk

    def _ask(self, walk: Walk, questions: list[Question], done: Callable[[Walk], None]) -> None:
        for question in questions:
            answered = partial(self._answered, walk, question, done)
            if question.worker_id == self._process.worker_id:
                self._reporting.report(question.object_id, question.task_id, answered)
                continue
            address = walk.addresses.get(question.worker_id)
            connection = self._process.peers.connect(address) if address is not None else None
            if connection is None:
                ended = "the process that created it has ended" if question.object_id else "its process has ended"
                answered(WaitReport(GONE if question.object_id else UNKNOWN, detail=ended))
                continue
            number = self._reporting.expect(partial(or_silent, answered, question.worker_id))
            connection.send(AskWait(number, question.object_id, question.task_id))

    def _answered(self, walk: Walk, question: Question, done: Callable[[Walk], None], report: WaitReport) -> None:
        following = walk.answered(question, report)
        if walk.done:
            done(walk)
        else:
            self._ask(walk, following, done)


def _missing(wait: Wait) -> ObjectEntry | None:
    """One of the objects for which it waits yet."""
    return next((entry for entry in wait.entries if entry.state in (PENDING, STORED)), None)


def _one_of(wait: Wait) -> str:
    return f" for {len(wait.entries)} objects, of which one is told" if len(wait.entries) > 1 else ""


def _explanation(walk: Walk) -> Explanation:
    """As far as it has come."""
    for question in walk.open:
        walk.answered(question, WaitReport(UNKNOWN, detail=f"no answer within {EXPLAIN_S:g} s"))
    return explanation(walk.reports, walk.root)


def _describe_error(error: BaseException) -> list[tuple[str, str]]:
    rows = [("state", "failed")]
    if isinstance(error, exceptions.TaskError):
        rows.append(("function", error.function_name))
        if error.pid:
            rows.append(("process", f"{error.pid} on {error.ip}"))
        if error.actor_id:
            rows.append(("actor", error.actor_id))
        error = error.cause
    lines = "".join(traceback.format_exception_only(error)).splitlines()
    # Of a SyntaxError the place comes first.
    return [*rows, ("error", next(line for line in lines if not line.startswith(" ")))]


def _after_s() -> float:
    given = os.environ.get(AFTER_VARIABLE, "")
    try:
        after_s = float(given) if given else AFTER_S
    except ValueError:
        after_s = -1.0
    if not 0 <= after_s < math.inf:
        logger.warning(
            "%s=%r is not a number of seconds from 0 (never) on: %g is taken", AFTER_VARIABLE, given, AFTER_S
        )
        return AFTER_S
    return after_s
