"""ray.util: ActorPool, Queue, iterators over results, inspection."""

from __future__ import annotations

import queue as stdlib_queue
import threading

import pytest
from e2e.compat.target import new_signal, ray, submodule

pytestmark = pytest.mark.usefixtures("cluster")
util = submodule("util")


@pytest.fixture(scope="module")
def workers():
    @ray.remote
    class Worker:
        def double(self, x):
            return 2 * x

        def fail(self, x):
            raise ValueError(x)

        def hold(self, box):
            return ray.get(box[0])

    return Worker


# --- ActorPool ---------------------------------------------------------------------------------------------------


def test_pool_map(workers):
    pool = util.ActorPool([workers.remote() for _ in range(2)])
    assert list(pool.map(lambda a, v: a.double.remote(v), range(10))) == [2 * i for i in range(10)]
    assert sorted(pool.map_unordered(lambda a, v: a.double.remote(v), range(10))) == [2 * i for i in range(10)]


def test_pool_submit_and_get_next(workers):
    pool = util.ActorPool([workers.remote() for _ in range(2)])
    for i in range(5):
        pool.submit(lambda a, v: a.double.remote(v), i)
    results = []
    while pool.has_next():
        results.append(pool.get_next())
    assert results == [0, 2, 4, 6, 8]
    with pytest.raises(StopIteration):
        pool.get_next()


def test_pool_get_next_unordered(workers):
    signal = new_signal()
    pool = util.ActorPool([workers.remote() for _ in range(2)])
    pool.submit(lambda a, v: a.hold.remote(v), [signal.wait.remote()])
    pool.submit(lambda a, v: a.double.remote(v), 4)
    assert pool.get_next_unordered(timeout=60) == 8
    with pytest.raises(TimeoutError):
        pool.get_next_unordered(timeout=0.1)
    ray.get(signal.send.remote())
    assert pool.get_next_unordered(timeout=60) is None
    assert not pool.has_next()


def test_pool_get_next_timeout(workers):
    signal = new_signal()
    pool = util.ActorPool([workers.remote()])
    pool.submit(lambda a, v: a.hold.remote(v), [signal.wait.remote()])
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0.1)
    ray.get(signal.send.remote())
    assert pool.get_next(timeout=60) is None


def test_pool_push_and_pop(workers):
    one, two = workers.remote(), workers.remote()
    pool = util.ActorPool([one])
    assert pool.has_free()
    assert pool.pop_idle() == one
    assert not pool.has_free()
    assert pool.pop_idle() is None
    pool.push(two)
    with pytest.raises(ValueError, match="already belongs"):
        pool.push(two)
    pool.submit(lambda a, v: a.double.remote(v), 1)
    assert pool.get_next() == 2


def test_pool_error(workers):
    pool = util.ActorPool([workers.remote()])
    pool.submit(lambda a, v: a.fail.remote(v), "in the pool")
    with pytest.raises(ValueError, match="in the pool"):
        pool.get_next()
    pool.submit(lambda a, v: a.double.remote(v), 3)
    assert pool.get_next() == 6


# --- Queue ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def queue_module():
    return submodule("util.queue")


def test_queue_order(queue_module):
    queue = queue_module.Queue()
    for i in range(10):
        queue.put(i)
    assert queue.qsize() == 10
    assert [queue.get() for _ in range(10)] == list(range(10))
    assert queue.empty()
    queue.shutdown()


def test_queue_limits(queue_module):
    queue = queue_module.Queue(maxsize=2)
    queue.put_nowait(1)
    queue.put_nowait(2)
    assert queue.full()
    with pytest.raises(queue_module.Full):
        queue.put_nowait(3)
    with pytest.raises(stdlib_queue.Full):
        queue.put(3, timeout=0.1)
    assert queue.get_nowait() == 1
    queue.put(3)
    assert [queue.get(), queue.get()] == [2, 3]
    with pytest.raises(queue_module.Empty):
        queue.get_nowait()
    with pytest.raises(stdlib_queue.Empty):
        queue.get(timeout=0.1)
    with pytest.raises(stdlib_queue.Empty):
        queue.get(block=False)
    queue.shutdown()


@pytest.mark.parametrize("method", ["put", "get"])
def test_queue_negative_timeout(queue_module, method):
    queue = queue_module.Queue()
    arguments = (1,) if method == "put" else ()
    with pytest.raises(ValueError, match="non-negative"):
        getattr(queue, method)(*arguments, timeout=-1)
    queue.shutdown()


def test_queue_batches(queue_module):
    queue = queue_module.Queue(maxsize=5)
    queue.put_nowait_batch([1, 2, 3])
    with pytest.raises(queue_module.Full):
        queue.put_nowait_batch([4, 5, 6])
    assert queue.get_nowait_batch(2) == [1, 2]
    with pytest.raises(queue_module.Empty):
        queue.get_nowait_batch(2)
    with pytest.raises(TypeError):
        queue.put_nowait_batch(1)
    with pytest.raises(TypeError):
        queue.get_nowait_batch("2")
    queue.shutdown()


def test_queue_between_tasks(queue_module):
    queue = queue_module.Queue(maxsize=3)

    @ray.remote
    def produce(q, n):
        for i in range(n):
            q.put(i)
        return "done"

    producing = produce.remote(queue, 20)
    assert [queue.get() for _ in range(20)] == list(range(20))
    assert ray.get(producing) == "done"
    queue.shutdown()


async def test_queue_async(queue_module):
    queue = queue_module.Queue()
    await queue.put_async(1)
    assert await queue.get_async() == 1
    with pytest.raises(queue_module.Empty):
        await queue.get_async(block=False)
    queue.shutdown()


def test_queue_actor_options(queue_module):
    queue = queue_module.Queue(actor_options={"num_cpus": 0, "name": "queue-actor"})
    queue.put(1)
    assert ray.get_actor("queue-actor")
    assert queue.size() == len(queue) == 1
    queue.shutdown(force=True)


# --- iterators -------------------------------------------------------------------------------------------------------


def test_as_completed():
    @ray.remote
    def f(i):
        return i

    assert sorted(util.as_completed([f.remote(i) for i in range(20)])) == list(range(20))
    assert list(util.as_completed([])) == []


def test_as_completed_yields_ready_ones_first():
    signal = new_signal()

    @ray.remote
    def quick():
        return "quick"

    results = util.as_completed([signal.wait.remote(), quick.remote()], chunk_size=1)
    assert next(results) == "quick"
    ray.get(signal.send.remote())
    assert list(results) == [None]


def test_map_unordered():
    @ray.remote
    def double(x):
        return 2 * x

    assert sorted(util.map_unordered(double, range(20), backpressure_size=5)) == [2 * i for i in range(20)]


# --- inspection ------------------------------------------------------------------------------------------------------


def test_inspect_serializability(capsys):
    assert util.inspect_serializability(1)[0] is True
    lock = threading.Lock()

    def closes_over_lock():
        return lock

    good, failures = util.inspect_serializability(closes_over_lock, name="closes_over_lock")
    assert not good
    assert ("closes_over_lock", "lock") in {failure.path for failure in failures}
    assert "closes_over_lock" in capsys.readouterr().out


def test_inspect_serializability_of_a_method():
    class Holder:
        def __init__(self):
            self.lock = threading.Lock()

    good, failures = util.inspect_serializability(Holder(), name="holder")
    assert not good
    assert ("holder", "lock") in {failure.path for failure in failures}


def test_node_ip_address():
    address = util.get_node_ip_address()
    assert address.count(".") == 3 or ":" in address
