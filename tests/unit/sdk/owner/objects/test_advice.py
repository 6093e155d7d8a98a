"""What is told about the use of ``get`` and ``wait``, and when nothing is."""

from __future__ import annotations

import asyncio
import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest

from shoal._context import TaskContext
from shoal._core.object_ref import ObjectEntry
from shoal._core.serial_gets import ENOUGH
from shoal._owner.objects.advice import Advice
from shoal._owner.process import GuardedLock
from shoal._owner.waits import Wait
from shoal_common import ids

IDS = ids.TaskIDs(ids.job_of_number(1))


class Program:
    """Waits, for tasks that are found while they run."""

    def __init__(self) -> None:
        self.task_ids = ids.TaskIDs(ids.job_of_number(1))
        self.running: set[bytes] = set()
        process: Any = SimpleNamespace(task_ids=self.task_ids, lock=GuardedLock())
        self.advice = Advice(process, lambda task_id: task_id if task_id in self.running else None)

    def submit(self, *, actor: bool = False) -> bytes:
        task_id = self.task_ids.next()
        if not actor:
            self.running.add(task_id)
        return task_id

    def get(self, *task_ids: bytes, seconds: float = 1.0, all_needed: bool = True, runs: Any = None) -> None:
        entries = [ObjectEntry(ids.object_of_task(task_id, 0)) for task_id in task_ids]
        waiter: Any = None
        wait = Wait(1, waiter, entries, False, all_needed, time.monotonic() - seconds, runs)
        self.advice.begins(wait)
        self.running.difference_update(task_ids)
        self.advice.ended(wait)


@pytest.fixture
def program() -> Program:
    return Program()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "shoal")
    return caplog


def test_a_loop_of_tasks_one_by_one_is_told_with_its_place(program: Program, told: pytest.LogCaptureFixture) -> None:
    for _ in range(3 * ENOUGH):
        program.get(program.submit())
    [text] = told.messages
    assert f"{__file__}:" in text
    assert f"waited {ENOUGH} times in a row" in text
    assert "shoal.get([f.remote(x) for x in xs])" in text


def test_tasks_that_run_at_the_same_time_are_not(program: Program, told: pytest.LogCaptureFixture) -> None:
    for task_id in [program.submit() for _ in range(3 * ENOUGH)]:
        program.get(task_id)
    for _ in range(3 * ENOUGH):
        program.get(program.submit(), program.submit())
    assert told.messages == []


def test_calls_of_an_actor_and_short_tasks_are_not(program: Program, told: pytest.LogCaptureFixture) -> None:
    for _ in range(3 * ENOUGH):
        program.get(program.submit(actor=True))
    for _ in range(3 * ENOUGH):
        program.get(program.submit(), seconds=0.0)
    for _ in range(3 * ENOUGH):
        program.get(program.submit(), all_needed=False)
    assert told.messages == []


def test_what_holds_up_its_event_loop_is_told_once_what_to_await(
    program: Program, told: pytest.LogCaptureFixture
) -> None:
    async def calls() -> None:
        for number in range(3):
            program.get(program.submit(), runs=TaskContext(IDS.next(), f"A.m{number}", "m", 0))
        program.get(program.submit(), all_needed=False, runs=TaskContext(IDS.next(), "A.n", "n", 0))

    asyncio.run(calls())
    first, second = told.messages
    assert first.startswith("A.m0 waits in get() on an event loop")
    assert "`await ref`" in first
    assert second.startswith("A.n waits in wait() on an event loop")
    assert "asyncio.wait" in second


def test_a_driver_in_a_notebook_and_a_task_without_a_loop_are_not(
    program: Program, told: pytest.LogCaptureFixture
) -> None:
    async def notebook() -> None:
        program.get(program.submit())

    asyncio.run(notebook())
    program.get(program.submit(), runs=TaskContext(IDS.next(), "f", "f", 0))
    assert told.messages == []
