"""What a program can ask about where it runs."""

from __future__ import annotations

import os
import threading

import pytest
from e2e.compat.target import eventually, ray

pytestmark = pytest.mark.usefixtures("cluster")


def is_hex(text):
    return isinstance(text, str) and len(text) > 0 and int(text, 16) >= 0


def test_driver():
    context = ray.get_runtime_context()
    assert is_hex(context.get_job_id())
    assert is_hex(context.get_node_id())
    assert is_hex(context.get_worker_id())
    assert context.get_task_id() is None
    assert context.get_actor_id() is None
    assert context.get_actor_name() is None
    assert context.namespace == "compat"
    assert context.runtime_env == {}
    assert context.gcs_address.rpartition(":")[2].isdigit()


def test_driver_is_no_worker():
    context = ray.get_runtime_context()
    with pytest.raises(AssertionError):
        context.get_assigned_resources()
    with pytest.raises(RuntimeError):
        context.current_actor  # noqa: B018


def test_task():
    @ray.remote
    def f():
        context = ray.get_runtime_context()
        return {
            "job": context.get_job_id(),
            "node": context.get_node_id(),
            "worker": context.get_worker_id(),
            "task": context.get_task_id(),
            "actor": context.get_actor_id(),
            "name": context.get_task_name(),
            "function": context.get_task_function_name(),
        }

    ref = f.remote()
    seen = ray.get(ref)
    driver = ray.get_runtime_context()
    assert seen["job"] == driver.get_job_id()
    assert seen["node"] == driver.get_node_id()
    assert is_hex(seen["worker"])
    assert seen["worker"] != driver.get_worker_id()
    assert seen["task"] == ref.task_id().hex()
    assert seen["actor"] is None
    assert seen["name"].endswith("f")
    assert seen["function"].endswith("f")
    assert ray.get(f.options(name="label").remote())["name"] == "label"


def test_actor():
    @ray.remote
    class A:
        def ids(self):
            context = ray.get_runtime_context()
            return context.get_actor_id(), context.get_task_id(), context.get_task_name(), context.get_worker_id()

        def me(self):
            return ray.get_runtime_context().current_actor

    a = A.remote()
    ref = a.ids.remote()
    actor_id, task_id, task_name, worker_id = ray.get(ref)
    assert actor_id == a._actor_id.hex() == a._ray_actor_id.hex()
    assert task_id == ref.task_id().hex()
    assert task_name == "A.ids"
    assert is_hex(worker_id)
    assert ray.get(a.me.remote()) == a


def test_ids_of_constructor_and_calls_differ():
    @ray.remote
    class A:
        def __init__(self):
            self.made_by = ray.get_runtime_context().get_task_id()

        def both(self):
            return self.made_by, ray.get_runtime_context().get_task_id()

    made_by, called_by = ray.get(A.remote().both.remote())
    assert made_by
    assert made_by != called_by


def test_assigned_resources():
    @ray.remote(num_cpus=0.5, resources={"custom": 1})
    def f():
        return ray.get_runtime_context().get_assigned_resources()

    assert ray.get(f.remote()) == {"CPU": 0.5, "custom": 1.0}


def test_context_in_threads_of_a_task():
    @ray.remote
    def f():
        seen = []
        thread = threading.Thread(target=lambda: seen.append(ray.get_runtime_context().get_job_id()))
        thread.start()
        thread.join()
        return seen[0]

    assert ray.get(f.remote()) == ray.get_runtime_context().get_job_id()


def test_no_gpus():
    @ray.remote
    def f():
        return ray.get_gpu_ids(), ray.get_runtime_context().get_accelerator_ids().get("GPU", [])

    assert ray.get_gpu_ids() == []
    assert ray.get(f.remote()) == ([], [])


def test_cluster_resources():
    total = ray.cluster_resources()
    assert total["CPU"] == 4
    assert total["custom"] == 2
    assert total["memory"] > 0
    assert total["object_store_memory"] > 0
    assert any(name.startswith("node:") for name in total)
    eventually(lambda: ray.available_resources()["custom"] == 2, "earlier tests have given theirs back")


def test_nodes():
    [node] = ray.nodes()
    assert node["Alive"] is True
    assert node["NodeID"] == ray.get_runtime_context().get_node_id()
    assert node["Resources"]["CPU"] == 4
    assert node["NodeManagerAddress"]
    assert node["NodeManagerHostname"]


def test_is_initialized():
    @ray.remote
    def f():
        return ray.is_initialized()

    assert ray.is_initialized()
    assert ray.get(f.remote())


def test_environment_of_the_driver_is_inherited():
    @ray.remote
    def f():
        return os.environ.get("HOME"), os.environ.get("PATH") is not None

    assert ray.get(f.remote()) == (os.environ.get("HOME"), True)


def test_not_cancelled():
    @ray.remote
    class A:
        def cancelled(self):
            return ray.get_runtime_context().is_canceled()

    assert ray.get(A.remote().cancelled.remote()) is False
