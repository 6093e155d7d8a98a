"""Who waits for what: a walk from one object or task to all that it waits for, and the cycles among those.

A ``Walk`` asks the owner of an object which task makes it and where that is, then the process that was sent the task
what holds it up: objects for which it waits in ``get``, or tasks before it. The asking process does all of the walking;
the others only answer for what is theirs. That is Chandy, Misra and Haas's edge chasing (*Distributed deadlock
detection*, 1983) with the chase kept in one place: as many messages, and no probes that must be forwarded, bounded and
forgotten by processes that have nothing to do with the question.

A walk is no snapshot: what it saw first may be over when it sees the last. So a cycle counts only when a second walk,
begun after the first had ended, finds the same waits in place (``both``): between the two all of them held at the same
time, and as each member waits for another one, none can end any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shoal._core.deadlines import ARGUMENTS
from shoal._wire.peer_frames import RefWire, WaitReport
from shoal_common.channel.frames import WorkerAddress

#: The words for what an object or a task waits for, besides those of ``deadlines``.
READY = "ready"
FAILED = "failed"
BLOCKED = "waiting in get"
GONE = "without its owner"
UNKNOWN = "unknown"

#: Questions of one walk at most.
MAX_QUESTIONS = 64


@dataclass(frozen=True, slots=True)
class Question:
    """About an object, of its owner; or about a task, of the process that was sent it."""

    #: Without the address's other fields: the same process may be told in several ways.
    worker_id: bytes
    object_id: bytes = b""
    task_id: bytes = b""

    @classmethod
    def of(cls, ref: RefWire) -> Question:
        return cls(ref.owner.worker_id, object_id=ref.object_id)


Reports = Mapping[Question, WaitReport]


class Walk:
    """From ``root`` on."""

    def __init__(self, root: Question) -> None:
        self.root = root
        self.reports: dict[Question, WaitReport] = {}
        #: Where the asked processes are, as far as others have told.
        self.addresses: dict[bytes, WorkerAddress] = {}
        self._open: set[Question] = set()
        self._asked = 0

    def begin(self) -> list[Question]:
        """The first questions to ask."""
        return self._ask([self.root])

    @property
    def done(self) -> bool:
        return not self._open

    @property
    def open(self) -> set[Question]:
        """Asked and not answered."""
        return set(self._open)

    def answered(self, question: Question, report: WaitReport) -> list[Question]:
        """What to ask next. An answer that nobody waits for changes nothing."""
        if question not in self._open:
            return []
        self._open.discard(question)
        self.reports[question] = report
        if report.at is not None:
            self.addresses[report.at.worker_id] = report.at
        for ref in report.objects:
            self.addresses[ref.owner.worker_id] = ref.owner
        return self._ask(following(question, report))

    def _ask(self, questions: Iterable[Question]) -> list[Question]:
        new = []
        for question in questions:
            if question not in self.reports and question not in self._open and self._asked < MAX_QUESTIONS:
                self._asked += 1
                self._open.add(question)
                new.append(question)
        return new


def following(question: Question, report: WaitReport) -> list[Question]:
    """What holds it up, if that is known."""
    next_ones = [Question.of(ref) for ref in report.objects]
    next_ones += [Question(question.worker_id, task_id=task_id) for task_id in report.behind]
    if question.object_id and report.at is not None:
        next_ones.append(Question(report.at.worker_id, task_id=report.constructor or report.task_id))
    return next_ones


def both(first: Reports, second: Reports) -> dict[Question, WaitReport]:
    """What the second walk found as the first had."""
    return {
        question: report
        for question, report in second.items()
        if (before := first.get(question)) is not None and _identity(before) == _identity(report)
    }


def _identity(report: WaitReport) -> tuple[object, ...]:
    return (
        report.state,
        report.task_id,
        report.wait,
        report.at.worker_id if report.at is not None else None,
        frozenset(ref.object_id for ref in report.objects),
        frozenset(report.behind),
        report.certain,
    )


def stuck(reports: Reports) -> set[Question]:
    """Those that can never go on: the largest set in which each waits for others of the set, whatever happens outside.

    One blocked object is enough to hold up who needs it; who waits for *one of* several tasks to end is held up when
    all of them are.
    """
    found = {question for question, report in reports.items() if report.certain}
    while True:
        free = {question for question in found if not _held_up(question, reports[question], found)}
        if not free:
            return found
        found -= free


def _held_up(question: Question, report: WaitReport, stuck: set[Question]) -> bool:
    if report.behind:
        return all(Question(question.worker_id, task_id=task_id) in stuck for task_id in report.behind)
    return any(each in stuck for each in following(question, report))


def cycle(reports: Reports, start: Question) -> list[Question]:
    """The shortest way from ``start`` back to it among those that are stuck; empty = it is in no cycle."""
    within = stuck(reports)
    if start not in within:
        return []
    came_from: dict[Question, Question] = {}
    front = [start]
    while front:
        later: list[Question] = []
        for question in front:
            for each in following(question, reports[question]):
                if each == start:
                    way = [question]
                    while way[-1] != start:
                        way.append(came_from[way[-1]])
                    return way[::-1]
                if each in within and each not in came_from:
                    came_from[each] = question
                    later.append(each)
        front = later
    return []


def victim(reports: Reports, members: list[Question]) -> Question:
    """Whose wait ends with the error: the youngest one, which has closed the cycle. (Ages told by others are a little
    off; that two take themselves for the youngest costs a second error, and nobody hangs.)"""
    waits = [question for question in members if reports[question].wait]
    return min(waits, key=lambda each: (round(reports[each].for_s, 1), each.worker_id, reports[each].wait))


def told(reports: Reports, members: list[Question]) -> tuple[str, ...]:
    """How each task of a cycle waits for the next one."""
    named: list[tuple[str, str]] = []
    for question in members:
        report = reports[question]
        if question.task_id:
            verb = "waits in get for" if report.wait else "is queued behind"
            named.append((f"{report.name} (pid {report.pid})", verb))
        elif report.state == ARGUMENTS:
            named.append((report.name, "needs as an argument"))
        elif report.constructor:
            named.append((report.name, "waits for its actor, which begins with"))
    following_ones = [*named[1:], named[0]]
    return tuple(f"{name} {verb} {after}" for (name, verb), (after, _) in zip(named, following_ones, strict=True))
