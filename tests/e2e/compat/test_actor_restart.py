"""Actors that come back, and calls that are tried again."""

from __future__ import annotations

import os
import signal
import time

import pytest
from e2e.compat.target import alive, eventually, exceptions, ray, submodule

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def phoenixes():
    @ray.remote
    class Phoenix:
        def __init__(self, path=None):
            self.calls = 0
            if path:
                with open(path, "a") as made:
                    made.write("x")

        def call(self):
            self.calls += 1
            return self.calls

        def pid(self):
            return os.getpid()

        def crash(self):
            os._exit(1)

        def crash_until(self, path, times):
            with open(path, "a") as runs:
                runs.write("x")
            if os.path.getsize(path) <= times:
                os._exit(1)
            return os.path.getsize(path)

        def fail_until(self, path, times):
            with open(path, "a") as runs:
                runs.write("x")
            if os.path.getsize(path) <= times:
                raise ValueError("not yet")
            return os.path.getsize(path)

    return Phoenix


def answers(actor):
    """Calls until the actor is back; a call during the restart may fail."""
    got = []

    def try_once():
        try:
            got.append(ray.get(actor.call.remote(), timeout=60))
        except exceptions.ActorUnavailableError:
            return False
        return True

    eventually(try_once, "the actor answers again")
    return got[0]


def test_restart_runs_the_constructor_again(phoenixes, tmp_path):
    path = str(tmp_path / "made")
    actor = phoenixes.options(max_restarts=1).remote(path)
    assert ray.get([actor.call.remote() for _ in range(3)]) == [1, 2, 3]
    first = ray.get(actor.pid.remote())
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not alive(first), "the first process is gone")
    assert answers(actor) >= 1
    assert os.path.getsize(path) == 2
    assert ray.get(actor.pid.remote()) != first


def test_call_that_crashed_fails_without_task_retries(phoenixes):
    actor = phoenixes.options(max_restarts=1).remote()
    with pytest.raises(exceptions.RayActorError) as caught:
        ray.get(actor.crash.remote())
    assert isinstance(caught.value, exceptions.ActorUnavailableError | exceptions.ActorDiedError)
    assert answers(actor) == 1


def test_dies_for_good_after_max_restarts(phoenixes):
    actor = phoenixes.options(max_restarts=1).remote()
    ray.get(actor.call.remote())
    with pytest.raises(exceptions.RayActorError):
        ray.get(actor.crash.remote())
    assert answers(actor) == 1
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(actor.crash.remote())
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(actor.call.remote())


def test_restarts_without_limit(phoenixes):
    actor = phoenixes.options(max_restarts=-1).remote()
    for _ in range(3):
        with pytest.raises(exceptions.RayActorError):
            ray.get(actor.crash.remote())
        assert answers(actor) == 1


def test_no_restart_by_default(phoenixes):
    actor = phoenixes.remote()
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(actor.crash.remote())
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(actor.call.remote())


def test_task_retries_repeat_the_call(phoenixes, tmp_path):
    path = str(tmp_path / "runs")
    actor = phoenixes.options(max_restarts=2, max_task_retries=2).remote()
    assert ray.get(actor.crash_until.remote(path, 2)) == 3


def test_task_retries_without_limit(phoenixes, tmp_path):
    path = str(tmp_path / "runs")
    actor = phoenixes.options(max_restarts=-1, max_task_retries=-1).remote()
    assert ray.get(actor.crash_until.remote(path, 4)) == 5


def test_task_retries_used_up(phoenixes, tmp_path):
    path = str(tmp_path / "runs")
    actor = phoenixes.options(max_restarts=-1, max_task_retries=1).remote()
    with pytest.raises(exceptions.RayActorError):
        ray.get(actor.crash_until.remote(path, 10))
    assert os.path.getsize(path) == 2


def test_queued_calls_survive_a_restart_with_task_retries(phoenixes, tmp_path):
    path = str(tmp_path / "runs")
    actor = phoenixes.options(max_restarts=1, max_task_retries=-1).remote()
    refs = [actor.crash_until.remote(path, 1), *[actor.call.remote() for _ in range(5)]]
    results = ray.get(refs, timeout=60)
    assert results[0] >= 2
    assert sorted(results[1:]) == [1, 2, 3, 4, 5]


def test_exceptions_are_not_retried_by_default(phoenixes, tmp_path):
    path = str(tmp_path / "runs")
    actor = phoenixes.options(max_task_retries=3).remote()
    with pytest.raises(ValueError, match="not yet"):
        ray.get(actor.fail_until.remote(path, 2))
    assert os.path.getsize(path) == 1


def test_exceptions_are_retried_when_asked_for(phoenixes, tmp_path):
    path = str(tmp_path / "runs")
    actor = phoenixes.remote()
    call = actor.fail_until.options(max_task_retries=3, retry_exceptions=[ValueError])
    assert ray.get(call.remote(path, 2)) == 3


def test_repeated_call_runs_before_a_later_one_that_needs_its_value(tmp_path):
    fail = tmp_path / "fail"

    @ray.remote
    class A:
        def first(self, attempt=[]):  # noqa: B006 - remembers the attempts
            attempt.append(1)
            if len(attempt) == 1:
                while not fail.exists():
                    time.sleep(0.01)
                raise ValueError("the first time")
            return 1

        def second(self, value):
            return value + 1

    actor = A.remote()
    one = actor.first.options(max_task_retries=1, retry_exceptions=True).remote()
    two = actor.second.remote(one)
    fail.touch()
    assert ray.get([one, two], timeout=60) == [1, 2]


def test_retries_declared_by_the_method(tmp_path):
    path = str(tmp_path / "runs")

    @ray.remote
    class A:
        @ray.method(max_task_retries=2, retry_exceptions=True)
        def m(self):
            with open(path, "a") as runs:
                runs.write("x")
            raise KeyError("for ever")

    with pytest.raises(KeyError):
        ray.get(A.remote().m.remote())
    assert os.path.getsize(path) == 3


def test_kill_with_restart(phoenixes):
    actor = phoenixes.options(max_restarts=1).remote()
    first = ray.get(actor.pid.remote())
    ray.kill(actor, no_restart=False)
    eventually(lambda: not alive(first), "the first process is gone")
    assert answers(actor) == 1
    assert ray.get(actor.pid.remote()) != first


def test_kill_without_restart_is_final(phoenixes):
    actor = phoenixes.options(max_restarts=-1).remote()
    pid = ray.get(actor.pid.remote())
    ray.kill(actor)
    eventually(lambda: not alive(pid), "the process is gone")
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(actor.call.remote())


def test_exit_actor_is_final():
    exit_actor = submodule("actor").exit_actor

    @ray.remote(max_restarts=-1)
    class A:
        def leave(self):
            exit_actor()

        def m(self):
            return 1

    a = A.remote()
    with pytest.raises(exceptions.RayActorError):
        ray.get(a.leave.remote())
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(a.m.remote())


def test_knows_that_it_was_restarted():
    @ray.remote(max_restarts=1)
    class A:
        def restarted(self):
            return ray.get_runtime_context().was_current_actor_reconstructed

        def call(self):
            return 1

        def crash(self):
            os._exit(1)

    a = A.remote()
    assert ray.get(a.restarted.remote()) is False
    with pytest.raises(exceptions.RayActorError):
        ray.get(a.crash.remote())
    answers(a)
    assert ray.get(a.restarted.remote()) is True


def test_named_actor_keeps_its_name(phoenixes):
    actor = phoenixes.options(name="phoenix", max_restarts=1).remote()
    with pytest.raises(exceptions.RayActorError):
        ray.get(actor.crash.remote())
    answers(actor)
    assert ray.get_actor("phoenix") == actor


def test_constructor_crash_counts_as_a_restart(tmp_path):
    path = str(tmp_path / "made")

    @ray.remote(max_restarts=2)
    class A:
        def __init__(self):
            with open(path, "a") as made:
                made.write("x")
            if os.path.getsize(path) <= 2:
                os._exit(1)

        def m(self):
            return os.path.getsize(path)

    a = A.options(max_task_retries=-1).remote()
    assert ray.get(a.m.remote(), timeout=60) == 3
