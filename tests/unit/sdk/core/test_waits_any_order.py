"""Actors that call each other at random while somebody walks along their waits: only what can never end is called a
deadlock, and every circle is found once nothing moves any more."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal._core.deadlines import BEHIND, RUNNING
from shoal._core.waits import BLOCKED, READY, UNKNOWN, Question, Walk, both, cycle
from shoal._wire.peer_frames import RefWire, WaitReport
from shoal_common.channel.frames import WorkerAddress

NODE = b"n" * 16
#: No model goes on for longer, in calls.
MOST_CALLS = 30


@dataclass(eq=False)
class Call:
    number: int
    actor: int
    #: Who waits for it; None = the driver.
    caller: Call | None
    state: str = "queued"
    #: For whom it waits in ``get``, and the number of that wait.
    awaits: Call | None = None
    wait: int = 0
    #: Nobody waits for it any more.
    orphan: bool = False

    @property
    def task_id(self) -> bytes:
        return b"task %d" % self.number


class Actors:
    """Each is a process of its own, and runs so many calls at a time."""

    def __init__(self, rooms: list[int]) -> None:
        self.rooms = rooms
        self.calls: list[Call] = []
        self._waits = 0

    def at(self, actor: int, *states: str) -> list[Call]:
        return [call for call in self.calls if call.actor == actor and call.state in states]

    # -- what happens --

    def submit(self, actor: int, caller: Call | None = None) -> Call:
        self.calls.append(Call(len(self.calls), actor, caller))
        return self.calls[-1]

    def start(self, actor: int) -> bool:
        queued = self.at(actor, "queued")
        if not queued or len(self.at(actor, "running", "blocked")) >= self.rooms[actor]:
            return False
        queued[0].state = "running"
        return True

    def block(self, call: Call, actor: int) -> None:
        """It calls an actor, and waits for the answer."""
        self._waits += 1
        call.state, call.wait, call.awaits = "blocked", self._waits, self.submit(actor, call)

    def finish(self, call: Call) -> None:
        call.state = "done"
        if call.caller is not None and not call.orphan:
            call.caller.state, call.caller.awaits = "running", None

    def lose(self, call: Call) -> None:
        """It is an error, whatever it waits for: it was killed, say."""
        self.finish(call)
        if call.awaits is not None:
            call.awaits.orphan, call.awaits = True, None

    def move(self, random: Random) -> None:
        """Anything that can happen."""
        actor = random.randrange(len(self.rooms))
        waiting = [call for call in self.calls if call.state in ("queued", "blocked")]
        running = [call for call in self.calls if call.state == "running"]
        kind = random.randrange(5)
        if kind == 0 and len(self.calls) < MOST_CALLS:
            self.submit(actor)
        elif kind == 1 and running and len(self.calls) < MOST_CALLS:
            self.block(random.choice(running), actor)
        elif kind == 2 and running:
            self.finish(random.choice(running))
        elif kind == 3 and waiting and random.random() < 0.3:
            self.lose(random.choice(waiting))
        else:
            self.start(actor)

    def settle(self) -> list[Call]:
        """Everybody ends who can, without calling anybody else; those who cannot."""
        moved = True
        while moved:
            moved = sum(self.start(actor) for actor in range(len(self.rooms))) > 0
            for call in [call for call in self.calls if call.state == "running"]:
                self.finish(call)
                moved = True
        return [call for call in self.calls if call.state != "done"]

    # -- what is told --

    def process(self, call: Call | None) -> bytes:
        return b"driver" if call is None else b"actor %d" % call.actor

    def question(self, call: Call) -> Question:
        return Question(self.process(call), task_id=call.task_id)

    def answer(self, question: Question) -> WaitReport:
        number = int((question.task_id or question.object_id).split()[1])
        call = self.calls[number]
        if question.object_id:
            assert question.worker_id == self.process(call.caller)
            if call.state == "done":
                return WaitReport(READY)
            address = WorkerAddress(NODE, self.process(call), "")
            return WaitReport(RUNNING, task_id=call.task_id, at=address)
        assert question.worker_id == self.process(call)
        if call.state == "blocked":
            assert call.awaits is not None
            owner = WorkerAddress(NODE, self.process(call), "")
            awaited = RefWire(b"object %d" % call.awaits.number, owner)
            return WaitReport(BLOCKED, wait=call.wait, objects=[awaited])
        if call.state == "queued":
            begun = self.at(call.actor, "running", "blocked")
            full = len(begun) >= self.rooms[call.actor]
            return WaitReport(BEHIND, behind=[each.task_id for each in begun] if full else [])
        return WaitReport(RUNNING if call.state == "running" else UNKNOWN)

    def walk(self, root: Question, random: Random, moves: int) -> Walk:
        """Between two answers, things happen."""
        walk = Walk(root)
        questions = walk.begin()
        while questions:
            question = questions.pop(random.randrange(len(questions)))
            questions += walk.answered(question, self.answer(question))
            for _ in range(random.randint(0, moves)):
                self.move(random)
        return walk

    def in_a_circle(self, call: Call, random: Random, moves: int) -> Actors | None:
        """If two walks say so: the actors as they were between the two."""
        root = self.question(call)
        first = self.walk(root, random, moves)
        between = copy.deepcopy(self)
        second = self.walk(root, random, moves)
        return between if cycle(both(first.reports, second.reports), root) else None


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9), st.lists(st.integers(1, 2), min_size=1, max_size=4), st.integers(0, 3))
def test_what_is_called_a_deadlock_never_ends(seed: int, rooms: list[int], moves: int) -> None:
    random = Random(seed)
    actors = Actors(rooms)
    for _ in range(60):
        actors.move(random)
    blocked = [call for call in actors.calls if call.state == "blocked"]
    for call in blocked[:3]:
        if call.state == "blocked" and (between := actors.in_a_circle(call, random, moves)) is not None:
            assert call.number in [left.number for left in between.settle()]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9), st.lists(st.integers(1, 2), min_size=1, max_size=3))
def test_when_nothing_moves_any_more_a_circle_is_found(seed: int, rooms: list[int]) -> None:
    random = Random(seed)
    actors = Actors(rooms)
    for _ in range(60):
        actors.move(random)
    left = actors.settle()
    if left:
        assert any(call.state == "blocked" and actors.in_a_circle(call, random, 0) for call in left)
