"""Workers that die: what the caller sees, and what goes on."""

from __future__ import annotations

import os
import signal

import pytest
from e2e.compat.target import alive, better_than_ray, eventually, exceptions, new_signal, ray

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def die():
    @ray.remote(max_retries=0)
    def die(how):
        import ctypes
        import signal
        import sys

        if how == "exit 3":
            sys.exit(3)
        elif how == "_exit 4":
            os._exit(4)
        elif how == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        elif how == "SIGABRT":
            os.abort()
        elif how == "SIGSEGV":
            ctypes.string_at(0)

    return die


WAYS = ["exit 3", "_exit 4", "SIGKILL", "SIGSEGV", "SIGABRT"]


@pytest.mark.parametrize("how", WAYS)
def test_worker_death(die, how):
    with pytest.raises(exceptions.WorkerCrashedError, match="worker died unexpectedly") as caught:
        ray.get(die.remote(how))
    assert isinstance(caught.value, exceptions.RayError)


@better_than_ray
@pytest.mark.parametrize(
    ("how", "reason"),
    [("exit 3", "3"), ("_exit 4", "4"), ("SIGKILL", "SIGKILL"), ("SIGSEGV", "SIGSEGV"), ("SIGABRT", "SIGABRT")],
)
def test_worker_death_names_its_reason(die, how, reason):
    with pytest.raises(exceptions.WorkerCrashedError, match=reason):
        ray.get(die.remote(how))


@better_than_ray
@pytest.mark.parametrize(("how", "reason"), [("_exit 4", "4"), ("SIGKILL", "SIGKILL"), ("SIGSEGV", "SIGSEGV")])
def test_actor_death_names_its_reason(how, reason):
    @ray.remote
    class A:
        def die(self):
            import ctypes

            if how == "_exit 4":
                os._exit(4)
            elif how == "SIGKILL":
                os.kill(os.getpid(), signal.SIGKILL)
            ctypes.string_at(0)

    with pytest.raises(exceptions.ActorDiedError, match=reason):
        ray.get(A.remote().die.remote())


def test_others_are_not_disturbed(die):
    @ray.remote
    def fine(i):
        return i

    refs = [fine.remote(i) for i in range(50)]
    deaths = [die.remote("SIGKILL") for _ in range(3)]
    refs += [fine.remote(i) for i in range(50, 100)]
    assert ray.get(refs) == list(range(100))
    for death in deaths:
        with pytest.raises(exceptions.WorkerCrashedError):
            ray.get(death)


def test_tasks_queued_behind_a_death_run(die):
    @ray.remote(num_cpus=4)
    def whole():
        return 1

    deaths = [die.options(num_cpus=4).remote("_exit 4") for _ in range(2)]
    assert ray.get([whole.remote() for _ in range(5)], timeout=60) == [1] * 5
    for death in deaths:
        with pytest.raises(exceptions.WorkerCrashedError):
            ray.get(death)


def test_killed_from_outside_and_retried(tmp_path):
    path = str(tmp_path / "pid")

    @ray.remote(max_retries=1)
    def f():
        if os.path.exists(path):
            return "second run"
        with open(path + ".tmp", "w") as file:
            file.write(str(os.getpid()))
        os.rename(path + ".tmp", path)
        signal.pause()

    ref = f.remote()
    eventually(lambda: os.path.exists(path), "the task runs")
    with open(path) as file:
        os.kill(int(file.read()), signal.SIGKILL)
    assert ray.get(ref, timeout=60) == "second run"


def test_error_of_a_dead_dependency(die):
    @ray.remote
    def use(x):
        return x

    with pytest.raises(exceptions.WorkerCrashedError):
        ray.get(use.remote(die.remote("SIGKILL")))


def test_death_inside_nested_tasks(die):
    @ray.remote(max_retries=0)
    def outer():
        try:
            ray.get(die.remote("SIGKILL"))
        except exceptions_module.WorkerCrashedError:
            return "caught inside"

    exceptions_module = exceptions
    assert ray.get(outer.remote()) == "caught inside"


def test_retried_task_gets_its_arguments_again(tmp_path):
    import numpy as np

    path = str(tmp_path / "runs")

    @ray.remote(max_retries=2)
    def f(array, box):
        with open(path, "a") as runs:
            runs.write("x")
        if os.path.getsize(path) < 2:
            os._exit(1)
        return int(array.sum()) + ray.get(box[0])

    assert ray.get(f.remote(np.ones(200_000), [ray.put(5)])) == 200_005


def test_children_of_a_dead_worker_are_gone(tmp_path):
    path = str(tmp_path / "child")

    @ray.remote(max_retries=0)
    def parent():
        import subprocess

        child = subprocess.Popen(["sleep", "1000"])
        with open(path, "w") as file:
            file.write(str(child.pid))
        os._exit(1)

    with pytest.raises(exceptions.WorkerCrashedError):
        ray.get(parent.remote())
    with open(path) as file:
        child = int(file.read())
    eventually(lambda: not alive(child), "the grandchild is gone")


def test_actor_calls_of_a_dead_worker_end():
    gate = new_signal()

    @ray.remote(max_retries=0)
    def call_and_die():
        gate.wait.remote()
        ray.get(gate.waiters.remote())
        os._exit(1)

    with pytest.raises(exceptions.WorkerCrashedError):
        ray.get(call_and_die.remote())
    # The actor itself lives.
    assert ray.get(gate.waiters.remote()) in (0, 1)
    ray.get(gate.send.remote())


def test_sys_exit_zero_is_a_death_too():
    @ray.remote(max_retries=0)
    def leave():
        import sys

        sys.exit(0)

    with pytest.raises(exceptions.WorkerCrashedError):
        ray.get(leave.remote())


def test_fork_in_a_task():
    @ray.remote
    def f():
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert ray.get(f.remote()) == 7


def test_multiprocessing_in_a_task():
    @ray.remote
    def f():
        import multiprocessing

        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(abs, [-1, -2])

    assert ray.get(f.remote()) == [1, 2]
