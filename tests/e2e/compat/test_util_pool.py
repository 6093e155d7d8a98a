"""ray.util.multiprocessing, ray.util.joblib: pools as the standard library has them; ray.experimental."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest
from e2e.compat.target import IS_RAY, better_than_ray, eventually, exceptions, new_signal, ray, submodule

pytestmark = pytest.mark.usefixtures("cluster")


def square(x):
    return x * x


def add(x, y):
    return x + y


@pytest.fixture(scope="module")
def pool_class():
    return submodule("util.multiprocessing").Pool


@pytest.fixture(scope="module")
def pool(cluster, pool_class):
    pool = pool_class(2)
    yield pool
    pool.terminate()
    pool.join()


def test_map(pool):
    assert pool.map(square, range(10)) == [x * x for x in range(10)]
    assert pool.map(square, [], chunksize=1) == []
    assert pool.map(lambda x: x + 1, range(5), chunksize=2) == [1, 2, 3, 4, 5]


def test_starmap(pool):
    assert pool.starmap(add, [(1, 2), (3, 4)]) == [3, 7]
    assert pool.starmap_async(add, [(1, 2), (3, 4)]).get(timeout=60) == [3, 7]


def test_imap(pool):
    assert list(pool.imap(square, range(10))) == [x * x for x in range(10)]
    assert sorted(pool.imap_unordered(square, range(10), chunksize=3)) == [x * x for x in range(10)]


def test_apply(pool):
    assert pool.apply(add, (1,), {"y": 2}) == 3
    result = pool.apply_async(square, (4,))
    assert result.get(timeout=60) == 16
    assert result.ready()
    assert result.successful()


def test_callbacks(pool):
    told = []
    pool.apply_async(square, (4,), callback=told.append).get(timeout=60)
    pool.map_async(square, range(3), callback=told.append).get(timeout=60)
    failing = pool.apply_async(lambda: 1 / 0, error_callback=told.append)
    failing.wait(60)
    assert not failing.successful()
    assert told[0] == 16
    assert sorted(told[1]) == [0, 1, 4]
    assert isinstance(getattr(told[2], "underlying", told[2]), ZeroDivisionError)  # Ray wraps it


def test_errors(pool):
    with pytest.raises(ZeroDivisionError):
        pool.map(lambda x: 1 / x, [1, 0])
    with pytest.raises(ZeroDivisionError):
        pool.apply(lambda: 1 / 0)
    assert pool.apply(square, (2,)) == 4


def test_work_is_spread(pool):
    signal = new_signal()

    def wait(_):
        ray.get(signal.wait.remote())
        return os.getpid()

    pids = pool.map_async(wait, range(2), chunksize=1)
    eventually(lambda: ray.get(signal.waiters.remote()) == 2, "both run at once")
    ray.get(signal.send.remote())
    assert len(set(pids.get(timeout=120))) == 2


def test_work_behind_a_long_chunk_goes_to_others(pool):
    signal = new_signal()

    def meet(number):
        if number in (200, 201):
            ray.get(signal.wait.remote())
        return number

    numbers = pool.map_async(meet, range(400), chunksize=1)
    eventually(lambda: ray.get(signal.waiters.remote()) == 2, "both run at once, after many short ones")
    ray.get(signal.send.remote())
    assert numbers.get(timeout=120) == list(range(400))


@better_than_ray
def test_when_an_actor_dies_only_the_chunk_that_it_ran_fails(pool):
    def end(number):
        return os._exit(1) if number == 200 else number

    results = pool.imap_unordered(end, range(400))
    ended, failed = [], 0
    for _ in range(400):
        try:
            ended.append(results.next(timeout=120))
        except exceptions.RayActorError:
            failed += 1
    assert failed == 1
    assert sorted(ended) == [number for number in range(400) if number != 200]


def test_values_and_results_of_every_kind(pool):
    kinds = [1, "two", b"3", None, [4], (5,), {"six": 6}, {7}]
    assert pool.map(lambda value: value, kinds, chunksize=1) == kinds
    assert pool.map(lambda value: [value], range(4), chunksize=1) == [[0], [1], [2], [3]]
    ref = ray.put(8)
    assert pool.map(lambda _: ray.get(ref), range(4), chunksize=1) == [8] * 4
    with pytest.raises(ZeroDivisionError):
        pool.map(lambda value: 1 // value, [1, 0, 2], chunksize=1)


def test_timeout(pool):
    with pytest.raises(multiprocessing.TimeoutError):
        pool.apply_async(time.sleep, (1,)).get(timeout=0.01)


def test_initializer(pool_class):
    def remember(value):
        os.environ["POOL_VALUE"] = value

    with pool_class(2, initializer=remember, initargs=("7",)) as pool:
        assert pool.map(lambda _: os.environ["POOL_VALUE"], range(4), chunksize=1) == ["7"] * 4


def test_processes_are_replaced(pool_class):
    pool = pool_class(1, maxtasksperchild=2)
    pids = pool.map(lambda _: os.getpid(), range(6), chunksize=1)
    assert len(set(pids)) == 3
    pool.close()
    pool.join()


def test_closed_pool(pool_class):
    pool = pool_class(1)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    result = pool.map_async(square, range(3))
    pool.close()
    assert result.get(timeout=60) == [0, 1, 4]
    with pytest.raises(ValueError, match="not running"):
        pool.map(square, [1])
    pool.join()


def test_terminated_pool(pool_class):
    pool = pool_class(1)
    one = pool.apply_async(time.sleep, (1000,))
    several = pool.map_async(time.sleep, [1000] * 5, chunksize=2)
    ordered = pool.imap(time.sleep, [1000] * 3)
    unordered = pool.imap_unordered(time.sleep, [1000] * 3)
    pool.terminate()
    pool.join()
    for result in (one, several):
        with pytest.raises(exceptions.RayError):
            result.get(timeout=60)
    if IS_RAY:
        return  # its iterators wait for ever
    for results in (ordered, unordered):
        with pytest.raises(exceptions.TaskCancelledError, match="pool was terminated"):
            results.next(timeout=60)
        with pytest.raises(StopIteration):
            results.next(timeout=60)


def test_names_that_go_with_the_pool():
    module = submodule("util.multiprocessing")
    assert module.TimeoutError is multiprocessing.TimeoutError
    queue = module.JoinableQueue()
    queue.put(1)
    assert queue.get(timeout=60) == 1
    queue.task_done()
    queue.join()
    queue.close()
    queue.join_thread()


@better_than_ray  # which says nothing
def test_context_of_a_pool_is_refused(pool_class):
    with pytest.raises(ValueError, match=r"context=.* is not implemented"):
        pool_class(1, context=multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("processes", [0, -1, 100])
def test_bad_number_of_processes(pool_class, processes):
    with pytest.raises(ValueError, match=r"[Pp]rocesses"):
        pool_class(processes)


def test_joblib():
    joblib = pytest.importorskip("joblib")
    submodule("util.joblib").register_ray()
    with joblib.parallel_backend("ray", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(square)(x) for x in range(20)) == [x * x for x in range(20)]
        with pytest.raises(ZeroDivisionError):
            joblib.Parallel()(joblib.delayed(lambda x: 1 / x)(x) for x in range(3))


def test_object_locations():
    numpy = pytest.importorskip("numpy")
    small, large = ray.remote(square).remote(1), ray.put(numpy.zeros(1_000_000))
    ray.get(small)
    locations = submodule("experimental").get_object_locations([small, large])
    here = ray.get_runtime_context().get_node_id()
    if not IS_RAY:  # which keeps small results nowhere
        assert locations[small]["node_ids"] == [here]
    assert locations[large]["node_ids"] == [here]
    assert locations[large]["object_size"] >= 8_000_000
    put = ray.put("small")
    found = submodule("experimental").get_object_locations([put])[put]
    assert found["node_ids"] == [here]
    assert found["object_size"] > 0
