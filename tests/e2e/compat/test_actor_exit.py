"""How an actor ends by its own code: exit_actor, sys.exit and __ray_terminate__, in every kind of actor."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest
from e2e.compat.target import better_than_ray, eventually, exceptions, new_signal, ray, submodule

pytestmark = pytest.mark.usefixtures("cluster")

exit_actor = submodule("actor").exit_actor


@pytest.fixture(scope="module")
def services():
    @ray.remote
    class Service:
        def __init__(self):
            self.started = asyncio.Event()

        async def serve(self):
            self.started.set()
            await asyncio.Event().wait()

        async def is_serving(self):
            await self.started.wait()
            return True

        async def leave(self):
            exit_actor()

        async def leave_caught(self):
            try:
                exit_actor()
            except BaseException:
                return "still here"

        def leave_at_once(self):
            exit_actor()

        async def leave_in_background(self):
            async def later():
                await asyncio.sleep(0)
                exit_actor()

            self.task = asyncio.create_task(later())
            return "leaves"

        async def leave_in_thread(self):
            threading.Thread(target=exit_actor).start()
            return "leaves"

        async def interrupted_in_background(self):
            async def later():
                raise KeyboardInterrupt

            self.task = asyncio.create_task(later())

        async def exits_in_background(self, code):
            async def later():
                sys.exit(code)

            self.task = asyncio.create_task(later())

        async def cancel_all(self):
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        async def m(self):
            return 1

    return Service


@pytest.mark.parametrize("way", ["leave", "leave_caught", "leave_at_once"])
def test_exit_ends_an_async_actor_whose_coroutines_never_end(services, way):
    service = services.remote()
    serving = service.serve.remote()
    assert ray.get(service.is_serving.remote())
    with pytest.raises(exceptions.RayActorError):
        ray.get(getattr(service, way).remote(), timeout=60)
    with pytest.raises(exceptions.RayActorError):
        ray.get(serving, timeout=60)
    with pytest.raises(exceptions.RayActorError):
        ray.get(service.m.remote(), timeout=60)


@better_than_ray
@pytest.mark.parametrize("way", ["leave_in_background", "leave_in_thread"])
def test_exit_beside_the_calls_of_an_async_actor(services, way):
    service = services.remote()
    assert ray.get(service.m.remote()) == 1
    with pytest.raises(exceptions.RayActorError):
        # Answered, or not: it ends meanwhile.
        assert ray.get(getattr(service, way).remote(), timeout=60) == "leaves"
        ray.get(service.serve.remote(), timeout=60)


@better_than_ray
def test_exit_in_a_thread_of_an_ordinary_actor():
    @ray.remote
    class A:
        def leave(self):
            thread = threading.Thread(target=exit_actor)
            thread.start()
            thread.join()
            return "left"

        def m(self):
            return 1

    a = A.remote()
    assert ray.get(a.leave.remote(), timeout=60) == "left"
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(a.m.remote(), timeout=60)


def test_running_calls_of_a_threaded_actor_finish_and_waiting_ones_do_not():
    signal = new_signal()

    @ray.remote(max_concurrency=2)
    class A:
        def hold(self):
            ray.get(signal.wait.remote())
            return "finished"

        def leave(self):
            exit_actor()

        def m(self):
            return 1

    a = A.remote()
    holding = a.hold.remote()
    eventually(lambda: ray.get(signal.waiters.remote()) == 1, "a call runs")
    leaving = a.leave.remote()
    after = [a.m.remote() for _ in range(3)]
    ready, _ = ray.wait([leaving], timeout=0.2)
    assert not ready
    ray.get(signal.send.remote())
    assert ray.get(holding, timeout=60) == "finished"
    for ref in [leaving, *after]:
        with pytest.raises(exceptions.RayActorError):
            ray.get(ref, timeout=60)


@pytest.mark.parametrize("is_async", [False, True])
def test_exit_in_the_constructor(is_async):
    class Plain:
        def __init__(self):
            exit_actor()

        def m(self):
            return 1

    class Async(Plain):
        async def n(self):
            return 1

    actor = ray.remote(Async if is_async else Plain).remote()
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(actor.m.remote(), timeout=60)


# --- sys.exit ------------------------------------------------------------------------------------------------------


@pytest.fixture
def quitters(tmp_path):
    """By kind: an actor class whose ``work`` ends its process at the first try."""
    path = tmp_path / "tries"

    class Plain:
        def work(self, code):
            with open(path, "a") as file:
                file.write("x")
            if path.stat().st_size < 2:
                sys.exit(code)
            return path.stat().st_size

        def m(self):
            return 1

    class Coroutines:
        async def work(self, code):
            return Plain.work(self, code)

        async def m(self):
            return 1

    return {
        "ordinary": ray.remote(Plain),
        "threads": ray.remote(max_concurrency=2)(Plain),
        "groups": ray.remote(concurrency_groups={"io": 1})(Plain),
        "async": ray.remote(Coroutines),
    }


KINDS = ["ordinary", "threads", "groups", "async"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", [1, "a reason"])
def test_exit_with_an_error_is_a_failure(quitters, kind, code):
    actor = quitters[kind].options(max_restarts=1, max_task_retries=1).remote()
    assert ray.get(actor.work.remote(code), timeout=60) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_exit_without_an_error_is_final(quitters, kind):
    actor = quitters[kind].options(max_restarts=1, max_task_retries=1).remote()
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(actor.work.remote(0), timeout=60)
    with pytest.raises(exceptions.ActorDiedError):
        ray.get(actor.m.remote(), timeout=60)


@better_than_ray
def test_exit_of_a_background_coroutine_ends_the_process(services):
    service = services.options(max_restarts=1).remote()
    serving = service.serve.remote()
    service.exits_in_background.remote(1)
    with pytest.raises(exceptions.RayActorError):
        ray.get(serving, timeout=60)


@better_than_ray
def test_interrupt_of_a_background_coroutine_ends_only_that(services):
    service = services.remote()
    ray.get(service.interrupted_in_background.remote(), timeout=60)
    assert ray.get([service.m.remote() for _ in range(3)], timeout=60) == [1, 1, 1]


@better_than_ray
def test_cancelled_coroutines_are_answered(services):
    service = services.options(max_concurrency=2).remote()
    serving = service.serve.remote()
    assert ray.get(service.is_serving.remote(), timeout=60)
    ray.get(service.cancel_all.remote(), timeout=60)
    with pytest.raises(exceptions.TaskCancelledError):
        ray.get(serving, timeout=60)


# --- __ray_terminate__ ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_answered_after_terminate(quitters, kind):
    actor = quitters[kind].remote()
    before = [actor.m.remote() for _ in range(5)]
    terminating = actor.__ray_terminate__.remote()
    after = [actor.m.remote() for _ in range(5)]
    with pytest.raises(exceptions.RayActorError):
        ray.get(terminating, timeout=60)
    assert ray.get(before, timeout=60) == [1] * 5
    for ref in after:
        with pytest.raises(exceptions.RayActorError):
            ray.get(ref, timeout=60)
