"""``get`` and ``wait``: who waits is told of what he waits for, once, and leaves nothing behind."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.owners import LONG, Party

from shoal import exceptions
from shoal._wire.value_kinds import ERROR
from shoal_common.channel import frames


@pytest.fixture
def tasks(driver: Party, worker: Party) -> Any:
    """``answer(number, value)`` of three tasks that are under way; their references."""
    refs = [ref for _ in range(3) for ref in driver.submit(retries=1)]
    driver.grant(worker)
    pushed = [worker.work.next() for _ in range(3)]

    def answer(number: int, value: Any, kind: int | None = None) -> None:
        caller, task = pushed[number]
        if kind is None:
            worker.answer(caller, task, value)
        else:
            worker.answer(caller, task, value, kind=kind)

    return refs, answer


def watchers(refs: list[Any]) -> list[Any]:
    return [watcher for ref in refs for watcher in ref._entry.watchers or ()]


def test_a_get_that_is_too_late_leaves_nothing_behind(driver: Party, tasks: Any) -> None:
    refs, answer = tasks
    for timeout in (0, 0.001):
        with pytest.raises(exceptions.GetTimeoutError, match="not ready"):
            driver.core.values.get_many(refs, timeout)
    assert watchers(refs) == []
    for number in range(3):
        answer(number, number)
    assert driver.core.values.get_many(refs, LONG) == [0, 1, 2]


def test_the_first_error_ends_a_get_of_many(driver: Party, tasks: Any) -> None:
    refs, answer = tasks
    answer(1, KeyError("k"), ERROR)
    with pytest.raises(KeyError):
        driver.core.values.get_many(refs, LONG)
    assert watchers(refs) == []


def test_wait_counts_errors_and_keeps_the_order_of_its_list(driver: Party, tasks: Any) -> None:
    refs, answer = tasks
    answer(2, "value")
    answer(1, KeyError("k"), ERROR)
    assert driver.core.waiting.wait(refs, 2, LONG) == ([refs[1], refs[2]], [refs[0]])
    assert driver.core.waiting.wait(refs, 3, 0.001) == ([refs[1], refs[2]], [refs[0]])
    assert driver.core.waiting.wait(refs, 1, LONG) == ([refs[1]], [refs[0], refs[2]])
    assert watchers(refs) == []


def test_many_threads_wait_for_one_object(driver: Party, tasks: Any) -> None:
    refs, answer = tasks
    waiting = threading.Barrier(5)

    def get() -> Any:
        waiting.wait(LONG)
        return driver.get(refs[0])

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(get) for _ in range(4)]
        waiting.wait(LONG)
        answer(0, "value")
        assert [future.result(LONG) for future in futures] == ["value"] * 4


def test_who_asks_to_be_called_is_called_once_now_or_later(driver: Party, tasks: Any) -> None:
    refs, answer = tasks
    calls: list[str] = []
    driver.core.waiting.when_ready(refs[0], lambda: calls.append("later"))
    assert calls == []
    answer(0, "value")
    assert driver.get(refs[0]) == "value"
    driver.core.waiting.when_ready(refs[0], lambda: calls.append("now"))
    assert calls == ["later", "now"]


def test_nobody_waits_in_the_middle_of_a_change(driver: Party, tasks: Any) -> None:
    refs, _ = tasks
    with driver.core.lock, pytest.raises(exceptions.ShoalSystemError, match="cannot be called here"):
        driver.get(refs[0])
    assert watchers(refs) == []


def test_the_end_of_the_session_ends_every_wait(driver: Party) -> None:
    (ref,) = driver.submit()
    driver.raylet.wait_for(frames.LeaseDemand)
    with ThreadPoolExecutor(1) as pool:
        waits = threading.Event()
        driver.core.blocking = None
        flush = driver.core.flush
        driver.core.flush = lambda: (waits.set(), flush())[1]  # type: ignore[method-assign]
        future = pool.submit(driver.get, ref)
        assert waits.wait(LONG)
        driver.core.close()
        with pytest.raises(exceptions.ShoalSystemError, match="shutdown"):
            future.result(LONG)
    with pytest.raises(exceptions.ShoalSystemError, match="shut down"):
        driver.submit()
