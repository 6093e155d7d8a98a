"""Submitted jobs: their queue, their attempts, their ends."""

from __future__ import annotations

import random

import pytest
from support.walks import walks

from shoal_common.errors import AlreadyExists, NotFound, PreconditionFailed, ResourceExhausted, ServiceError
from shoal_common.states import SubmissionState
from shoal_gcs.jobs.submissions import Submission, SubmissionTable


class Table(SubmissionTable):
    """With a clock, and short calls."""

    def __init__(self, *, max_running: int = 0, max_waiting: int = 100, ended_kept: int = 100) -> None:
        super().__init__(max_running=max_running, max_waiting=max_waiting, ended_kept=ended_kept)
        self.now = 1_000

    def add(self, name: str, *, priority: int = 0, max_restarts: int = 0, write_id: bytes = b"") -> Submission:
        self.now += 1
        self.submit(
            Submission(
                name, b"{}", self.now, priority=priority, max_restarts=max_restarts, write_id=write_id or name.encode()
            )
        )
        return self[name]

    def attempt(self, name: str, attempt_id: bytes = b"", failure: str = "", exit_code: int | None = None) -> bool:
        """Whether the supervisor shall run it."""
        number = attempt_id or b"attempt %d" % random.getrandbits(64)
        self.begin(name, number, b"actor of " + name.encode(), b"node", failure, exit_code, self.now)
        return self[name].state is SubmissionState.RUNNING

    def succeed(self, name: str) -> None:
        each = self[name]
        self.finish(name, each.attempt_id, SubmissionState.SUCCEEDED, "done", "", 0, self.now)


@pytest.fixture
def table() -> Table:
    return Table()


def test_the_life_of_one(table: Table) -> None:
    each = table.add("a")
    assert (each.state, each.admitted, each.attempt) == (SubmissionState.PENDING, True, 0)
    assert table.attempt("a")
    assert (each.state, each.attempt, each.start_unix_ms) == (SubmissionState.RUNNING, 1, table.now)
    table.succeed("a")
    assert (each.state, each.exit_code, each.end_unix_ms) == (SubmissionState.SUCCEEDED, 0, table.now)
    table.validate()


def test_a_name_is_taken_but_a_repeat_is_none(table: Table) -> None:
    table.add("a", write_id=b"one")
    table.add("a", write_id=b"one")
    with pytest.raises(AlreadyExists, match="a already exists"):
        table.add("a", write_id=b"two")
    assert table.count(living=False) == 1


def test_the_greatest_priority_is_admitted_first_then_the_oldest() -> None:
    table = Table(max_running=1)
    for name, priority in (("first", 0), ("low", -1), ("older", 5), ("newer", 5)):
        table.add(name, priority=priority)
    order = []
    while living := table.page("", 10, living=True):
        [admitted] = [each for each in living if each.admitted]
        order.append(admitted.submission_id)
        assert all("Job waits: 1 run" in each.message for each in living if not each.admitted)
        table.attempt(admitted.submission_id)
        table.succeed(admitted.submission_id)
        table.validate()
    assert order == ["first", "older", "newer", "low"]


def test_what_runs_keeps_its_place_whoever_comes() -> None:
    table = Table(max_running=1)
    table.add("a")
    table.add("b", priority=100)
    assert table["a"].admitted
    assert not table["b"].admitted


def test_it_is_tried_as_often_as_was_asked_for(table: Table) -> None:
    each = table.add("a", max_restarts=2)
    assert [table.attempt("a", failure=failure) for failure in ("", "exit code 3", "exit code 4")] == [True] * 3
    assert not table.attempt("a", failure="exit code 5", exit_code=5)
    assert (each.state, each.error_type) == (SubmissionState.FAILED, "JOB_ENTRYPOINT_COMMAND_ERROR")
    assert (each.attempt, each.exit_code) == (3, 5)
    assert "exit code 5" in each.message


def test_for_ever(table: Table) -> None:
    table.add("a", max_restarts=-1)
    assert all(table.attempt("a", failure="again") for _ in range(50))


def test_a_supervisor_that_comes_back_uses_up_an_attempt(table: Table) -> None:
    each = table.add("a")
    assert table.attempt("a")
    assert not table.attempt("a")
    assert (each.state, each.error_type) == (SubmissionState.FAILED, "JOB_SUPERVISOR_ACTOR_DIED")


def test_a_question_that_is_repeated_begins_nothing(table: Table) -> None:
    each = table.add("a")
    assert table.attempt("a", b"mine")
    assert table.attempt("a", b"mine")
    assert each.attempt == 1


def test_the_end_of_an_attempt_that_was_given_up_is_not_the_end(table: Table) -> None:
    each = table.add("a", max_restarts=1)
    table.attempt("a", b"old")
    table.attempt("a", b"new")
    table.finish("a", b"old", SubmissionState.SUCCEEDED, "", "", 0, table.now)
    assert each.state is SubmissionState.RUNNING
    table.finish("a", b"new", SubmissionState.FAILED, "why", "", 7, table.now)
    table.finish("a", b"new", SubmissionState.SUCCEEDED, "", "", 0, table.now)
    assert (each.state, each.message, each.exit_code) == (SubmissionState.FAILED, "why", 7)


def test_stop(table: Table) -> None:
    waiting, running = table.add("waiting"), table.add("running", max_restarts=-1)
    table.attempt("running")
    table.stop("waiting", table.now)
    table.stop("running", table.now)
    assert waiting.state is SubmissionState.STOPPED
    assert (running.state, running.stop_requested) == (SubmissionState.RUNNING, True)
    assert not table.attempt("running"), "its supervisor came back"
    assert running.state is SubmissionState.STOPPED
    assert table.stop("running", table.now).written == []
    assert not table.attempt("waiting"), "its supervisor was made meanwhile"


def test_a_supervisor_that_died_for_good(table: Table) -> None:
    each, stopped = table.add("a"), table.add("b")
    table.attempt("a")
    table.attempt("b")
    table.stop("b", table.now)
    table.actor_died(b"actor of a", "out of memory", table.now)
    table.actor_died(b"actor of b", "killed", table.now)
    assert table.actor_died(b"somebody else", "", table.now).written == []
    assert (each.state, each.error_type) == (SubmissionState.FAILED, "JOB_SUPERVISOR_ACTOR_DIED")
    assert "out of memory" in each.message
    assert stopped.state is SubmissionState.STOPPED


def test_only_what_has_ended_is_deleted(table: Table) -> None:
    table.add("a")
    with pytest.raises(PreconditionFailed, match="PENDING"):
        table.delete("a")
    table.stop("a", table.now)
    assert table.delete("a").forgotten == ["a"]
    with pytest.raises(NotFound):
        table.delete("a")


def test_too_many_that_wait_are_refused() -> None:
    table = Table(max_waiting=2)
    table.add("a")
    table.add("b")
    with pytest.raises(ResourceExhausted, match="2 submissions wait"):
        table.add("c")
    table.attempt("a")
    table.add("c")


def test_the_oldest_ended_ones_are_forgotten() -> None:
    table = Table(ended_kept=1)
    for name in "abc":
        table.add(name)
    table.stop("b", table.now)
    assert table.stop("a", table.now).forgotten == ["a"]
    assert [each.submission_id for each in table.page("", 10, living=False)] == ["c", "b"]


def test_pages_go_from_the_newest_to_the_oldest(table: Table) -> None:
    for number in range(7):
        table.add(str(number))
    table.stop("3", table.now)
    assert [each.submission_id for each in table.page("", 3, living=False)] == ["6", "5", "4"]
    assert [each.submission_id for each in table.page("4", 3, living=False)] == ["3", "2", "1"]
    assert [each.submission_id for each in table.page("4", 3, living=True)] == ["2", "1", "0"]
    assert table.page("0", 3, living=False) == []
    assert (table.count(living=False), table.count(living=True)) == (7, 6)


def test_another_gcs_goes_on(table: Table) -> None:
    table.add("a")
    table.add("b")
    table.attempt("a", b"mine")
    after = Table(max_running=1)
    after.load(table.page("", 10, living=False))
    assert after.attempt("a", b"mine")
    assert after["a"].attempt == 1
    assert [each.submission_id for each in after.page("", 10, living=False)] == ["b", "a"]


@walks(30)
def test_any_order(seed: int) -> None:
    chance = random.Random(seed)
    table = Table(max_running=chance.choice([0, 1, 2]), max_waiting=5, ended_kept=3)
    for step in range(300):
        name = str(chance.randrange(12))
        try:
            match chance.randrange(6):
                case 0:
                    table.add(name, priority=chance.randrange(3), max_restarts=chance.choice([-1, 0, 2]))
                case 1:
                    if table[name].admitted:
                        table.attempt(name, failure=chance.choice(["", "it failed"]))
                case 2:
                    table.succeed(name)
                case 3:
                    table.stop(name, table.now)
                case 4:
                    table.actor_died(b"actor of " + name.encode(), "lost", table.now)
                case 5:
                    table.delete(name)
        except ServiceError:
            pass
        table.now += step % 3
        table.validate()
