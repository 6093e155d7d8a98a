"""Where calls of an actor run: so many at once, each group by itself, all of them answered once."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shoal._executor.groups import LoopGroup, ThreadGroup
from shoal._wire.peer_frames import TaskPush, TaskReply

# In a worker the threads live as long as the process; here SystemExit ends them, of which pytest warns.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

CALLER = b"caller"
PATIENCE_S = 30


def push(name: str) -> TaskPush:
    return TaskPush(name.encode(), b"", name, b"")


def reply(push: TaskPush) -> TaskReply:
    return TaskReply(push.task_id, 0, 1, b"")


class Answers:
    """What has been answered, in order; an empty list of replies as None."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def __call__(self, caller: bytes, replies: list[TaskReply]) -> None:
        assert caller == CALLER
        for each in [reply.task_id for reply in replies] or [None]:
            self._queue.put(each)

    def next(self) -> bytes | None:
        return self._queue.get(timeout=PATIENCE_S)


class Told:
    """In place of ``Leaving``: the process is not to end, only the thread when the test does."""

    def __init__(self) -> None:
        self.errors: queue.SimpleQueue[SystemExit] = queue.SimpleQueue()
        self.test_ends = False

    def exit_as_told(self, error: SystemExit, where: str) -> None:
        self.errors.put(error)
        if self.test_ends:
            raise error


@pytest.fixture
def answers() -> Answers:
    return Answers()


Run = Callable[[bytes, TaskPush], TaskReply | None]
ThreadGroups = Callable[[int, Run], ThreadGroup]


@pytest.fixture
def threads(answers: Answers) -> Iterator[ThreadGroups]:
    """Makes groups, whose threads end with the test."""
    before = set(threading.enumerate())
    made: list[tuple[int, ThreadGroup]] = []

    def make(limit: int, run: Run) -> ThreadGroup:
        def run_or_end(caller: bytes, push: TaskPush) -> TaskReply | None:
            if push.name == "the end":
                raise SystemExit
            return run(caller, push)

        made.append((limit, ThreadGroup("g", limit, run_or_end, answers)))
        return made[-1][1]

    yield make
    for limit, group in made:
        group.start(CALLER, [push("the end")] * limit)
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


# --- threads -------------------------------------------------------------------------------------------------------


def test_one_thread_keeps_the_order(threads: ThreadGroups, answers: Answers) -> None:
    group = threads(1, lambda _, push: reply(push))
    group.start(CALLER, [push(str(i)) for i in range(20)])
    assert [answers.next() for _ in range(20)] == [str(i).encode() for i in range(20)]


def test_as_many_threads_as_the_limit_says(threads: ThreadGroups, answers: Answers) -> None:
    together = threading.Barrier(3)

    def run(caller: bytes, push: TaskPush) -> TaskReply:
        together.wait(PATIENCE_S)
        return reply(push)

    threads(3, run).start(CALLER, [push(name) for name in "abc"])
    assert {answers.next() for _ in range(3)} == {b"a", b"b", b"c"}


def test_no_more_threads_than_there_were_calls_at_once(threads: ThreadGroups, answers: Answers) -> None:
    before = threading.active_count()
    go_on = threading.Barrier(3)

    def run(caller: bytes, push: TaskPush) -> TaskReply:
        if push.name in "ab":
            go_on.wait(PATIENCE_S)
        return reply(push)

    group = threads(50, run)
    group.start(CALLER, [push(name) for name in "ab"])
    go_on.wait(PATIENCE_S)
    assert {answers.next(), answers.next()} == {b"a", b"b"}
    for name in "cde":
        group.start(CALLER, [push(name)])
        assert answers.next() == name.encode()
    assert threading.active_count() - before == 2


def test_threads_that_cannot_be_started_are_done_without(
    threads: ThreadGroups, answers: Answers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    group = threads(3, lambda _, push: reply(push))

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        group.start(CALLER, [push(name) for name in "abc"])
    assert [answers.next() for _ in "abc"] == [b"a", b"b", b"c"]
    assert [record.message for record in caplog.records] == [
        "No more than 1 calls of this actor run at once: can't start new thread"
    ]
    with pytest.raises(RuntimeError), monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        ThreadGroup("g", 2, lambda _, push: reply(push), answers)


def test_calls_that_have_not_begun_are_dropped(threads: ThreadGroups, answers: Answers) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def run(caller: bytes, push: TaskPush) -> TaskReply:
        begun.set()
        go_on.wait(PATIENCE_S)
        return reply(push)

    group = threads(1, run)
    group.start(CALLER, [push(name) for name in "abc"])
    begun.wait(PATIENCE_S)
    assert group.drop_waiting() == 2
    go_on.set()
    assert answers.next() == b"a"


def test_a_stopped_call_that_has_not_begun_is_left_to_whoever_stops_it(threads: ThreadGroups, answers: Answers) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def run(caller: bytes, push: TaskPush) -> TaskReply:
        begun.set()
        go_on.wait(PATIENCE_S)
        return reply(push)

    group = threads(1, run)
    group.start(CALLER, [push(name) for name in "abc"])
    begun.wait(PATIENCE_S)
    assert group.stop(b"b") == CALLER
    assert group.stop(b"b") is False
    assert group.stop(b"a") is False, "it runs in a thread"
    go_on.set()
    assert [answers.next() for _ in range(2)] == [b"a", b"c"]


def test_call_that_is_not_answered_is_told(threads: ThreadGroups, answers: Answers) -> None:
    threads(1, lambda _, push: None).start(CALLER, [push("a")])
    assert answers.next() is None


# --- event loops ---------------------------------------------------------------------------------------------------


class Calls:
    """Coroutines that end when they are told to."""

    def __init__(self) -> None:
        self.begun: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._ends: dict[bytes, asyncio.Event] = {}

    async def run(self, caller: bytes, push: TaskPush, room: asyncio.Semaphore) -> TaskReply:
        async with room:
            self._ends[push.task_id] = asyncio.Event()
            self.begun.put(push.task_id)
            await self._ends[push.task_id].wait()
        return reply(push)

    def end(self, group: LoopGroup, task_id: bytes) -> None:
        group.call(self._ends[task_id].set)


def in_background(group: LoopGroup, error: BaseException) -> asyncio.Task[None]:
    """A coroutine that raises, beside the calls."""

    async def background() -> None:
        raise error

    task: asyncio.Task[None] = group.call(lambda: group._loop.create_task(background()))
    return task


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def loop(answers: Answers, told: Told, calls: Calls) -> Iterator[LoopGroup]:
    before = set(threading.enumerate())
    group = LoopGroup("g", 2, calls.run, answers, told)  # type: ignore[arg-type]
    [thread] = set(threading.enumerate()) - before
    yield group
    told.test_ends = True
    end = in_background(group, SystemExit())
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert isinstance(end.exception(), SystemExit)
    group._loop.close()


def test_so_many_coroutines_at_once_as_the_limit_says(loop: LoopGroup, calls: Calls, answers: Answers) -> None:
    loop.start(CALLER, [push(name) for name in "abc"])
    assert [calls.begun.get(timeout=PATIENCE_S) for _ in range(2)] == [b"a", b"b"]
    assert loop.call(calls.begun.empty)
    calls.end(loop, b"b")
    assert answers.next() == b"b"
    assert calls.begun.get(timeout=PATIENCE_S) == b"c"
    for task_id in (b"a", b"c"):
        calls.end(loop, task_id)
        assert answers.next() == task_id


class Catching(Calls):
    """Cancelled ones are answered, as by ``Runner.run_coroutine``."""

    async def run(self, caller: bytes, push: TaskPush, room: asyncio.Semaphore) -> TaskReply:
        try:
            return await super().run(caller, push, room)
        except asyncio.CancelledError:
            return reply(push)


class TestStop:
    @pytest.fixture
    def calls(self) -> Calls:
        return Catching()

    def test_of_one_that_runs_one_that_waits_for_room_and_one_just_started(
        self, loop: LoopGroup, calls: Calls, answers: Answers
    ) -> None:
        loop.start(CALLER, [push(name) for name in "abc"])
        assert [calls.begun.get(timeout=PATIENCE_S) for _ in range(2)] == [b"a", b"b"]
        for task_id in (b"a", b"c"):
            assert loop.stop(task_id) is True
        assert {answers.next() for _ in range(2)} == {b"a", b"c"}
        loop.start(CALLER, [push("d")])
        loop.stop(b"d")
        assert answers.next() == b"d"
        calls.end(loop, b"b")
        assert answers.next() == b"b"


def test_function_on_the_loop_has_the_callers_context_and_its_error(loop: LoopGroup) -> None:
    variable = contextvars.ContextVar("variable", default="nothing")
    variable.set("the caller's")
    assert loop.call(variable.get) == "the caller's"

    def fail() -> Any:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        loop.call(fail)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_loop_goes_on_after_what_a_background_coroutine_raised(
    loop: LoopGroup, calls: Calls, answers: Answers, told: Told, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    task = in_background(loop, error)
    loop.start(CALLER, [push("a")])
    assert calls.begun.get(timeout=PATIENCE_S) == b"a"
    calls.end(loop, b"a")
    assert answers.next() == b"a"
    if isinstance(error, SystemExit):
        assert told.errors.get(timeout=PATIENCE_S) is error
    else:
        assert "KeyboardInterrupt" in caplog.text
    assert task.exception() is error
