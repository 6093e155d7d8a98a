"""Submissions: programs that were handed in to be run as jobs; their queue, and what becomes of each.

Pure: takes the time (Unix milliseconds), keeps no clock. A submission is PENDING, then RUNNING, then ended, for good.
Of those that wait, as many are *admitted* as may run at once: the greatest priority first, then the oldest. Whoever
supervises one asks before each attempt, so how often it is tried is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from shoal_common.errors import AlreadyExists, NotFound, PreconditionFailed, ResourceExhausted
from shoal_common.states import SubmissionState

#: What a supervisor that dies is said to have been, as Ray calls it.
SUPERVISOR_DIED = "JOB_SUPERVISOR_ACTOR_DIED"
_ENTRYPOINT_FAILED = "JOB_ENTRYPOINT_COMMAND_ERROR"

ENDS = frozenset({SubmissionState.STOPPED, SubmissionState.SUCCEEDED, SubmissionState.FAILED})


@dataclass(slots=True)
class Submission:
    submission_id: str
    #: As it was handed in; read by who runs it.
    request: bytes
    submit_unix_ms: int
    priority: int = 0
    #: -1 = for ever.
    max_restarts: int = 0
    write_id: bytes = b""
    state: SubmissionState = SubmissionState.PENDING
    admitted: bool = False
    stop_requested: bool = False
    #: The one that runs or was the last, from 1; 0 = none has begun.
    attempt: int = 0
    attempt_id: bytes = b""
    #: The supervisor of that attempt.
    actor_id: bytes = b""
    node_id: bytes = b""
    #: For humans.
    message: str = ""
    error_type: str = ""
    #: Of the last attempt that ended by itself.
    exit_code: int | None = None
    #: 0 = not yet, as below.
    start_unix_ms: int = 0
    end_unix_ms: int = 0

    @property
    def ended(self) -> bool:
        return self.state in ENDS


@dataclass(slots=True)
class Changes:
    """What is to be written, and what is to be deleted from the store."""

    written: list[Submission] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)


class SubmissionTable:
    """``max_running``: so many are admitted or run at once, 0 = any number. ``max_waiting``: more are refused."""

    def __init__(self, *, max_running: int, max_waiting: int, ended_kept: int) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._ended_kept = ended_kept
        #: In the order in which they were handed in.
        self._submissions: dict[str, Submission] = {}
        #: Those that have not ended.
        self._living: dict[str, Submission] = {}

    def __len__(self) -> int:
        return len(self._submissions)

    def __getitem__(self, submission_id: str) -> Submission:
        """Raises: NotFound."""
        found = self._submissions.get(submission_id)
        if found is None:
            raise NotFound(f"there is no submission {submission_id!r}")
        return found

    def load(self, submissions: Iterable[Submission]) -> None:
        for each in sorted(submissions, key=lambda each: (each.submit_unix_ms, each.submission_id)):
            self._submissions[each.submission_id] = each
            if not each.ended:
                self._living[each.submission_id] = each

    def page(self, after: str, limit: int, *, living: bool) -> list[Submission]:
        """The newest first, from the one that comes after ``after``; "" = from the newest.

        Raises: NotFound, when ``after`` is known no more.
        """
        among = self._living if living else self._submissions
        newest = reversed(among.values())
        if after:
            mark = self[after]
            newest = iter([each for each in among.values() if _age(each) < _age(mark)][::-1])
        return [each for each, _ in zip(newest, range(limit), strict=False)]

    def count(self, *, living: bool) -> int:
        return len(self._living if living else self._submissions)

    # --- what happens to them ---

    def submit(self, new: Submission) -> Changes:
        """Raises: AlreadyExists, ResourceExhausted."""
        known = self._submissions.get(new.submission_id)
        if known is not None:
            if new.write_id and known.write_id == new.write_id:
                return Changes()
            raise AlreadyExists(
                f"Job with submission_id {new.submission_id} already exists. Please use a different submission_id."
            )
        waiting = sum(each.state is SubmissionState.PENDING for each in self._living.values())
        if waiting >= self._max_waiting:
            raise ResourceExhausted(f"{waiting} submissions wait already: submit this one when some have begun")
        last = next(reversed(self._submissions.values()), None)
        if last is not None:  # clocks go back, and the order of a page must not
            new.submit_unix_ms = max(new.submit_unix_ms, last.submit_unix_ms + 1)
        self._submissions[new.submission_id] = self._living[new.submission_id] = new
        return self._with_admitted([new])

    def begin(
        self,
        submission_id: str,
        attempt_id: bytes,
        actor_id: bytes,
        node_id: bytes,
        failure: str,
        exit_code: int | None,
        now_unix_ms: int,
    ) -> Changes:
        """A supervisor wants to start the program. ``failure``: what became of the attempt that it made before, "" =
        it made none. Afterwards the state tells whether it shall. Raises: NotFound."""
        each = self[submission_id]
        if each.ended or each.attempt_id == attempt_id:
            return Changes()
        if exit_code is not None:
            each.exit_code = exit_code
        if each.stop_requested:
            return self._end(each, SubmissionState.STOPPED, "Job was intentionally stopped.", "", now_unix_ms)
        if each.attempt and each.max_restarts >= 0 and each.attempt > each.max_restarts:
            kind = _ENTRYPOINT_FAILED if failure else SUPERVISOR_DIED
            why = failure or "The job's supervisor was lost with its process or its node."
            return self._end(each, SubmissionState.FAILED, _after(each, why), kind, now_unix_ms)
        each.state = SubmissionState.RUNNING
        each.admitted = True
        each.attempt += 1
        each.attempt_id, each.actor_id, each.node_id = attempt_id, actor_id, node_id
        each.message = "Job is currently running."
        if each.attempt > 1:
            each.message = f"{each.message} Attempt {each.attempt}: {failure or 'the one before was lost.'}"
        each.start_unix_ms = each.start_unix_ms or now_unix_ms
        return Changes([each])

    def finish(
        self,
        submission_id: str,
        attempt_id: bytes,
        state: SubmissionState,
        message: str,
        error_type: str,
        exit_code: int | None,
        now_unix_ms: int,
    ) -> Changes:
        """Of the attempt that runs; what another one tells comes too late. Raises: NotFound."""
        each = self[submission_id]
        if each.ended or each.attempt_id != attempt_id:
            return Changes()
        if exit_code is not None:
            each.exit_code = exit_code
        return self._end(each, state, message, error_type, now_unix_ms)

    def stop(self, submission_id: str, now_unix_ms: int) -> Changes:
        """What has not begun ends at once. Raises: NotFound."""
        each = self[submission_id]
        if each.ended or each.stop_requested:
            return Changes()
        each.stop_requested = True
        if each.state is SubmissionState.PENDING:
            return self._end(each, SubmissionState.STOPPED, "Job was stopped before it began.", "", now_unix_ms)
        return Changes([each])

    def actor_died(self, actor_id: bytes, reason: str, now_unix_ms: int) -> Changes:
        """For good. Nothing for an actor that supervises none."""
        each = next((each for each in self._living.values() if each.actor_id == actor_id), None)
        if each is None:
            return Changes()
        if each.stop_requested:
            return self._end(each, SubmissionState.STOPPED, "Job was intentionally stopped.", "", now_unix_ms)
        why = f"Job supervisor actor died: {reason}"
        return self._end(each, SubmissionState.FAILED, _after(each, why), SUPERVISOR_DIED, now_unix_ms)

    def delete(self, submission_id: str) -> Changes:
        """Raises: NotFound, PreconditionFailed."""
        each = self[submission_id]
        if not each.ended:
            raise PreconditionFailed(
                f"Job '{submission_id}' is in {each.state.name} state and can't be deleted: stop it first"
            )
        del self._submissions[submission_id]
        return Changes(forgotten=[submission_id])

    def _end(self, each: Submission, state: SubmissionState, message: str, kind: str, now_unix_ms: int) -> Changes:
        assert state in ENDS, state
        each.state, each.message, each.error_type, each.end_unix_ms = state, message, kind, now_unix_ms
        each.admitted = False
        del self._living[each.submission_id]
        return self._with_admitted([each])

    def _with_admitted(self, changed: list[Submission]) -> Changes:
        """Admit what there is room for, and forget the oldest ended ones beyond the bound."""
        room = self._max_running - sum(each.admitted for each in self._living.values())
        waiting = [each for each in self._living.values() if not each.admitted]
        waiting.sort(key=lambda each: -each.priority)  # stable: the oldest comes first
        for each in waiting[: room if self._max_running else None]:
            each.admitted = True
            each.message = "Job has not started yet."
            if each not in changed:
                changed.append(each)
        for each in changed:
            if not each.ended and not each.admitted:
                each.message = f"Job waits: {self._max_running} run, which is as many as may run at once."
        ended = [each.submission_id for each in self._submissions.values() if each.ended]
        forgotten = ended[: max(0, len(ended) - self._ended_kept)]
        for submission_id in forgotten:
            del self._submissions[submission_id]
        return Changes([each for each in changed if each.submission_id not in forgotten], forgotten)

    def validate(self) -> None:
        """For tests: what is always true of it."""
        living = {key: each for key, each in self._submissions.items() if not each.ended}
        assert living == self._living
        admitted = [each for each in living.values() if each.admitted]
        assert not self._max_running or len(admitted) <= self._max_running
        assert all(each.admitted for each in living.values() if each.state is SubmissionState.RUNNING)
        waiting = [each for each in living.values() if not each.admitted]
        assert not waiting or (self._max_running and len(admitted) == self._max_running), "room that nobody has"
        times = [each.submit_unix_ms for each in self._submissions.values()]
        assert times == sorted(times)
        assert all(bool(each.end_unix_ms) == each.ended for each in self._submissions.values())
        assert all(each.max_restarts + 1 >= 0 for each in self._submissions.values())
        assert all(
            each.max_restarts < 0 or each.attempt <= each.max_restarts + 1 for each in self._submissions.values()
        )


def _age(each: Submission) -> tuple[int, str]:
    return each.submit_unix_ms, each.submission_id


def _after(each: Submission, why: str) -> str:
    return why if each.attempt <= 1 else f"{why} It was attempt {each.attempt}, the last."
