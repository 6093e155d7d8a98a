"""When a worker ends by its own doing, and what keeps it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from shoal import _context
from shoal._executor import leaving
from shoal._executor.leaving import ActorExit, Leaving
from shoal._wire.peer_frames import Recalled, TaskPush
from shoal_common.channel.frames import ExitIntent

CALLER = b"caller"


class Ended(BaseException):
    """In place of the end of the process."""


class Worker:
    """A core worker and an executor in one, as far as leaving asks them."""

    def __init__(self) -> None:
        self.lends = self.owns_living = False
        self.sent: list[Any] = []
        self.timers: deque[Callable[[], None]] = deque()
        self.commands: deque[Callable[[], None]] = deque()
        self.handed_back = 0
        self.actor: Any = None
        self.table = SimpleNamespace(lends=lambda: self.lends)
        self.actors = SimpleNamespace(owns_living=lambda: self.owns_living)
        self.peers = SimpleNamespace(send=lambda _, message: self.sent.append(message))
        self.raylet = SimpleNamespace(send=self.sent.append)
        self.task_reports = SimpleNamespace(flush=lambda: None)
        self.handles_events = False
        self.reactor = SimpleNamespace(
            wait=lambda waiter, timeout: None,
            call_later=lambda _, callback: self.timers.append(callback),
            is_handling=lambda: self.handles_events,
        )
        #: What had been sent when it was waited until that is on its way.
        self.delivered: list[Any] = []

    def command(self, what: Callable[[], None]) -> None:
        self.commands.append(what)

    def hand_back(self, leaving: bool) -> None:
        self.handed_back += 1

    def flush_replies(self) -> None:
        """Nothing waits."""

    def deliver(self, timeout: float) -> bool:
        self.delivered = list(self.sent)
        return True

    def time_passes(self) -> None:
        """The timers that were set call, and the main thread does what it is told to."""
        while self.timers:
            self.timers.popleft()()
        self.obey()

    def obey(self) -> None:
        while self.commands:
            self.commands.popleft()()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(leaving, "end_process", end)
    return Worker()


@pytest.fixture
def ending(worker: Worker) -> Leaving:
    return Leaving(worker, worker)  # type: ignore[arg-type]


def run(function: bytes = b"f", max_calls: int = 2) -> TaskPush:
    return TaskPush(b"t", function, "f", b"", max_calls=max_calls)


def test_after_so_many_runs_of_one_function(worker: Worker, ending: Leaving) -> None:
    ending.count_run(CALLER, run())
    ending.count_run(CALLER, run(b"g"))
    assert not ending.begun
    ending.count_run(CALLER, run())
    assert ending.begun
    assert worker.handed_back == 1
    assert worker.sent == [Recalled([], leaving=True)]
    with pytest.raises(Ended):
        worker.obey()
    assert worker.sent[1:] == [ExitIntent("INTENDED_USER_EXIT", "max_calls reached")]


@pytest.mark.parametrize("need", ["lends", "owns_living"])
def test_stays_while_others_need_it(worker: Worker, ending: Leaving, need: str) -> None:
    setattr(worker, need, True)
    ending.count_run(CALLER, run(max_calls=1))
    worker.obey()
    for _ in range(3):
        worker.time_passes()
    setattr(worker, need, False)
    with pytest.raises(Ended):
        worker.time_passes()


def test_task_worker_that_the_raylet_retires_stays_too(worker: Worker, ending: Leaving) -> None:
    worker.lends = True
    ending.gracefully("idle")
    worker.lends = False
    with pytest.raises(Ended):
        worker.time_passes()
    assert worker.sent == [ExitIntent("INTENDED_SYSTEM_EXIT", "idle")]


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [(None, "INTENDED_USER_EXIT", 0), (0, "INTENDED_USER_EXIT", 0), (3, "USER_ERROR", 3), ("why", "USER_ERROR", 1)],
)
def test_what_sys_exit_means(worker: Worker, ending: Leaving, code: Any, kind: str, status: int) -> None:
    with pytest.raises(Ended) as ended:
        ending.exit_as_told(SystemExit(code), "f")
    assert ended.value.args == (status,)
    assert worker.sent == [ExitIntent(kind, f"sys.exit({code!r}) in f")]


def test_exit_of_an_ordinary_actor_unwinds_its_call(ending: Leaving, worker: Worker) -> None:
    task = _context.TaskContext(b"t", "A.m", "m", 0)
    token = _context.current_task.set(task)
    try:
        with pytest.raises(ActorExit):
            ending.exit_actor()
    finally:
        _context.current_task.reset(token)
    assert task.exiting
    assert not worker.commands


def test_exit_in_another_thread_waits_for_the_call_that_runs(ending: Leaving, worker: Worker) -> None:
    raised: list[type[BaseException]] = []

    def beside() -> None:
        try:
            ending.exit_actor()
        except ActorExit as error:
            raised.append(type(error))

    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    assert raised == [ActorExit]
    with pytest.raises(Ended):
        worker.obey()


def test_sigterm_while_nothing_runs(ending: Leaving, worker: Worker) -> None:
    ending.on_sigterm(15, None)
    with pytest.raises(Ended) as ended:
        worker.obey()
    assert ended.value.args == (143,)
    assert worker.sent == [ExitIntent("SYSTEM_ERROR", "killed by SIGTERM")]


def test_sigterm_unwinds_what_runs_and_ends_who_catches_that(ending: Leaving, worker: Worker) -> None:
    token = _context.current_task.set(_context.TaskContext(b"t", "f", "f", 0))
    try:
        with pytest.raises(SystemExit) as raised:
            ending.on_sigterm(15, None)
    finally:
        _context.current_task.reset(token)
    with pytest.raises(Ended):
        ending.exit_as_told(raised.value, "f")
    assert worker.sent == [ExitIntent("SYSTEM_ERROR", "killed by SIGTERM")]


@pytest.mark.parametrize("handles_events", [False, True])
def test_what_it_has_said_is_on_its_way_when_it_ends(worker: Worker, ending: Leaving, handles_events: bool) -> None:
    worker.handles_events = handles_events  # then it would wait for itself
    with pytest.raises(Ended):
        ending.exit_as_told(SystemExit(0), "f")
    assert worker.delivered == ([] if handles_events else worker.sent)
