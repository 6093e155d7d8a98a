"""The calls that a durable actor has run: each once, in one order, with its answer until its caller has that.

A call is known by its task id and attempt (another attempt is a new run: ``retry_exceptions``), and has the same in
every repeat. Callers number their calls, and tell up to which one they have all answers: what is known of those is
forgotten, and a repeat of one that comes late is dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from shoal._wire.checkpoint_blobs import Answers, Call
from shoal._wire.peer_frames import TaskPush, TaskReply
from shoal_common.service.story import Story, explained, noted

#: What is known of a caller that is gone, which may come back after a cut, is forgotten after so many seconds ...
GONE_S = 600.0
#: ... or when so many others have gone since.
GONE_KEPT = 1_000


class _Caller:
    __slots__ = ("answered", "calls", "retries")

    def __init__(self) -> None:
        self.answered = 0
        #: Some calls have run again, so that ``calls`` are not in the order of their sequence.
        self.retries = False
        #: Answers of calls by task id and attempt, with the call's sequence; in the order of running.
        self.calls: dict[tuple[bytes, int], tuple[int, TaskReply]] = {}


class Executions:
    def __init__(self) -> None:
        #: Of the last call that has run.
        self.number = 0
        self._callers: dict[bytes, _Caller] = {}
        #: When each left, the longest gone first.
        self._gone: OrderedDict[bytes, float] = OrderedDict()
        self._story = Story("the calls that this actor has run")

    def is_new(self, caller: bytes, push: TaskPush) -> bool:
        """It has not run."""
        known = self._callers.get(caller)
        if known is None:
            return True
        return push.sequence > known.answered and (push.task_id, push.attempt) not in known.calls

    @explained
    def answer(self, caller: bytes, push: TaskPush) -> TaskReply | None:
        """Of a call that has run; None = its caller has that already."""
        known = self._callers[caller]
        call = known.calls.get((push.task_id, push.attempt))
        return call[1] if call is not None and push.sequence > known.answered else None

    @explained
    def ran(self, caller: bytes, push: TaskPush, reply: TaskReply) -> Call:
        """The next one; for the log."""
        self.number += 1
        self._story.note("ran", push.task_id)
        if self._gone:
            self._gone.pop(caller, None)
        known = self._callers.get(caller)
        if known is None:
            known = self._callers[caller] = _Caller()
        if push.attempt:
            known.retries = True
        known.calls[push.task_id, push.attempt] = push.sequence, reply
        return Call(self.number, caller, push, reply, known.answered)

    @noted
    def answered(self, caller: bytes, sequence: int) -> None:
        """The caller has all answers up to this one."""
        known = self._callers.get(caller)
        if known is None or sequence <= known.answered:
            return
        known.answered = sequence
        calls = known.calls
        over = []
        for key, (number, _) in calls.items():
            if number <= sequence:
                over.append(key)
            elif not known.retries:
                break
        for key in over:
            del calls[key]

    # -- callers come and go ------------------------------------------------------------------------------

    @noted
    def left(self, caller: bytes, now: float) -> None:
        """Its connection has ended."""
        if caller in self._callers:
            self._gone[caller] = now
        while self._gone and (len(self._gone) > GONE_KEPT or now - next(iter(self._gone.values())) >= GONE_S):
            forgotten, _ = self._gone.popitem(last=False)
            self._callers.pop(forgotten, None)

    # -- checkpoints --------------------------------------------------------------------------------------

    def save(self) -> list[Answers]:
        return [
            Answers(
                caller,
                known.answered,
                [(sequence, task_id, attempt, reply) for (task_id, attempt), (sequence, reply) in known.calls.items()],
            )
            for caller, known in self._callers.items()
        ]

    @noted
    def restore(self, number: int, answers: Iterable[Answers], now: float) -> None:
        """As of a checkpoint. Callers count as gone until they come again."""
        self.number = number
        self._callers.clear()
        self._gone.clear()
        for each in answers:
            known = self._callers[each.caller] = _Caller()
            known.answered = each.answered
            known.retries = any(attempt for _, _, attempt, _ in each.calls)
            known.calls = {(task_id, attempt): (sequence, reply) for sequence, task_id, attempt, reply in each.calls}
            self._gone[each.caller] = now

    def validate(self) -> None:
        """Asserts what must always hold; for tests."""
        assert self._gone.keys() <= self._callers.keys()
        assert len(self._gone) <= GONE_KEPT
        for known in self._callers.values():
            assert all(sequence > known.answered for sequence, _ in known.calls.values())
