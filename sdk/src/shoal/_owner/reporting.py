"""What this process tells of its objects and of the tasks that it was sent: ready, or else what holds them up. Raylets
and the GCS are asked what only they know.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal import exceptions
from shoal._core.actors import CONNECTED, ActorClient
from shoal._core.deadlines import ARGUMENTS, BEHIND, PAUSING, RUNNING, UNPLACED, UNSENT
from shoal._core.object_ref import ObjectEntry
from shoal._core.task_record import TaskRecord
from shoal._core.tasks import TaskQueue
from shoal._core.waits import FAILED, READY, UNKNOWN
from shoal._net.gcs.errors import ClientClosed, NotFound
from shoal._net.gcs.records import ActorRecord, GroupRecord, NodeRecord
from shoal._owner.tasks.actor_submitter import ActorSubmitter
from shoal._owner.tasks.task_submitter import TaskSubmitter
from shoal._owner.waits import Wait
from shoal._wire.peer_frames import AskWait, RefWire, TellWait, WaitReport
from shoal._wire.value_kinds import ENDED, ERROR, PENDING, STORED
from shoal_common.channel import frames
from shoal_common.ids import task_of_creation, task_of_object
from shoal_common.placement.strategy import Strategy
from shoal_common.standing import GROUP_WAITS, ActorStanding, Room, draining, group_told
from shoal_common.states import ActorState, NodeState

if TYPE_CHECKING:
    from shoal._net.connection import Connection
    from shoal._owner.process import Process

#: Whoever is asked has answered by then, in seconds, or counts as silent.
ANSWER_S = 2.0
#: Objects of one wait, or arguments of one task, that are looked at.
MAX_OBJECTS = 16

Done = Callable[[WaitReport], None]


class Reporting:
    """Of one process. Callers hold its lock."""

    def __init__(self, process: Process, tasks: TaskSubmitter, actors: ActorSubmitter) -> None:
        self._process = process
        self._tasks = tasks
        self._actors = actors
        #: A worker's: what a task that it was sent waits for.
        self.describe_task: Callable[[bytes], WaitReport] | None = None
        self._numbers = itertools.count(1)
        #: Who waits for the answer with that number; None = there is none in time.
        self._open: dict[int, Callable[[Any], None]] = {}

    # -- questions to others ------------------------------------------------------------------------------

    def expect(self, then: Callable[[Any], None]) -> int:
        """A question's number: its answer goes to ``then``, or None when it is not there in time."""
        number = next(self._numbers)
        self._open[number] = then

        def give_up() -> None:
            with self._process.lock:
                self.on_answer(number, None)

        self._process.reactor.call_later(ANSWER_S, give_up)
        return number

    def on_answer(self, number: int, answer: Any) -> None:
        """One that comes too late is dropped."""
        then = self._open.pop(number, None)
        if then is not None and not self._process.closed:
            then(answer)

    # -- answering ----------------------------------------------------------------------------------------

    def on_ask(self, connection: Connection, message: AskWait) -> None:
        self.report(
            message.object_id, message.task_id, lambda report: connection.send(TellWait(message.request, report))
        )

    def report(self, object_id: bytes, task_id: bytes, done: Done) -> None:
        """What is known here of an object that is owned here, or of a task that was sent here."""
        if object_id:
            self._report_object(object_id, done)
        elif self.describe_task is not None:
            done(self.describe_task(task_id))
        else:
            done(WaitReport(UNKNOWN, detail="it was sent to a process that runs no tasks"))

    def _report_object(self, object_id: bytes, done: Done) -> None:
        entry = self._process.table.entries.get(object_id)
        if entry is None:
            done(WaitReport(UNKNOWN, detail="its owner does not know it (any more)"))
        elif entry.state == ENDED:
            done(WaitReport(UNKNOWN, detail="its session is over"))
        elif entry.state == ERROR:
            done(WaitReport(FAILED, detail="get() raises its error"))
        elif entry.state == STORED:
            self._report_stored(entry, done)
        elif entry.state != PENDING:
            done(WaitReport(READY))
        else:
            self._report_pending(entry, done)

    def _report_stored(self, entry: ObjectEntry, done: Done) -> None:
        where = f"{entry.size} bytes in the object store of node {entry.node_id.hex()}"
        if entry.node_id == self._process.node_id or self._process.store.is_here(entry.object_id):
            done(WaitReport(READY, detail=where))
            return

        def told_of(answer: frames.Explained | None) -> None:
            done(WaitReport(READY, detail=f"{where}; here {answer.text if answer is not None else 'no one answers'}"))

        self._process.raylet.send(frames.Explain(self.expect(told_of), object_id=entry.object_id))

    def _report_pending(self, entry: ObjectEntry, done: Done) -> None:
        task_id = task_of_object(entry.object_id)
        found = self._tasks.find(task_id)
        if found is not None:
            self._report_task(*found, done)
            return
        call = self._actors.find(task_id)
        if call is not None:
            self._report_call(*call, done)
        elif entry.lost:
            done(WaitReport(UNKNOWN, detail=f"it is made again when somebody waits for it: {entry.lost}"))
        else:
            done(WaitReport(UNKNOWN, detail="no task is under way that makes it", task_id=task_id))

    def _report_task(self, queue: TaskQueue, record: TaskRecord, done: Done) -> None:
        report = WaitReport(UNPLACED, record.push.name, task_id=record.push.task_id, certain=record.deadline is None)
        worker = queue.worker_of(record)
        if record.pausing:
            report.state = PAUSING
        elif record.unready:
            report.state, report.objects = ARGUMENTS, self._missing(record)
        elif worker is not None:
            report.state = RUNNING if next(iter(worker.in_flight.values())) is record else BEHIND
            report.at, report.pid = self._process.peers.address_of(worker.worker_id), worker.pid
        else:
            self._why_unplaced(queue, report, done)
            return
        done(report)

    def _report_call(self, client: ActorClient, record: TaskRecord, done: Done) -> None:
        certain = record.deadline is None
        report = WaitReport(UNSENT, client.name_of(record), task_id=record.push.task_id, certain=certain)
        if record.push.task_id in client.in_flight:
            report.state = RUNNING
            report.at = self._process.peers.address_of(client.worker_id)
            done(report)
            return
        if record.pausing:
            report.state = PAUSING
            done(report)
            return
        blocker = record if record.unready else client.queue[0] if client.in_order else None
        if blocker is not None and blocker.pausing:
            report.detail = f"{client.name_of(blocker)} before it has failed, and is made once more first"
            done(report)
        elif blocker is not None and blocker.unready:
            report.state, report.objects = ARGUMENTS, self._missing(blocker)
            if blocker is not record:
                report.detail = f"calls go out in their order, and those are of {client.name_of(blocker)} before it"
            done(report)
        elif client.state == CONNECTED:
            report.detail = f"{len(client.in_flight)} calls are under way, the next are sent when some have ended"
            done(report)
        else:
            self._why_unsent(client, report, done)

    def _missing(self, record: TaskRecord) -> list[RefWire]:
        entries = [ref._entry for _, _, ref in record.references or () if ref._entry.state == PENDING]
        return [self._wire(entry) for entry in entries[:MAX_OBJECTS]]

    def _wire(self, entry: ObjectEntry) -> RefWire:
        return RefWire(entry.object_id, entry.owner or self._process.address)

    def awaited(self, wait: Wait) -> list[RefWire]:
        """What is missing yet."""
        return [self._wire(entry) for entry in wait.entries if entry.state == PENDING][:MAX_OBJECTS]

    # -- raylets and the GCS are asked ----------------------------------------------------------------------

    def _why_unplaced(self, queue: TaskQueue, report: WaitReport, done: Done) -> None:
        sources = [source for source in (queue.home, *queue.elsewhere.values()) if source.outstanding]
        ahead = queue.place_of(report.task_id)
        told_of = [f"{ahead} before it in the queue"] if ahead else []
        left = len(sources)

        def finish() -> None:
            report.detail = "; ".join(told_of)
            group_id = Strategy.decode(queue.spec.strategy).group_id
            if group_id:
                self._why_group(group_id, report, done)
            else:
                done(report)

        def answered(node_id: bytes, answer: frames.Explained | None) -> None:
            nonlocal left
            left -= 1
            text = answer.text if answer is not None else f"its raylet has not answered within {ANSWER_S:g} s"
            told_of.append(f"node {node_id.hex()}: {text}")
            if not left:
                finish()

        for source in sources:
            number = self.expect(partial(answered, source.node_id))
            self._process.raylets.send(source.node_id, frames.Explain(number, class_key=queue.key))
        if not sources:
            finish()

    def _why_group(self, group_id: bytes, report: WaitReport, done: Done) -> None:
        def answered(_group: GroupRecord | None, lines: Sequence[str]) -> None:
            state = "; ".join(lines) or "not known to the GCS, or that does not answer"
            report.detail += f"; its placement group {group_id.hex()} is {state}"
            done(report)

        self.of_group(group_id, answered)

    def of_group(self, group_id: bytes, done: Callable[[GroupRecord | None, Sequence[str]], None]) -> None:
        """How a placement group stands, as ``group_told`` says it; None = the GCS does not know it, or is silent."""

        def answered(group: GroupRecord | None) -> None:
            if group is None:
                done(None, ())
            elif group.state not in GROUP_WAITS or group.waits_for_quota:
                done(group, group_standing(group, ()))
            else:
                self._ask_gcs(
                    lambda nodes: done(group, group_standing(group, nodes or ())), self._process.gcs.nodes.begin_list
                )

        self._ask_gcs(answered, lambda then: self._process.gcs.groups.begin_wait(group_id, then))

    def _why_unsent(self, client: ActorClient, report: WaitReport, done: Done) -> None:
        def answered(actor: ActorRecord | NotFound | None) -> None:
            which = f"actor {client.actor_id.hex()}"
            if isinstance(actor, NotFound):
                missing = (
                    "the GCS does not know it yet: its constructor's arguments are not ready, or its creator has died"
                )
                report.detail = f"{which}: {missing}"
            elif actor is None:
                report.detail = f"{which}: the GCS has not answered within {ANSWER_S:g} s"
            else:
                report.detail = f"{which} is {standing(actor).told()}"
                if standing(actor).seeks_a_node:
                    self._why_no_place(report, done)
                    return
                if actor.state in (ActorState.PENDING_CREATION, ActorState.RESTARTING) and actor.address.node_id:
                    self._why_not_created(client, actor.address.node_id, report, done)
                    return
            done(report)

        self._ask_gcs(answered, lambda then: self._process.gcs.actors.begin_wait(client.actor_id, 0, 0.0, then))

    def _why_no_place(self, report: WaitReport, done: Done) -> None:
        def answered(nodes: Sequence[NodeRecord] | None) -> None:
            report.detail += draining(node.state for node in nodes or ())
            done(report)

        self._ask_gcs(answered, self._process.gcs.nodes.begin_list)

    def _why_not_created(self, client: ActorClient, node_id: bytes, report: WaitReport, done: Done) -> None:
        """It has a place: perhaps its constructor runs, and waits for something."""

        def answered(answer: frames.Explained | None) -> None:
            if answer is None:
                report.detail += f"; its raylet has not answered within {ANSWER_S:g} s"
            else:
                report.detail += f"; on node {node_id.hex()} {answer.text}"
                if answer.worker is not None:
                    report.at, report.constructor = answer.worker, task_of_creation(client.actor_id)
            done(report)

        self._process.raylets.send(node_id, frames.Explain(self.expect(answered), actor_id=client.actor_id))

    def _ask_gcs(self, answered: Callable[[Any], None], begin: Callable[[Callable[[Any, Any], None]], None]) -> None:
        number = self.expect(answered)

        def then(record: Any, error: Exception | None) -> None:
            with self._process.lock:
                self.on_answer(number, error if isinstance(error, NotFound) else record)

        try:
            begin(then)
        except (ClientClosed, exceptions.LocalRayletDiedError):
            self.on_answer(number, None)


def or_silent(answered: Done, worker_id: bytes, report: WaitReport | None) -> None:
    """What a process that was asked has answered, None = nothing in time."""
    if report is None:
        report = WaitReport(UNKNOWN, detail=f"process {worker_id.hex()} has not answered within {ANSWER_S:g} s")
    answered(report)


def standing(actor: ActorRecord) -> ActorStanding:
    placed = bool(actor.address.node_id)
    return ActorStanding(actor.state, actor.pid, placed, actor.exit_detail, actor.death_reason, actor.waits_for_quota)


def group_standing(group: GroupRecord, nodes: Sequence[NodeRecord]) -> list[str]:
    """As ``group_told``."""
    rooms = [Room(node.total.grains, node.available.grains) for node in nodes if node.state is NodeState.ALIVE]
    bundles = [None if bundle.node_id else bundle.resources.grains for bundle in group.bundles]
    return group_told(group.state, group.waits_for_quota, bundles, rooms)
