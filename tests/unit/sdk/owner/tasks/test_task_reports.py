"""When a process tells what happens to its tasks, in virtual time: what runs long is told of, however it begins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from shoal import _context
from shoal._core.task_events import TaskEvents
from shoal._owner.tasks import task_reports
from shoal._owner.tasks.task_reports import TaskReports
from shoal_common.events.task_events import INTERVAL_S, TaskEvent, TaskKind, TaskState, decode_events


class Worker:
    """A worker's process; the test moves the time, and says what it runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.told: list[TaskEvent] = []
        self.running: dict[bytes, _context.TaskContext] = {}
        #: Has arrived, and the main thread has not begun it.
        self.queue: list[bytes] = []
        #: Looking at what is alive takes so long, in seconds.
        self.look_s = 0.0
        clock = SimpleNamespace(
            time=lambda: self.now, monotonic=lambda: self.now, perf_counter_ns=lambda: int(self.now * 1e9)
        )
        monkeypatch.setattr(task_reports, "time", clock)
        process: Any = SimpleNamespace(
            lock=threading.RLock(),
            closed=False,
            before_close=[],
            reactor=SimpleNamespace(call_later=lambda s, callback: self.timers.append((self.now + s, callback))),
            raylet=SimpleNamespace(closed=False, send=self._take),
            node_id=b"node",
            worker_id=b"worker",
            pid=1,
        )
        tasks: Any = SimpleNamespace(unready=self._look, queues=list)
        actors: Any = SimpleNamespace(clients=list)
        self.events = TaskEvents(clock.time)
        self.reports = TaskReports(process, self.events, tasks, actors)
        self.reports.running = self.running
        self.reports.is_busy = lambda: bool(self.queue or self.running)

    def _look(self) -> list[Any]:
        self.now += self.look_s
        return []

    def _take(self, report: Any) -> None:
        self.told += decode_events(report.events)

    def arrives(self, task_id: bytes) -> None:
        self.queue.append(task_id)
        self.reports.runs()

    def begins(self, task_id: bytes) -> None:
        self.queue.remove(task_id)
        self.running[task_id] = _context.TaskContext(task_id, "f", "f", 0, int(self.now * 1e9))

    def ends(self, task_id: bytes) -> None:
        del self.running[task_id]

    def after(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [timer for timer in self.timers if timer[0] <= until]:
            timer = min(due, key=lambda each: each[0])
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = max(self.now, until)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    return Worker(monkeypatch)


def told_to_run(worker: Worker) -> list[bytes]:
    return [event.task_id for event in worker.told if event.state == TaskState.RUNNING and event.started_ms]


@pytest.mark.parametrize("late", [0.0, 0.001, 2.5 * INTERVAL_S])
def test_what_begins_after_it_has_arrived_is_told_of(worker: Worker, late: float) -> None:
    worker.arrives(b"1")
    worker.after(late)
    worker.begins(b"1")
    worker.after(3 * INTERVAL_S)
    assert told_to_run(worker) == [b"1"]


def test_what_arrives_soon_after_another_is_told_of(worker: Worker) -> None:
    for task_id in (b"1", b"2"):
        worker.arrives(task_id)
        worker.begins(task_id)
        worker.after(INTERVAL_S / 2)
        if task_id == b"1":
            worker.ends(task_id)
    worker.after(2 * INTERVAL_S)
    assert told_to_run(worker) == [b"2"]


def test_what_begins_while_it_may_not_look_is_told_of(worker: Worker) -> None:
    worker.look_s = 0.1
    worker.arrives(b"1")
    worker.begins(b"1")
    worker.after(INTERVAL_S)  # a look, after which it does not look for five seconds
    worker.ends(b"1")
    worker.arrives(b"2")
    worker.begins(b"2")
    worker.after(8 * INTERVAL_S)
    assert told_to_run(worker)[-1:] == [b"2"]


def test_who_runs_nothing_has_no_timer(worker: Worker) -> None:
    worker.arrives(b"1")
    worker.begins(b"1")
    worker.ends(b"1")
    worker.after(2 * INTERVAL_S)
    assert not worker.timers and not worker.events.due


def test_there_is_one_timer_however_often_it_tells_at_once(worker: Worker) -> None:
    for number in range(100):
        event = TaskEvent(b"%d" % number, 0, TaskState.FAILED, 0, TaskKind.NORMAL_TASK, "f")
        worker.events.add(event)
        worker.reports.flush()
    assert len(worker.timers) == 1 and len(worker.told) == 100
