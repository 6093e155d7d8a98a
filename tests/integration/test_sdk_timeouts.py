"""``timeout_s``: the caller gets its error, what is late does not begin, and whoever ran it is free again."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.cluster_utils import Cluster
from shoal.exceptions import TaskTimeoutError
from tests.support.actors import Gate, Record

pytestmark = pytest.mark.usefixtures("cluster")

#: Nobody waits so long.
FOR_EVER_S = 3600.0


@shoal.remote
def pid() -> int:
    return os.getpid()


@shoal.remote
def sleep() -> None:
    time.sleep(FOR_EVER_S)


@shoal.remote
def note(record: Any, what: str) -> None:
    shoal.get(record.note.remote(what))


@shoal.remote
class Slow:
    def pass_through(self, gate: Any) -> str:
        shoal.get(gate.pass_through.remote())
        return "passed"

    @shoal.method(timeout_s=0.2)
    def limited(self, gate: Any) -> str:
        return self.pass_through(gate)

    def quick(self) -> str:
        return "quick"


def timed_out(ref: Any) -> TaskTimeoutError:
    with pytest.raises(TaskTimeoutError) as caught:
        shoal.get(ref)
    return caught.value


def test_a_task_that_sleeps_is_unwound_and_its_worker_lives_on(tmp_path: Path) -> None:
    @shoal.remote(num_cpus=2)
    def slow(marker: Path) -> None:
        marker.write_text(str(os.getpid()))
        try:
            time.sleep(FOR_EVER_S)
        finally:
            marker.with_suffix(".unwound").touch()

    marker = tmp_path / "pid"
    error = timed_out(slow.options(timeout_s=0.5).remote(marker))
    assert (error.task_name, error.timeout_s, error.where) == ("slow", 0.5, "running")
    assert isinstance(error, TimeoutError)
    assert shoal.get(pid.options(num_cpus=2).remote()) == int(marker.read_text())
    assert marker.with_suffix(".unwound").exists()


def _catches_all(ends: bool) -> None:
    while not ends:
        try:
            time.sleep(FOR_EVER_S)
        except BaseException:
            Path(os.devnull).touch()


def _loops_in_c(ends: bool) -> None:
    sum(itertools.repeat(0, 0) if ends else itertools.repeat(0))


@pytest.mark.parametrize("stubborn", [_catches_all, _loops_in_c])
def test_a_task_that_does_not_stop_costs_its_worker(stubborn: Callable[[bool], None]) -> None:
    task = shoal.remote(num_cpus=2)(stubborn)
    first = shoal.get([pid.options(num_cpus=2).remote(), task.remote(True)])[0]
    timed_out(task.options(timeout_s=0.5).remote(False))
    assert shoal.get(pid.options(num_cpus=2).remote()) != first


def test_what_is_late_in_a_queue_never_starts() -> None:
    gate, record = Gate.remote(), Record.remote()

    @shoal.remote(num_cpus=2)
    def hold(gate: Any) -> None:
        # A thread of its own waits: a task that waits in get() would lend its CPUs.
        shoal.get(gate.pass_through.remote())

    @shoal.remote(num_cpus=0, resources={"none": 1})
    def never() -> None: ...

    held = hold.remote(gate)
    shoal.get(gate.arrived.remote(1))
    waits_for_argument = note.options(timeout_s=0.2).remote(record, held)
    assert timed_out(waits_for_argument).where == "waiting for its arguments"
    assert timed_out(never.options(timeout_s=0.2).remote()).where == "waiting for a worker"
    shoal.get(gate.open.remote())
    shoal.get(held)
    shoal.get(note.remote(record, "afterwards"))
    assert shoal.get(record.notes.remote()) == ["afterwards"]


def test_a_late_task_behind_a_busy_worker_never_starts() -> None:
    @shoal.remote(num_cpus=2)
    def busy(seconds: float, marker: str) -> None:
        if marker:
            Path(marker).touch()
        time.sleep(seconds)

    shoal.get([busy.remote(0, "") for _ in range(50)])  # so that tasks are sent ahead
    first = busy.remote(1.0, "")
    marker = Path(f"/tmp/shoal-never-{os.getpid()}")
    late = [busy.options(timeout_s=0.3).remote(0, str(marker)) for _ in range(5)]
    assert all(timed_out(ref).where in ("queued behind others", "waiting for a worker") for ref in late)
    shoal.get([first, busy.remote(0, "")])
    assert not marker.exists()


def test_a_call_that_runs_goes_on_and_the_actor_lives() -> None:
    slow, gate = Slow.remote(), Gate.remote()
    shoal.get([slow.quick.remote(), gate.arrived.remote(0)])
    error = timed_out(slow.limited.remote(gate))
    assert (error.task_name, error.where) == ("Slow.limited", "running")
    assert timed_out(slow.quick.options(timeout_s=0.2).remote()).where == "queued behind others"
    after = slow.quick.remote()
    assert shoal.wait([after], timeout=0) == ([], [after])
    shoal.get(gate.open.remote())
    assert shoal.get(after) == "quick"


def test_a_late_call_of_an_actor_never_starts() -> None:
    gate, record = Gate.remote(), Record.remote()

    @shoal.remote
    class Noting:
        def hold(self, gate: Any) -> None:
            shoal.get(gate.pass_through.remote())

        def note(self, record: Any) -> None:
            shoal.get(record.note.remote("it has begun"))

    noting = Noting.remote()
    held = noting.hold.remote(gate)
    shoal.get(gate.arrived.remote(1))
    timed_out(noting.note.options(timeout_s=0.2).remote(record))
    shoal.get(gate.open.remote())
    shoal.get([held, noting.hold.remote(gate)])
    assert shoal.get(record.notes.remote()) == []


def test_a_coroutine_is_cancelled() -> None:
    @shoal.remote
    class Async:
        def __init__(self) -> None:
            self.cancelled = asyncio.Event()

        async def sleep(self) -> None:
            try:
                await asyncio.sleep(FOR_EVER_S)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

        async def was_cancelled(self) -> bool:
            return await self.cancelled.wait()

    actor = Async.remote()
    shoal.get(actor.__ray_ready__.remote())
    assert timed_out(actor.sleep.options(timeout_s=0.3).remote()).where == "running"
    assert shoal.get(actor.was_cancelled.remote())


def test_it_is_repeated_where_retry_exceptions_says_so(tmp_path: Path) -> None:
    @shoal.remote(timeout_s=0.5, max_retries=3)
    def second_time_lucky(path: Path) -> int:
        with path.open("a") as file:
            file.write("x")
        runs = path.stat().st_size
        if runs < 2:
            time.sleep(FOR_EVER_S)
        return runs

    timed_out(second_time_lucky.remote(tmp_path / "once"))
    again = second_time_lucky.options(retry_exceptions=[TaskTimeoutError], timeout_s=1.0)
    assert shoal.get(again.remote(tmp_path / "again")) == 2
    assert (tmp_path / "once").stat().st_size == 1


def test_in_time_nothing_happens() -> None:
    assert shoal.get([pid.options(timeout_s=FOR_EVER_S).remote() for _ in range(100)])
    slow = Slow.remote()
    assert shoal.get([slow.quick.options(timeout_s=FOR_EVER_S).remote() for _ in range(100)]) == ["quick"] * 100


def test_who_depends_on_it_gets_the_error_too() -> None:
    @shoal.remote
    def dependent(value: Any) -> None: ...

    error = timed_out(dependent.remote(sleep.options(timeout_s=0.2).remote()))
    assert pickle.loads(pickle.dumps(error)).where == "running"


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_what_is_no_time(value: float) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        pid.options(timeout_s=value)


def test_on_another_node(no_cluster: None) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1, resources={"there": 1})
        shoal.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)

        @shoal.remote(resources={"there": 1})
        def stubborn(ends: bool) -> None:
            _loops_in_c(ends)

        @shoal.remote(resources={"there": 1})
        def ok() -> str:
            return "ok"

        shoal.get(stubborn.remote(True))
        assert timed_out(stubborn.options(timeout_s=0.5).remote(False)).where == "running"
        assert shoal.get(ok.remote()) == "ok"
    finally:
        shoal.shutdown()
        cluster.shutdown()
