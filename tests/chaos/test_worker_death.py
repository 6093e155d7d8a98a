"""A worker dies: what its owner sees, and that no other task pays for it."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest
from support.actors import Gate, Record
from support.deaths import SIGNALS, WAYS, die, fail_in_a_thread
from support.processes import PATIENCE_S, all_gone, eventually, stopped

import shoal
from shoal import exceptions

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.mark.parametrize(("way", "words"), WAYS.items(), ids=WAYS)
def test_error_names_the_reason(way, words):
    @shoal.remote(max_retries=0)
    def doomed():
        die(way)

    with pytest.raises(exceptions.WorkerCrashedError) as caught:
        shoal.get(doomed.remote(), timeout=PATIENCE_S)
    assert words in str(caught.value)
    assert "doomed" in str(caught.value)


@pytest.mark.parametrize("way", WAYS)
def test_retried_as_often_as_allowed(way):
    record = Record.remote()

    @shoal.remote(max_retries=2)
    def doomed():
        shoal.get(record.note.remote(os.getpid()))
        die(way)

    with pytest.raises(exceptions.WorkerCrashedError):
        shoal.get(doomed.remote(), timeout=PATIENCE_S)
    pids = shoal.get(record.notes.remote())
    assert len(pids) == len(set(pids)) == 3
    all_gone(pids)


@pytest.mark.parametrize("way", WAYS)
def test_retry_succeeds(way):
    record = Record.remote()

    @shoal.remote(max_retries=1)
    def doomed_once(x):
        shoal.get(record.note.remote(x))
        if len(shoal.get(record.notes.remote())) == 1:
            die(way)
        return x

    assert shoal.get(doomed_once.remote("result"), timeout=PATIENCE_S) == "result"


def test_exception_in_a_thread_is_no_death():
    @shoal.remote(max_retries=0)
    def f():
        fail_in_a_thread()
        return os.getpid()

    assert shoal.get(f.remote()) == shoal.get(f.remote())


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda s: s.name)
def test_killed_while_it_computes(signum):
    record = Record.remote()

    @shoal.remote(max_retries=0)
    def computes():
        shoal.get(record.note.remote(os.getpid()))
        while True:
            time.sleep(0.01)

    ref = computes.remote()
    [pid] = shoal.get(record.notes.remote(1))
    os.kill(pid, signum)
    with pytest.raises(exceptions.WorkerCrashedError, match=signum.name):
        shoal.get(ref, timeout=PATIENCE_S)


def test_killed_while_it_waits_for_another():
    record, gate = Record.remote(), Gate.remote()

    @shoal.remote(max_retries=0)
    def inner():
        shoal.get(gate.pass_through.remote())

    @shoal.remote(max_retries=0)
    def outer():
        shoal.get(record.note.remote(os.getpid()))
        shoal.get(inner.remote())

    ref = outer.remote()
    [pid] = shoal.get(record.notes.remote(1))
    shoal.get(gate.arrived.remote(1))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(exceptions.WorkerCrashedError, match="SIGKILL"):
        shoal.get(ref, timeout=PATIENCE_S)
    # What it waited for ended with it, and both CPUs are free again.
    eventually(lambda: shoal.available_resources().get("CPU") == 2, "the CPUs are free")


def test_killed_while_idle():
    @shoal.remote
    def pid():
        return os.getpid()

    for _ in range(5):
        victim = shoal.get(pid.remote(), timeout=PATIENCE_S)
        os.kill(victim, signal.SIGKILL)
        all_gone([victim])
        assert shoal.get(pid.remote(), timeout=PATIENCE_S) != victim
    eventually(lambda: shoal.available_resources().get("CPU") == 2, "the CPUs are free")


def test_killed_while_the_result_is_read():
    """A large result lies in the node's store: it does not end with the worker that made it."""

    @shoal.remote(max_retries=0)
    def make():
        return os.getpid(), b"x" * 2_000_000

    ref = make.remote()
    shoal.wait([ref])
    pid, _ = shoal.get(ref)
    os.kill(pid, signal.SIGKILL)
    all_gone([pid])
    assert len(shoal.get(ref)[1]) == 2_000_000


def test_owner_of_a_result_dies():
    @shoal.remote(max_retries=0)
    def owner():
        return os.getpid(), [shoal.put(b"x" * 2_000_000), shoal.put("small")]

    pid, refs = shoal.get(owner.remote())
    os.kill(pid, signal.SIGKILL)
    all_gone([pid])
    for ref in refs:
        with pytest.raises(exceptions.OwnerDiedError):
            shoal.get(ref, timeout=PATIENCE_S)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_neighbours_in_the_queue_are_neither_lost_nor_run_twice(way, place):
    """Tasks that were pushed to the same worker together, none of which may be retried."""
    runs = Record.remote()

    @shoal.remote(max_retries=0, num_cpus=2)
    def task(number, doomed):
        if doomed:
            runs.note.remote(number)
            shoal.get(runs.notes.remote())  # the note before it has arrived
            die(way)
        runs.note.remote(number)
        return number

    # Known to be short, so that many go to the worker at once.
    shoal.get([task.remote(-1, False) for _ in range(50)], timeout=PATIENCE_S)
    victim = {"first": 0, "middle": 25, "last": 49}[place]
    refs = [task.remote(number, number == victim) for number in range(50)]
    for number, ref in enumerate(refs):
        if number == victim:
            with pytest.raises(exceptions.WorkerCrashedError):
                shoal.get(ref, timeout=PATIENCE_S)
        else:
            assert shoal.get(ref, timeout=PATIENCE_S) == number
    notes = shoal.get(runs.notes.remote(50 + 50))
    assert sorted(note for note in notes if note >= 0) == list(range(50))


def test_neighbours_are_not_counted_as_retried():
    """Many deaths in a row: tasks with one retry each, of which every tenth dies always, lose nobody else."""

    @shoal.remote(max_retries=1, num_cpus=2)
    def task(number):
        if number % 10 == 5:
            os._exit(1)
        return number

    shoal.get([task.remote(0) for _ in range(50)], timeout=PATIENCE_S)
    refs = [task.remote(number) for number in range(60)]
    for number, ref in enumerate(refs):
        if number % 10 == 5:
            with pytest.raises(exceptions.WorkerCrashedError):
                shoal.get(ref, timeout=PATIENCE_S)
        else:
            assert shoal.get(ref, timeout=PATIENCE_S) == number


def test_stopped_worker_does_not_hold_others_up():
    record = Record.remote()

    @shoal.remote(max_retries=0)
    def computes():
        shoal.get(record.note.remote(os.getpid()))
        while True:
            time.sleep(0.01)

    @shoal.remote
    def f(i):
        return i

    stuck = computes.remote()
    [pid] = shoal.get(record.notes.remote(1))
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: stopped(pid), "it is stopped")
    try:
        assert shoal.get([f.remote(i) for i in range(100)], timeout=PATIENCE_S) == list(range(100))
        ready, _ = shoal.wait([stuck], timeout=0)
        assert not ready
    finally:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(exceptions.WorkerCrashedError, match="SIGKILL"):
        shoal.get(stuck, timeout=PATIENCE_S)


def test_stopped_worker_that_has_more_queued():
    """Short tasks lie queued on a worker that stops answering: those not begun must be able to run elsewhere."""

    @shoal.remote
    def f(i):
        return os.getpid()

    pids = set(shoal.get([f.remote(i) for i in range(200)]))
    victim = sorted(pids)[0]
    os.kill(victim, signal.SIGSTOP)
    eventually(lambda: stopped(victim), "it is stopped")
    try:
        refs = [f.remote(i) for i in range(200)]
        ready, rest = shoal.wait(refs, num_returns=100, timeout=PATIENCE_S)
        assert len(ready) == 100
        assert victim not in set(shoal.get(ready))
    finally:
        os.kill(victim, signal.SIGCONT)
    assert len(shoal.get(rest, timeout=PATIENCE_S)) == 100


def test_workers_that_die_on_and_on():
    """A crash loop ends with errors, and leaves the cluster usable."""

    @shoal.remote(max_retries=3)
    def crash():
        os._exit(1)

    @shoal.remote
    def fine():
        return 1

    crashes = [crash.remote() for _ in range(5)]
    assert sum(shoal.get([fine.remote() for _ in range(20)], timeout=PATIENCE_S)) == 20
    for ref in crashes:
        with pytest.raises(exceptions.WorkerCrashedError):
            shoal.get(ref, timeout=PATIENCE_S)
    assert shoal.get(fine.remote(), timeout=PATIENCE_S) == 1


@pytest.mark.parametrize("way", SIGNALS)
def test_no_socket_is_left(way):
    @shoal.remote
    class Actor:
        def place(self):
            context = shoal.get_runtime_context()
            return os.getpid(), f"w-{context.get_worker_id()[:16]}"

    actor = Actor.remote()
    pid, name = shoal.get(actor.place.remote())
    [socket] = Path(tempfile.gettempdir()).rglob(f"sockets/{name}")
    os.kill(pid, way)
    eventually(lambda: not socket.exists(), "its socket is removed")
