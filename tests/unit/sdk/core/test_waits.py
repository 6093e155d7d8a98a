"""Walks along what waits for what, the cycles that they find, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from shoal._core.deadlines import ARGUMENTS, BEHIND, RUNNING, UNPLACED, UNSENT
from shoal._core.explanation import explanation
from shoal._core.waits import (
    BLOCKED,
    MAX_QUESTIONS,
    READY,
    UNKNOWN,
    Question,
    Walk,
    both,
    cycle,
    stuck,
    told,
    victim,
)
from shoal._wire.peer_frames import RefWire, WaitReport
from shoal_common.channel.frames import WorkerAddress

NODE = b"n" * 16


def at(process: str) -> WorkerAddress:
    return WorkerAddress(NODE, process.encode(), "")


class World:
    """Processes, the tasks that they were sent and the objects that they own; whatever is asked is answered at once."""

    def __init__(self) -> None:
        self.reports: dict[Question, WaitReport] = {}
        self.waits = 0

    def task(self, process: str, name: str, state: str = RUNNING, *, behind: Iterable[str] = ()) -> Question:
        question = Question(process.encode(), task_id=name.encode())
        ids = [each.encode() for each in behind]
        self.reports[question] = WaitReport(state, name, pid=1, behind=ids, for_s=1.0)
        return question

    def blocked(
        self, process: str, name: str, *makers: tuple[str, str], for_s: float = 5.0, certain: bool = True
    ) -> Question:
        """A task that waits in ``get`` for what it has had others do: (process, task) of each."""
        self.waits += 1
        refs = [self.result(process, *maker) for maker in makers]
        question = Question(process.encode(), task_id=name.encode())
        self.reports[question] = WaitReport(
            BLOCKED, name, pid=1, for_s=for_s, wait=self.waits, objects=refs, certain=certain
        )
        return question

    def result(self, owner: str, process: str, task: str) -> RefWire:
        """An object of ``owner`` that a task at ``process`` makes."""
        ref = RefWire(f"object of {task}".encode(), at(owner))
        self.reports[Question.of(ref)] = WaitReport(RUNNING, task, task_id=task.encode(), at=at(process))
        return ref

    def walk(self, root: Question) -> Walk:
        walk = Walk(root)
        questions = walk.begin()
        while questions:
            question = questions.pop()
            assert question.worker_id == root.worker_id or question.worker_id in walk.addresses, "nobody can be asked"
            questions += walk.answered(question, self.reports.get(question, WaitReport(UNKNOWN)))
        assert walk.done
        return walk

    def cycle_of(self, root: Question) -> tuple[str, ...]:
        reports = self.walk(root).reports
        members = cycle(reports, root)
        return told(reports, members) if members else ()


@pytest.fixture
def world() -> World:
    return World()


def two_actors(world: World) -> tuple[Question, Question]:
    """A.ask waits for B.reply, that for A.answer, which is queued behind A.ask."""
    ask = world.blocked("a", "A.ask", ("b", "B.reply"), for_s=5.0)
    reply = world.blocked("b", "B.reply", ("a", "A.answer"), for_s=4.0)
    world.task("a", "A.answer", BEHIND, behind=["A.ask"])
    return ask, reply


def test_two_actors_that_wait_for_each_other(world: World) -> None:
    ask, reply = two_actors(world)
    assert world.cycle_of(ask) == (
        "A.ask (pid 1) waits in get for B.reply (pid 1)",
        "B.reply (pid 1) waits in get for A.answer (pid 1)",
        "A.answer (pid 1) is queued behind A.ask (pid 1)",
    )
    assert len(world.cycle_of(reply)) == 3


def test_two_constructors_that_wait_for_each_other(world: World) -> None:
    """A.__init__ waits for a call of B, whose constructor waits for a call of A."""
    first = world.blocked("a", "A.__init__", ("b", "B.answer"))
    world.blocked("b", "B.__init__", ("a", "A.answer"))
    for process, name in (("a", "B"), ("b", "A")):
        report = world.reports[Question(process.encode(), object_id=f"object of {name}.answer".encode())]
        report.state, report.constructor = UNSENT, f"{name}.__init__".encode()
    assert world.cycle_of(first) == (
        "A.__init__ (pid 1) waits in get for B.answer",
        "B.answer waits for its actor, which begins with B.__init__ (pid 1)",
        "B.__init__ (pid 1) waits in get for A.answer",
        "A.answer waits for its actor, which begins with A.__init__ (pid 1)",
    )


def test_all_members_name_the_same_victim(world: World) -> None:
    ask, reply = two_actors(world)
    for root in (ask, reply):
        reports = world.walk(root).reports
        assert victim(reports, cycle(reports, root)) == reply, "it has waited for the shortest time"


def test_an_actor_that_waits_for_itself(world: World) -> None:
    me = world.blocked("a", "A.me", ("a", "A.other"))
    world.task("a", "A.other", BEHIND, behind=["A.me"])
    assert len(world.cycle_of(me)) == 2


def test_three_actors_with_a_task_and_its_argument_in_the_middle(world: World) -> None:
    first = world.blocked("a", "A.x", ("w", "f"))
    world.blocked("w", "f", ("b", "B.x"))
    world.blocked("b", "B.x", ("c", "C.x"))
    needed = world.result("c", "a", "A.y")
    world.task("a", "A.y", BEHIND, behind=["A.x"])
    # C.x waits for g, which is not begun as it needs A.y.
    blocked = Question(b"c", task_id=b"C.x")
    made = RefWire(b"object of g", at("c"))
    world.reports[Question.of(made)] = WaitReport(ARGUMENTS, "g", objects=[needed])
    world.reports[blocked] = WaitReport(BLOCKED, "C.x", pid=1, for_s=1.0, wait=9, objects=[made])
    assert [line.split()[0] for line in world.cycle_of(first)] == ["A.x", "f", "B.x", "C.x", "g", "A.y"]


def test_somebody_who_runs_may_still_end_it(world: World) -> None:
    ask = world.blocked("a", "A.ask", ("b", "B.reply"))
    world.task("b", "B.reply", RUNNING)
    assert world.cycle_of(ask) == ()


def test_spare_concurrency_is_no_deadlock(world: World) -> None:
    ask = world.blocked("a", "A.ask", ("b", "B.reply"))
    world.blocked("b", "B.reply", ("a", "A.answer"))
    world.task("a", "A.answer", BEHIND)  # it is about to begin
    assert world.cycle_of(ask) == ()


def test_of_two_threads_both_must_be_stuck(world: World) -> None:
    ask = world.blocked("a", "A.ask", ("b", "B.reply"))
    world.blocked("b", "B.reply", ("a", "A.answer"))
    world.task("a", "A.answer", BEHIND, behind=["A.ask", "A.busy"])
    busy = world.task("a", "A.busy", RUNNING)
    assert world.cycle_of(ask) == ()
    world.reports[busy] = WaitReport(BLOCKED, "A.busy", pid=1, wait=7, objects=[world.result("a", "b", "B.reply")])
    assert len(world.cycle_of(ask)) == 3


def test_a_wait_that_ends_by_itself_is_no_deadlock(world: World) -> None:
    ask = world.blocked("a", "A.ask", ("b", "B.reply"), certain=False)
    reply = world.blocked("b", "B.reply", ("a", "A.answer"))
    world.task("a", "A.answer", BEHIND, behind=["A.ask"])
    assert world.cycle_of(ask) == ()
    assert world.cycle_of(reply) == ()


def test_one_missing_object_of_several_is_enough(world: World) -> None:
    world.task("w", "f", RUNNING)
    me = world.blocked("a", "A.me", ("w", "f"), ("a", "A.other"))
    world.task("a", "A.other", BEHIND, behind=["A.me"])
    assert len(world.cycle_of(me)) == 2


def test_who_waits_for_a_cycle_is_not_part_of_it(world: World) -> None:
    two_actors(world)
    outside = world.blocked("o", "O.look", ("b", "B.reply"))
    reports = world.walk(outside).reports
    assert outside in stuck(reports)
    assert cycle(reports, outside) == []


def test_who_does_not_answer_is_not_suspected(world: World) -> None:
    ask, reply = two_actors(world)
    del world.reports[reply]
    assert world.cycle_of(ask) == ()


def test_waits_that_were_not_there_at_the_same_time_are_no_cycle(world: World) -> None:
    """B.reply's wait, which the first walk saw, has ended; by the second it waits anew."""
    ask, _ = two_actors(world)
    first = world.walk(ask).reports
    assert cycle(both(first, first), ask)
    world.blocked("b", "B.reply", ("a", "A.answer"))
    second = world.walk(ask).reports
    assert cycle(second, ask)
    assert cycle(both(first, second), ask) == []


def test_a_walk_has_a_bound(world: World) -> None:
    root = world.blocked("a", "A.all", *(("w", f"f{number}") for number in range(10 * MAX_QUESTIONS)))
    assert len(world.walk(root).reports) == MAX_QUESTIONS


def test_an_answer_to_no_question_changes_nothing() -> None:
    walk = Walk(Question(b"a", task_id=b"t"))
    walk.begin()
    assert walk.answered(Question(b"b", task_id=b"other"), WaitReport(READY)) == []
    assert walk.reports == {}


# -- in words --------------------------------------------------------------------------------------------------


def test_an_explanation_goes_down_to_what_is_missing(world: World) -> None:
    argument = RefWire(b"\x01" * 24, at("o"))
    world.reports[Question.of(argument)] = WaitReport(UNPLACED, "g", "it waits for 1 GPU", b"g")
    root = Question(b"o", object_id=b"\x02" * 24)
    world.reports[root] = WaitReport(ARGUMENTS, "f", task_id=b"f", objects=[argument])
    told_of = explanation(world.walk(root).reports, root)
    assert (told_of.state, told_of.name, told_of.for_s) == ("waiting for its arguments", "f", None)
    assert [each.detail for each in told_of.waits_for] == ["it waits for 1 GPU"]
    assert str(told_of).splitlines() == [
        f"ObjectRef({'02' * 24}) of f is waiting for its arguments",
        f"  ObjectRef({'01' * 24}) of g is waiting for a worker: it waits for 1 GPU",
    ]


def test_who_has_the_task_says_more_than_its_owner(world: World) -> None:
    root = Question(b"o", object_id=b"\x02" * 24)
    world.reports[root] = WaitReport(RUNNING, "f", task_id=b"f", at=at("w"))
    world.blocked("w", "f", ("v", "g"), for_s=2.5)
    world.task("v", "g", RUNNING)
    told_of = explanation(world.walk(root).reports, root)
    assert (told_of.state, told_of.for_s, told_of.node_id, told_of.pid) == ("waiting in get", 2.5, NODE.hex(), 1)
    assert [(each.name, each.state) for each in told_of.waits_for] == [("g", "running")]


def test_an_explanation_of_a_cycle_ends(world: World) -> None:
    two_actors(world)
    root = Question(b"o", object_id=b"\x02" * 24)
    world.reports[root] = WaitReport(RUNNING, "A.ask", task_id=b"A.ask", at=at("a"))
    text = str(explanation(world.walk(root).reports, root))
    assert "a cycle: see above" in text
    assert len(text.splitlines()) == 4
