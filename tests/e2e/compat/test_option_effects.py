"""Options whose effect no other page of this suite shows, and numbers of numpy in place of Python's."""

from __future__ import annotations

import numpy as np
import pytest
from e2e.compat.target import new_signal, ray, submodule

pytestmark = pytest.mark.usefixtures("cluster")


def test_name_of_a_task():
    @ray.remote
    def named():
        return ray.get_runtime_context().get_task_name()

    assert ray.get(named.options(name="my task").remote()) == "my task"
    assert ray.get(named.remote()).endswith("named")


@pytest.mark.parametrize("options", [{"max_restarts": 0}, {"max_concurrency": 2}], ids=["plain", "threaded"])
def test_name_of_a_call(options):
    @ray.remote(**options)
    class Named:
        def who(self):
            return ray.get_runtime_context().get_task_name()

    actor = Named.remote()
    assert ray.get(actor.who.options(name="my call").remote()) == "my call"
    assert ray.get(actor.who.remote()) == "Named.who"


def test_name_of_a_call_of_an_async_actor():
    @ray.remote
    class Named:
        async def who(self):
            return ray.get_runtime_context().get_task_name()

    assert ray.get(Named.remote().who.options(name="my call").remote()) == "my call"


def test_calls_out_of_order():
    """A later call need not wait for the arguments of an earlier one."""

    @ray.remote(num_cpus=0)
    def after(gate):
        ray.get(gate.wait.remote())

    @ray.remote(allow_out_of_order_execution=True)
    class Actor:
        def call(self, _):
            return "called"

    gate, actor = new_signal(), Actor.remote()
    held_up = actor.call.remote(after.remote(gate))
    assert ray.get(actor.call.remote(1), timeout=60) == "called"
    ray.get(gate.send.remote())
    assert ray.get(held_up, timeout=60) == "called"


# -- numbers of numpy -------------------------------------------------------------------------------------------------


@ray.remote
def two():
    return 1, 2


@ray.remote
class Actor:
    def two(self):
        return 1, 2


def test_numpy_numbers_as_times_and_counts():
    refs = [two.remote(), two.remote()]
    assert len(ray.wait(refs, num_returns=np.int64(2), timeout=np.float32(60))[0]) == 2
    assert ray.get(refs, timeout=np.float32(60)) == [(1, 2), (1, 2)]
    assert ray.get(refs[0], timeout=np.int64(60)) == (1, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"num_cpus": np.float32(0.5)},
        {"num_cpus": np.int64(1)},
        {"resources": {"custom": np.int64(1)}},
        {"memory": np.int64(1000)},
        {"max_retries": np.int32(1)},
    ],
    ids=str,
)
def test_numpy_numbers_as_options(options):
    assert ray.get(two.options(**options).remote(), timeout=60) == (1, 2)


def test_numpy_numbers_as_numbers_of_results():
    assert ray.get(two.options(num_returns=np.int64(2)).remote(), timeout=60) == [1, 2]
    actor = Actor.options(max_restarts=np.int64(1), max_concurrency=np.int64(2)).remote()
    assert ray.get(actor.two.options(num_returns=np.int64(2)).remote(), timeout=60) == [1, 2]


def test_numpy_numbers_in_bundles():
    groups, strategies = submodule("util"), submodule("util.scheduling_strategies")
    group = groups.placement_group([{"CPU": np.float64(1)}, {"CPU": np.int64(1)}])
    assert group.wait(np.float32(60))
    strategy = strategies.PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=np.int64(1))
    assert ray.get(two.options(scheduling_strategy=strategy).remote(), timeout=60) == (1, 2)
    groups.remove_placement_group(group)


def test_numpy_numbers_of_a_queue():
    queue = submodule("util.queue").Queue(np.int64(2))
    queue.put(1, timeout=np.float32(60))
    queue.put(2)
    assert queue.get(timeout=np.float32(60)) == 1
    assert queue.get_nowait_batch(np.int64(1)) == [2]
    queue.shutdown()
