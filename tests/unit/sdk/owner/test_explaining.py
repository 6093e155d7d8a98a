"""What is waited for, as owners, workers and raylets tell it: also where one of them is silent."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.owners import LONG, NODE, Party

from shoal import Explanation, exceptions
from shoal._core.object_ref import ObjectRef
from shoal._owner import explaining, reporting
from shoal._wire.peer_frames import LookForDeadlock, WaitReport
from shoal_common.channel import frames


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for who is silent."""
    monkeypatch.setattr(reporting, "ANSWER_S", 0.05)


def explain(party: Party, ref: ObjectRef[Any]) -> Explanation:
    return party.core.explaining.explain(ref)


def test_the_raylet_says_why_there_is_no_worker(driver: Party) -> None:
    (ref,) = driver.submit()
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(explain, driver, ref)
        asked = driver.raylet.wait_for(frames.Explain)
        assert (asked.class_key, asked.object_id) == (0, b"")
        driver.raylet.send(frames.Explained(asked.request, "all are busy"))
        found = told.result(LONG)
    assert (found.state, found.detail) == ("waiting for a worker", f"node {NODE.hex()}: all are busy")


@pytest.mark.usefixtures("impatient")
def test_a_raylet_that_is_silent_is_said_to_be(driver: Party) -> None:
    (ref,) = driver.submit()
    assert explain(driver, ref).detail == f"node {NODE.hex()}: its raylet has not answered within 0.05 s"


def test_the_worker_says_what_it_runs(driver: Party, worker: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    (ref,) = driver.submit()
    driver.grant(worker)
    _, task = worker.work.next()
    report = WaitReport("running", "f", "in the middle", pid=7, for_s=2.0)
    monkeypatch.setattr(worker.core.reporting, "describe_task", {task.task_id: report}.__getitem__)
    told = explain(driver, ref)
    assert (told.state, told.detail, told.pid, told.for_s) == ("running", "in the middle", 7, 2.0)


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_is_silent_is_said_to_be(driver: Party, worker: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    (ref,) = driver.submit()
    driver.grant(worker)
    worker.work.next()
    monkeypatch.setattr(worker.core.reporting, "on_ask", lambda *_: None)
    told = explain(driver, ref)
    assert (told.state, told.pid) == ("running", 1), "as its owner knows"
    assert told.detail == f"process {worker.core.worker_id.hex()} has not answered within 0.05 s"


@pytest.mark.usefixtures("impatient")
def test_an_argument_that_is_missing(driver: Party) -> None:
    (missing,) = driver.submit()
    (ref,) = driver.submit(missing)
    told = explain(driver, ref)
    assert told.state == "waiting for its arguments"
    assert [each.object_id for each in told.waits_for] == [missing.hex()]


def test_a_wait_in_no_circle_is_not_ended_on_anybodys_word(driver: Party, worker: Party) -> None:
    (ref,) = driver.submit()
    driver.grant(worker)
    caller, task = worker.work.next()
    with ThreadPoolExecutor(1) as pool:
        value = pool.submit(driver.get, ref)
        while not driver.core.waits.all():
            time.sleep(0)
        with driver.core.lock:
            driver.core.explaining.on_look(LookForDeadlock(driver.core.waits.all()[0].number))
        worker.answer(caller, task, "value")
        assert value.result(LONG) == "value"


@pytest.fixture
def told_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the parties are made."""
    monkeypatch.setenv(explaining.AFTER_VARIABLE, "0.01")
    monkeypatch.setattr(reporting, "ANSWER_S", 0.05)


def test_a_get_that_takes_long_says_why_once(told_early: None, driver: Party, caplog: pytest.LogCaptureFixture) -> None:
    (ref,) = driver.submit()
    with caplog.at_level(logging.WARNING), pytest.raises(exceptions.GetTimeoutError):
        driver.core.values.get_one(ref, 1.0)
    said = [record.getMessage() for record in caplog.records if "get() has waited" in record.getMessage()]
    assert len(said) == 1
    assert f"ObjectRef({ref.hex()}) of f is waiting for a worker" in said[0]


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_what_is_no_time_is_named(
    text: str, party: Callable[..., Party], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(explaining.AFTER_VARIABLE, text)
    party("driver")
    assert [record.getMessage() for record in caplog.records] == [
        f"SHOAL_EXPLAIN_AFTER_S={text!r} is not a number of seconds from 0 (never) on: 30 is taken"
    ]
