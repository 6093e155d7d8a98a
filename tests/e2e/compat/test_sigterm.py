"""SIGTERM to a worker: what runs is unwound and may still use the API, exit hooks run, and others see a crash."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys

import pytest
from e2e.compat.target import alive, better_than_ray, eventually, exceptions, new_signal, ray

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def record():
    @ray.remote(num_cpus=0)
    class Record:
        def __init__(self):
            self.notes = []

        def note(self, text):
            self.notes.append(text)

        def all(self):
            return self.notes

    return Record.remote()


def wait_until_terminated(record, gate):
    ray.get(record.note.remote(os.getpid()))
    atexit.register(lambda: ray.get(record.note.remote("hook")))
    try:
        ray.get(gate.wait.remote())
    finally:
        ray.get(record.note.remote("unwound"))


def terminate_when_begun(record, gate):
    eventually(lambda: ray.get(gate.waiters.remote()) == 1, "it runs")
    [pid] = ray.get(record.all.remote())
    os.kill(pid, signal.SIGTERM)
    return pid


def test_task_is_unwound(record):
    @ray.remote(max_retries=0)
    def task(record, gate):
        wait_until_terminated(record, gate)

    gate = new_signal()
    running = task.remote(record, gate)
    pid = terminate_when_begun(record, gate)
    with pytest.raises(exceptions.WorkerCrashedError):
        ray.get(running, timeout=60)
    assert ray.get(record.all.remote()) == [pid, "unwound", "hook"]


@pytest.mark.parametrize("where", ["constructor", "method"])
def test_actor_is_unwound_and_restarted(record, where):
    @ray.remote(max_restarts=1, max_task_retries=1)
    class A:
        def __init__(self, record, gate):
            self.work("constructor", record, gate)

        def work(self, here, record, gate):
            if here == where and not ray.get(record.all.remote()):
                wait_until_terminated(record, gate)
            return "again"

    gate = new_signal()
    running = A.remote(record, gate).work.remote("method", record, gate)
    pid = terminate_when_begun(record, gate)
    assert ray.get(running, timeout=60) == "again"
    assert ray.get(record.all.remote()) == [pid, "unwound", "hook"]


@better_than_ray  # there it never dies
def test_task_that_catches_it_is_answered(record):
    @ray.remote(max_retries=0)
    def task(record, gate):
        try:
            wait_until_terminated(record, gate)
        except SystemExit:
            return "caught"

    gate = new_signal()
    running = task.remote(record, gate)
    pid = terminate_when_begun(record, gate)
    assert ray.get(running, timeout=60) == "caught"
    eventually(lambda: not alive(pid), "its worker ends all the same")
    assert ray.get(record.all.remote()) == [pid, "unwound", "hook"]


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}], ids=["ordinary", "threads"])
def test_idle_actor_runs_its_hooks(record, options):
    @ray.remote(num_cpus=0)
    class A:
        def pid(self, record):
            atexit.register(lambda: ray.get(record.note.remote("hook")))
            return os.getpid()

    a = A.options(**options).remote()
    pid = ray.get(a.pid.remote(record))
    os.kill(pid, signal.SIGTERM)
    with pytest.raises(exceptions.RayActorError):
        while True:
            ray.get(a.pid.remote(record), timeout=60)
    eventually(lambda: "hook" in ray.get(record.all.remote()), "the hook has run")


def test_children_end_by_it_as_ever():
    import multiprocessing

    @ray.remote
    def task():
        child = multiprocessing.get_context("fork").Process(target=signal.pause)
        child.start()
        child.terminate()
        child.join()
        program = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        program.terminate()
        return child.exitcode, program.wait()

    assert ray.get(task.remote(), timeout=60) == (-signal.SIGTERM, -signal.SIGTERM)
