"""A flow on the task runner: submit, map, futures as arguments, failures, coroutine tasks, options of Ray's."""

from __future__ import annotations

import os

os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"  # no word to the makers

from prefect import flow, task
from prefect.futures import as_completed
from prefect.testing.utilities import prefect_test_harness
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options

import ray


@task
def square(x):
    assert ray.get_runtime_context().worker.mode == ray.WORKER_MODE
    return x * x


@task
def total(values):
    return sum(values)


@task
async def slowly(x):
    return x + 1


@task
def fail():
    raise ValueError("on purpose")


@task
def cpus():
    return ray.get_runtime_context().get_assigned_resources()["CPU"]


@flow(task_runner=RayTaskRunner(init_kwargs={"num_cpus": 2}))
def work():
    squares = square.map(range(6))
    assert total.submit(squares).result() == 55
    assert sorted(future.result() for future in as_completed([square.submit(x) for x in (2, 3)])) == [4, 9]
    assert slowly.submit(1).result() == 2
    failed = fail.submit()
    failed.wait()
    assert failed.state.is_failed(), failed.state
    with remote_options(num_cpus=2):
        assert cpus.submit().result() == 2
    return "done"


if __name__ == "__main__":
    with prefect_test_harness(server_startup_timeout=300):  # one server for all; else each worker starts its own
        assert work() == "done"
    assert not ray.is_initialized()  # the runner had started it, and ended it
    print("submit, map, as_completed, a coroutine, a failure, remote_options")
