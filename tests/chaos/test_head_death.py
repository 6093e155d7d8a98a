"""The head process of an embedded cluster is killed: clear errors at once, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from support.processes import PATIENCE_S, all_gone, descendants, head_of

import shoal
from shoal import exceptions

pytestmark = pytest.mark.usefixtures("no_cluster")


@pytest.fixture
def killed_head():
    """A session with work under way, whose head is then killed: what was under way, and the processes seen."""
    shoal.init(num_cpus=2, logging_level="ERROR", log_to_driver=False)

    @shoal.remote
    class Parent:
        def pids(self):
            self.children = [
                subprocess.Popen(["sleep", "1000"]),
                subprocess.Popen(["sleep", "1000"], start_new_session=True),
            ]
            return [os.getpid(), *[child.pid for child in self.children]]

        def stay(self):
            time.sleep(1000)

    @shoal.remote
    def forever():
        time.sleep(1000)

    parent = Parent.remote()
    pids = set(shoal.get(parent.pids.remote()))
    work = {
        "running task": forever.remote(),
        "queued task": [forever.remote() for _ in range(5)][-1],
        "running call": parent.stay.remote(),
        "queued call": parent.pids.remote(),
        "large object": shoal.put(b"x" * 10_000_000),
        "small object": shoal.put("small"),
    }
    head = head_of(os.getpid())
    pids |= {head} | descendants(head)
    os.kill(head, signal.SIGKILL)
    return parent, forever, work, pids


def test_processes_are_gone(killed_head):
    *_, pids = killed_head
    all_gone(pids)


@pytest.mark.parametrize("what", ["running task", "queued task", "running call", "queued call"])
def test_work_under_way_fails(killed_head, what):
    _, _, work, _ = killed_head
    with pytest.raises(exceptions.ShoalError, match=r"\w+") as caught:
        shoal.get(work[what], timeout=PATIENCE_S)
    assert not isinstance(caught.value, exceptions.GetTimeoutError)


def test_waiting_ends(killed_head):
    _, _, work, _ = killed_head
    refs = [work["running task"], work["queued task"]]
    ready, rest = shoal.wait(refs, num_returns=2, timeout=PATIENCE_S)
    assert (ready, rest) == (refs, [])


@shoal.remote
class Other:
    def m(self):
        return 1


USES = {
    "task": lambda parent, task, work: shoal.get(task.remote(), timeout=PATIENCE_S),
    "call": lambda parent, task, work: shoal.get(parent.pids.remote(), timeout=PATIENCE_S),
    "new actor": lambda parent, task, work: shoal.get(Other.remote().m.remote(), timeout=PATIENCE_S),
    "put of a large object": lambda parent, task, work: shoal.put(b"x" * 10_000_000),
    "get of a large object": lambda parent, task, work: shoal.get(work["large object"], timeout=PATIENCE_S),
    "actor by name": lambda parent, task, work: shoal.get_actor("nobody"),
    "nodes": lambda parent, task, work: shoal.nodes(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_later_uses_fail(killed_head, use):
    parent, task, work, _ = killed_head
    with pytest.raises(exceptions.ShoalError):
        shoal.get(work["running task"], timeout=PATIENCE_S)
    with pytest.raises((exceptions.ShoalError, ConnectionError), match=r"\w+") as caught:
        use(parent, task, work)
    assert not isinstance(caught.value, exceptions.GetTimeoutError)
    # What the driver holds itself stays.
    assert shoal.get(work["small object"]) == "small"


def test_next_session_works(killed_head):
    *_, pids = killed_head
    shoal.shutdown()
    all_gone(pids)
    shoal.init(num_cpus=1, logging_level="ERROR")

    @shoal.remote
    def f():
        return "works"

    assert shoal.get(f.remote()) == "works"


def test_driver_that_waits_is_told(killed_head):
    """From a thread of the driver, too."""
    from concurrent.futures import ThreadPoolExecutor

    _, _, work, _ = killed_head
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(shoal.get, work["running call"], timeout=PATIENCE_S) for _ in range(4)]:
            error = future.exception()
            assert isinstance(error, exceptions.ShoalError)
            assert not isinstance(error, exceptions.GetTimeoutError)
