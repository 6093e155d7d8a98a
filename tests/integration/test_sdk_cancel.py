"""``cancel``, wherever the task or call is just then: its ref fails, what has not begun never begins, and whoever ran
it is free for others."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from shoal.cluster_utils import Cluster
from shoal.exceptions import TaskCancelledError, TaskError
from tests.support.actors import Gate, Record

pytestmark = pytest.mark.usefixtures("cluster")

#: Nobody waits so long.
FOR_EVER_S = 3600.0


@shoal.remote(num_cpus=2)
def pid() -> int:
    return os.getpid()


def cancelled(ref: Any) -> TaskCancelledError:
    with pytest.raises(TaskCancelledError) as caught:
        shoal.get(ref)
    return caught.value


def _sleep(ends: bool) -> None:
    time.sleep(0 if ends else FOR_EVER_S)


def _wait_for_a_lock(ends: bool) -> None:
    lock = threading.Lock()
    lock.acquire()
    if not ends:
        lock.acquire()


def _wait_for_an_event(ends: bool) -> None:
    threading.Event().wait(0 if ends else None)


def _compute(ends: bool) -> None:
    while not ends:
        pass


def _get(ends: bool) -> None:
    @shoal.remote(num_cpus=0, resources={"none": 1})
    def never() -> None: ...

    if not ends:
        shoal.get(never.remote())


@pytest.mark.parametrize("code", [_sleep, _wait_for_a_lock, _wait_for_an_event, _compute, _get])
def test_a_task_that_runs_is_interrupted_and_its_worker_lives_on(code: Callable[[bool], None]) -> None:
    record = Record.remote()

    @shoal.remote(num_cpus=2, max_retries=3, retry_exceptions=True)
    def task(record: Any) -> None:
        try:
            shoal.get(record.note.remote(os.getpid()))
            code(False)
        except KeyboardInterrupt:
            shoal.get(record.note.remote("interrupted"))
            raise

    ref = task.remote(record)
    (runs_in,) = shoal.get(record.notes.remote(at_least=1))
    shoal.cancel(ref)
    assert cancelled(ref).task_id == ref.task_id().hex()
    assert shoal.get(pid.remote()) == runs_in
    assert shoal.get(record.notes.remote()) == [runs_in, "interrupted"]


def test_while_it_fetches_an_argument() -> None:
    gate, record = Gate.remote(), Record.remote()

    @shoal.remote(num_cpus=2)
    def task(numbers: Any, record: Any) -> None:
        shoal.get(record.note.remote("it has begun"))

    class Slow:
        """Takes for ever to be unpickled, which is part of loading the arguments."""

        def __init__(self, record: Any) -> None:
            self.record = record

        def __reduce__(self) -> Any:
            return _unpickled_slowly, (self.record,)

    ref = task.remote(Slow(gate), record)
    shoal.get(gate.arrived.remote(1))
    shoal.cancel(ref)
    cancelled(ref)
    assert shoal.get(pid.remote())
    assert shoal.get(record.notes.remote()) == []


def _unpickled_slowly(gate: Any) -> None:
    shoal.get(gate.pass_through.remote())


def test_what_catches_the_interrupt() -> None:
    record = Record.remote()

    @shoal.remote(max_retries=3, retry_exceptions=True)
    def task(record: Any, raises: bool) -> str:
        try:
            shoal.get(record.note.remote("runs"))
            time.sleep(FOR_EVER_S)
        except KeyboardInterrupt:
            if raises:
                raise ValueError("something else") from None
        return "a value"

    returning = task.remote(record, False)
    raising = task.remote(record, True)
    shoal.get(record.notes.remote(at_least=2))
    shoal.cancel(returning)
    shoal.cancel(raising)
    cancelled(returning)
    with pytest.raises(ValueError, match="something else"):
        shoal.get(raising)
    assert shoal.get(record.notes.remote()) == ["runs"] * 2


def test_what_has_not_begun_never_begins(tmp_path: Path) -> None:
    gate, record = Gate.remote(), Record.remote()

    @shoal.remote(num_cpus=2)
    def hold(gate: Any) -> None:
        shoal.get(gate.pass_through.remote())

    @shoal.remote(num_cpus=0, resources={"none": 1})
    def never() -> None: ...

    @shoal.remote
    def note(record: Any, what: Any) -> None:
        shoal.get(record.note.remote("it has begun"))

    held = hold.remote(gate)
    shoal.get(gate.arrived.remote(1))
    waits_for_argument, unplaced = note.remote(record, held), never.remote()
    depends = note.remote(record, unplaced)
    for ref in (waits_for_argument, unplaced):
        shoal.cancel(ref)
        cancelled(ref)
    cancelled(depends)
    shoal.get(gate.open.remote())
    shoal.get([held, pid.remote()])
    assert shoal.get(record.notes.remote()) == []


def test_what_was_sent_ahead_never_begins_and_need_not_wait(tmp_path: Path) -> None:
    # Of a class of its own: a lease that another test's task has lent may still be here for the others.
    @shoal.remote(num_cpus=2, memory=1 << 20)
    def busy(path: str, until: str) -> None:
        if path:
            Path(path).touch()
        while until and not Path(until).exists():
            time.sleep(0.01)

    shoal.get([busy.remote("", "") for _ in range(50)])  # so that tasks are sent ahead
    first = busy.remote(f"{tmp_path}/first", f"{tmp_path}/end")
    ahead = [busy.remote(f"{tmp_path}/{number}", "") for number in range(20)]
    while not (tmp_path / "first").exists():
        time.sleep(0.01)
    for ref in ahead[::2]:
        shoal.cancel(ref)
    for ref in ahead[::2]:
        cancelled(ref)
    assert shoal.wait([first], timeout=0) == ([], [first])
    (tmp_path / "end").touch()
    shoal.get([first, *ahead[1::2]])
    assert {path.name for path in tmp_path.iterdir()} == {"first", "end", *(str(n) for n in range(1, 20, 2))}


def test_of_many_in_any_order() -> None:
    gate = Gate.remote()

    @shoal.remote(num_cpus=2)
    def task(gate: Any) -> int:
        shoal.get(gate.pass_through.remote())
        return os.getpid()

    refs = [task.remote(gate) for _ in range(300)]
    for ref in refs[:100] + refs[:99:-1]:
        shoal.cancel(ref)
    for ref in refs:
        cancelled(ref)
    assert shoal.get(pid.remote())


@pytest.mark.parametrize("loops_in_c", [False, True])
def test_with_force_its_worker_is_killed(loops_in_c: bool) -> None:
    record = Record.remote()

    @shoal.remote(num_cpus=2, max_retries=3)
    def stubborn(record: Any) -> None:
        shoal.get(record.note.remote(os.getpid()))
        while loops_in_c:
            sum(itertools.repeat(0))
        while True:
            try:
                time.sleep(FOR_EVER_S)
            except BaseException:
                Path(os.devnull).touch()

    ref = stubborn.remote(record)
    (runs_in,) = shoal.get(record.notes.remote(at_least=1))
    shoal.cancel(ref, force=True)
    cancelled(ref)
    assert shoal.get(pid.remote()) != runs_in
    assert shoal.get(record.notes.remote()) == [runs_in]


def test_what_has_ended_keeps_its_value() -> None:
    done, put, large = pid.remote(), shoal.put(1), shoal.put(np.zeros(1 << 20, np.uint8))
    value = shoal.get(done)
    for ref in (done, put, large):
        shoal.cancel(ref)
        shoal.cancel(ref, force=True)
    assert (shoal.get(done), shoal.get(put), shoal.get(large).size) == (value, 1, 1 << 20)


def test_a_borrower_cancels() -> None:
    record = Record.remote()

    @shoal.remote(num_cpus=1)
    def sleep(record: Any) -> None:
        shoal.get(record.note.remote("runs"))
        time.sleep(FOR_EVER_S)

    @shoal.remote(num_cpus=0)
    def borrower(refs: list[Any]) -> str:
        shoal.cancel(refs[0])
        with pytest.raises(TaskCancelledError):
            shoal.get(refs[0])
        return "cancelled"

    ref = sleep.remote(record)
    shoal.get(record.notes.remote(at_least=1))
    assert shoal.get(borrower.remote([ref])) == "cancelled"
    cancelled(ref)


@shoal.remote(num_cpus=0)
def grandchild(record: Any) -> None:
    try:
        shoal.get(record.note.remote("grandchild"))
        time.sleep(FOR_EVER_S)
    finally:
        shoal.get(record.note.remote("grandchild ended"))


@shoal.remote(num_cpus=0)
def child(record: Any, gate: Any) -> None:
    shoal.get([grandchild.remote(record), gate.pass_through.remote()])


@shoal.remote(num_cpus=0)
def parent(record: Any, gate: Any) -> None:
    shoal.get([child.remote(record, gate)])


def test_what_it_has_submitted_is_cancelled_too() -> None:
    record, gate = Record.remote(), Gate.remote()
    ref = parent.remote(record, gate)
    shoal.get([record.notes.remote(at_least=1), gate.arrived.remote(1)])
    shoal.cancel(ref)
    cancelled(ref)
    assert shoal.get(record.notes.remote(at_least=2)) == ["grandchild", "grandchild ended"]


def test_or_not() -> None:
    record, gate = Record.remote(), Gate.remote()

    @shoal.remote
    def note(record: Any, gate: Any) -> None:
        shoal.get(gate.pass_through.remote())
        shoal.get(record.note.remote("the child has ended"))

    @shoal.remote
    def submits(record: Any, gate: Any) -> None:
        shoal.get([note.remote(record, gate)])

    ref = submits.remote(record, gate)
    shoal.get(gate.arrived.remote(1))
    shoal.cancel(ref, recursive=False)
    cancelled(ref)
    shoal.get(gate.open.remote())
    assert shoal.get(record.notes.remote(at_least=1)) == ["the child has ended"]


# -- actors -----------------------------------------------------------------------------------------------------


@shoal.remote
class Patient:
    def until_cancelled(self, gate: Any, raises: bool = False) -> str:
        gate.pass_through.remote()
        while not shoal.get_runtime_context().is_canceled():
            time.sleep(0.01)
        if raises:
            raise ValueError("something else")
        return "a value"

    def is_cancelled(self) -> bool:
        return shoal.get_runtime_context().is_canceled()

    def note(self, record: Any) -> None:
        shoal.get(record.note.remote("it has begun"))


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}], ids=["ordinary", "threaded"])
def test_a_call_that_runs_is_told_and_one_that_waits_never_begins(options: dict[str, Any]) -> None:
    actor, gate, record = Patient.options(max_task_retries=2, **options).remote(), Gate.remote(), Record.remote()
    running = [actor.until_cancelled.remote(gate, raises) for raises in (False, True)]
    shoal.get(gate.arrived.remote(1))
    queued = actor.note.remote(record)
    with pytest.raises(ValueError, match="force=True is not supported for actor tasks"):
        shoal.cancel(running[0], force=True)
    if options:
        shoal.get(gate.arrived.remote(2))
        shoal.cancel(queued)
        cancelled(queued)  # although no thread is free
    shoal.cancel(running[0])
    cancelled(running[0])
    shoal.cancel(queued)
    cancelled(queued)
    shoal.get(gate.arrived.remote(2))
    shoal.cancel(running[1])
    with pytest.raises(ValueError, match="something else"):
        shoal.get(running[1])
    assert shoal.get(actor.is_cancelled.remote()) is False
    assert shoal.get(record.notes.remote()) == []


def test_a_call_of_an_actor_that_is_still_to_come() -> None:
    @shoal.remote(num_cpus=0, resources={"none": 1})
    class Never:
        def method(self) -> None: ...

    actor = Never.remote()
    calls = [actor.method.remote() for _ in range(3)]
    shoal.cancel(calls[1])
    cancelled(calls[1])
    assert shoal.wait(calls[::2], timeout=0) == ([], calls[::2])


def test_coroutines_are_cancelled_also_those_that_wait_for_room() -> None:
    @shoal.remote(max_concurrency=2)
    class Async:
        def __init__(self) -> None:
            self.ends: list[str] = []

        async def sleep(self, gate: Any) -> str:
            await gate.pass_through.remote()
            return "it was let through"

        async def catch(self, gate: Any) -> str:
            try:
                await gate.pass_through.remote()
            except asyncio.CancelledError:
                self.ends.append("caught")
            return "a value"

        async def ended(self) -> list[str]:
            return self.ends

        async def is_cancelled(self) -> bool:
            return shoal.get_runtime_context().is_canceled()

    actor, gate = Async.remote(), Gate.remote()
    running = [actor.sleep.remote(gate), actor.catch.remote(gate)]
    queued = actor.ended.remote()
    shoal.get(gate.arrived.remote(2))
    shoal.cancel(queued)
    cancelled(queued)
    for ref in running:
        shoal.cancel(ref)
        cancelled(ref)
    assert shoal.get(actor.ended.remote()) == ["caught"]
    with pytest.raises(TaskError, match=r"is_canceled\(\) is not supported in async actors"):
        shoal.get(actor.is_cancelled.remote())


def test_calls_that_a_task_has_made_are_cancelled_with_it() -> None:
    actor, gate = Patient.remote(), Gate.remote()

    @shoal.remote
    def calls(actor: Any, gate: Any) -> None:
        shoal.get(actor.until_cancelled.remote(gate))

    ref = calls.remote(actor, gate)
    shoal.get(gate.arrived.remote(1))
    shoal.cancel(ref)
    cancelled(ref)
    assert shoal.get(actor.is_cancelled.remote()) is False  # it is free again


# -- elsewhere --------------------------------------------------------------------------------------------------


def test_what_cannot_be_cancelled() -> None:
    wrong: Any = [Gate.remote(), [shoal.put(1)], 1]
    for each in wrong:
        with pytest.raises(TypeError, match=r"only supported for object refs\. For actors, try shoal\.kill"):
            shoal.cancel(each)


def test_a_ref_of_an_earlier_session(no_cluster: None) -> None:
    shoal.init(num_cpus=1, logging_level="ERROR")
    ref = shoal.put(1)
    shoal.shutdown()
    with pytest.raises(ValueError, match="belongs to a session that was shut down"):
        shoal.cancel(ref)


def test_on_another_node(no_cluster: None) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1, resources={"there": 1})
        shoal.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
        record = Record.remote()

        @shoal.remote(resources={"there": 1})
        def sleep(record: Any) -> None:
            shoal.get(record.note.remote(os.getpid()))
            time.sleep(FOR_EVER_S)

        here = pid.options(num_cpus=0, resources={"there": 1})
        refs = []
        for force in (False, True):
            refs.append(sleep.remote(record))
            pids = shoal.get(record.notes.remote(at_least=len(refs)))
            shoal.cancel(refs[-1], force=force)
            cancelled(refs[-1])
            assert (shoal.get(here.remote()) == pids[-1]) is not force
    finally:
        shoal.shutdown()
        cluster.shutdown()
