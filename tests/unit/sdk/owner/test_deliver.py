"""Before a process ends, what it has sent is on its way, however slowly its peers read."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.owners import LONG, Party

#: More than the system takes for a peer that reads nothing.
LARGE = b"x" * 8_000_000


@pytest.fixture
def unread(driver: Party, worker: Party) -> Any:
    """The worker has sent a reply that the driver does not read, until this ends: then the reference is ready."""
    [ref] = driver.submit()
    driver.grant(worker)
    caller, task = worker.work.next()
    stuck, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        stuck.set()
        goes_on.wait(LONG)

    driver.core.reactor.call_later(0, hold)
    assert stuck.wait(LONG)
    worker.answer(caller, task, LARGE)

    def read() -> bytes:
        goes_on.set()
        value: bytes = driver.get(ref)
        return value

    return read


def test_it_waits_until_the_system_has_taken_everything(worker: Party, unread: Any) -> None:
    with ThreadPoolExecutor(1) as threads:
        delivered = threads.submit(worker.core.deliver, LONG)
        assert not worker.core.deliver(0.05) and not delivered.done()
        assert unread() == LARGE
        assert delivered.result(LONG)


def test_it_does_not_wait_for_ever(worker: Party, unread: Any) -> None:
    assert not worker.core.deliver(0.0)
    assert unread() == LARGE
    assert worker.core.deliver(LONG)
