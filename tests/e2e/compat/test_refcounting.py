"""Objects live as long as somebody can reach them, and no longer.

Whether an object is still there is seen by what the store has free: the clusters here are started with little room.
"""

from __future__ import annotations

import contextlib
import gc
import os

import numpy as np
import pytest
from e2e.compat.target import QUIET, eventually, exceptions, new_signal, ray

MiB = 1024 * 1024


@pytest.fixture(scope="module", autouse=True)
def small_cluster():
    ray.init(num_cpus=4, object_store_memory=200 * MiB, namespace="compat", **QUIET)
    yield
    ray.shutdown()


def used():
    """MiB of the object store in use."""
    total = ray.cluster_resources()["object_store_memory"]
    return (total - ray.available_resources().get("object_store_memory", 0)) / MiB


def array():
    """40 MiB of sevens. Remote functions spell it out, as this module is not on the workers' path."""
    return np.full(40 * MiB, 7, dtype=np.uint8)


def nothing_left():
    gc.collect()
    eventually(lambda: used() < 5, "the store is empty")


@pytest.fixture(autouse=True)
def leaves_nothing():
    nothing_left()
    yield
    nothing_left()


def test_put_object_goes_with_its_reference():
    ref = ray.put(array())
    eventually(lambda: used() >= 40, "the object is in the store")
    del ref
    eventually(lambda: used() < 5, "the object is gone")


def test_result_goes_with_its_reference():
    @ray.remote
    def make():
        return np.full(40 * 2**20, 7, dtype=np.uint8)

    ref = make.remote()
    ray.wait([ref])
    eventually(lambda: used() >= 40, "the object is in the store")
    del ref
    eventually(lambda: used() < 5, "the object is gone")


def test_second_reference_keeps_it():
    ref = ray.put(array())
    again = ref
    del ref
    gc.collect()
    assert ray.get(again)[0] == 7


def test_value_in_use_stays_readable():
    ref = ray.put(array())
    value = ray.get(ref)
    del ref
    gc.collect()
    filler = [ray.put(array()) for _ in range(2)]
    assert value.sum() == 7 * 40 * MiB
    del filler


def test_argument_of_a_running_task_stays():
    signal = new_signal()

    @ray.remote
    def use(value):
        ray.get(signal.wait.remote())
        return int(value[0])

    ref = ray.put(array())
    using = use.remote(ref)
    del ref
    gc.collect()
    ray.get(signal.send.remote())
    assert ray.get(using) == 7


def test_argument_of_a_waiting_task_stays():
    signal = new_signal()

    @ray.remote
    def use(value, _):
        return int(value[0])

    ref = ray.put(array())
    using = use.remote(ref, signal.wait.remote())
    del ref
    gc.collect()
    ray.get(signal.send.remote())
    assert ray.get(using) == 7


def test_nested_reference_is_borrowed_by_the_task():
    signal = new_signal()

    @ray.remote
    def use(box):
        ray.get(signal.wait.remote())
        return int(ray.get(box[0])[0])

    ref = ray.put(array())
    using = use.remote([ref])
    del ref
    gc.collect()
    ray.get(signal.send.remote())
    assert ray.get(using) == 7


def test_reference_kept_by_an_actor():
    @ray.remote
    class Keeper:
        def keep(self, box):
            self.ref = box[0]

        def read(self):
            return int(ray.get(self.ref)[0])

        def drop(self):
            self.ref = None

    keeper = Keeper.remote()
    ref = ray.put(array())
    ray.get(keeper.keep.remote([ref]))
    del ref
    gc.collect()
    assert ray.get(keeper.read.remote()) == 7
    eventually(lambda: used() >= 40, "the object is in the store")
    ray.get(keeper.drop.remote())
    eventually(lambda: used() < 5, "the actor dropped the last reference")


def test_reference_kept_by_an_actor_that_dies():
    @ray.remote
    class Keeper:
        def keep(self, box):
            self.ref = box[0]

    keeper = Keeper.remote()
    ref = ray.put(array())
    ray.get(keeper.keep.remote([ref]))
    del ref
    eventually(lambda: used() >= 40, "the object is in the store")
    ray.kill(keeper)
    eventually(lambda: used() < 5, "the borrower is dead")


def test_reference_passed_on_by_a_borrower():
    signal = new_signal()

    @ray.remote
    def last(box):
        ray.get(signal.wait.remote())
        return int(ray.get(box[0])[0])

    @ray.remote
    def middle(box):
        return [last.remote(box)]

    ref = ray.put(array())
    [using] = ray.get(middle.remote([ref]))
    del ref
    gc.collect()
    ray.get(signal.send.remote())
    assert ray.get(using) == 7


def test_outer_object_keeps_the_inner_one():
    inner = ray.put(array())
    outer = ray.put({"inner": inner})
    del inner
    gc.collect()
    assert int(ray.get(ray.get(outer)["inner"])[0]) == 7
    del outer
    eventually(lambda: used() < 5, "both are gone")


def test_reference_in_a_result():
    @ray.remote
    def make():
        return [ray.put(np.full(40 * 2**20, 7, dtype=np.uint8))]

    box = make.remote()
    [inner] = ray.get(box)
    del box
    gc.collect()
    assert int(ray.get(inner)[0]) == 7


def test_result_with_references_that_nobody_reads():
    @ray.remote
    def make():
        return [ray.put(np.full(40 * 2**20, 7, dtype=np.uint8))]

    box = make.remote()
    ray.wait([box])
    del box
    eventually(lambda: used() < 5, "inner and outer object are gone")


def test_chain_of_nested_references():
    ref = ray.put(array())
    for _ in range(10):
        ref = ray.put([ref])
    gc.collect()
    for _ in range(10):
        [ref] = ray.get(ref)
    assert int(ray.get(ref)[0]) == 7


def test_reference_returned_to_its_owner():
    @ray.remote
    def echo(box):
        return box

    ref = ray.put(array())
    [again] = ray.get(echo.remote([ref]))
    assert again == ref
    del ref
    gc.collect()
    assert int(ray.get(again)[0]) == 7


def test_several_returns_go_one_by_one():
    @ray.remote(num_returns=2)
    def make():
        return np.full(40 * 2**20, 7, dtype=np.uint8), np.full(40 * 2**20, 7, dtype=np.uint8)

    a, b = make.remote()
    ray.wait([a, b], num_returns=2)
    eventually(lambda: used() >= 80, "both are in the store")
    del a
    eventually(lambda: used() < 60, "the first is gone")
    assert int(ray.get(b)[0]) == 7


def test_results_of_a_failed_task_hold_nothing():
    @ray.remote
    def fail(value):
        raise ValueError("x")

    ref = fail.remote(ray.put(array()))
    with pytest.raises(ValueError, match="x"):
        ray.get(ref)
    del ref


def test_captured_reference_of_a_finished_task():
    @ray.remote
    def outer():
        ref = ray.put(np.full(40 * 2**20, 7, dtype=np.uint8))

        @ray.remote
        def inner(box):
            return int(ray.get(box[0])[0])

        return ray.get(inner.remote([ref]))

    assert ray.get(outer.remote()) == 7


def test_object_of_a_dead_owner():
    @ray.remote
    class Owner:
        def make(self):
            return [ray.put(np.full(40 * 2**20, 7, dtype=np.uint8))]

        def pid(self):
            return os.getpid()

    owner = Owner.remote()
    [ref] = ray.get(owner.make.remote())
    ray.kill(owner)
    with pytest.raises(exceptions.RayActorError):
        ray.get(owner.pid.remote(), timeout=60)

    def lost():
        try:
            ray.get(ref, timeout=60)
        except exceptions.OwnerDiedError:
            return True
        return False

    eventually(lost, "the object is lost with its owner")


def test_loop_over_more_than_the_store_holds():
    @ray.remote
    def use(value):
        return int(value[-1])

    for _ in range(12):
        assert ray.get(use.remote(ray.put(array()))) == 7


def test_thousand_references_in_one_object():
    refs = [ray.put(i) for i in range(1000)]
    box = ray.put(refs)
    del refs
    gc.collect()
    assert sum(ray.get(ray.get(box))) == 499_500


def test_a_handle_in_a_cycle_of_references_does_not_hold_its_cpus_for_ever():
    """The garbage collector alone finds it; it runs when something waits for resources."""

    @ray.remote(num_cpus=4)
    class Holder:
        def ping(self):
            return 1

    gc.disable()
    try:
        for _ in range(2):
            holder = Holder.remote()
            cycle = [holder]
            cycle.append(cycle)
            assert ray.get(holder.ping.remote(), timeout=60) == 1
            del holder, cycle
        task = ray.remote(num_cpus=4)(lambda: 2)
        assert ray.get(task.remote(), timeout=60) == 2
    finally:
        gc.enable()


@pytest.mark.parametrize("end", ["raises", "dies"])
def test_an_error_that_is_caught_keeps_nothing_of_its_callers(end):
    @ray.remote(max_retries=0)
    def fail():
        if end == "dies":
            os._exit(1)
        raise ValueError

    def catch():
        ref = ray.put(array())
        with contextlib.suppress(Exception):
            ray.get(fail.remote())
        return ref.hex()

    nothing_left()
    gc.disable()
    try:
        catch()
        eventually(lambda: used() < 5, "the store is empty")
    finally:
        gc.enable()
