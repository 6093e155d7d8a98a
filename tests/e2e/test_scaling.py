"""Many of everything at once, on sizes of a few seconds: nothing is lost, and every value is the right one."""

from __future__ import annotations

import gc
import os

import pytest
from support.processes import PATIENCE_S

import shoal


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with shoal.init(num_cpus=2, logging_level="ERROR", log_to_driver=False):
        yield


@shoal.remote
def double(x):
    return 2 * x


@shoal.remote(num_cpus=0)
class Counter:
    def __init__(self, start):
        self.n = start

    def add(self, by):
        self.n += by
        return self.n


@shoal.remote(num_cpus=0)
class Summer:
    async def add(self, x, y):
        return x + y


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_hundred_thousand_tasks():
    before = resident_bytes()
    refs = [double.remote(x) for x in range(100_000)]
    assert shoal.get(refs, timeout=PATIENCE_S) == list(range(0, 200_000, 2))
    # A million must fit into 2 GB.
    assert resident_bytes() - before < 200 << 20


def test_memory_of_finished_tasks_comes_back():
    def run():
        assert len(shoal.get([double.remote(x) for x in range(20_000)], timeout=PATIENCE_S)) == 20_000
        gc.collect()

    run()
    before = resident_bytes()
    for _ in range(4):
        run()
    assert resident_bytes() - before < 20 << 20


def test_thousand_calls_in_flight_to_each_of_twenty_actors():
    actors = [Counter.remote(number * 10_000) for number in range(20)]
    # Turn by turn, so that all of them have calls under way at once.
    refs = [actor.add.remote(1) for _ in range(1000) for actor in actors]
    values = shoal.get(refs, timeout=PATIENCE_S)
    for number in range(20):
        assert values[number::20] == list(range(number * 10_000 + 1, number * 10_000 + 1001))


def test_thousand_calls_in_flight_to_async_actors():
    actors = [Summer.remote() for _ in range(10)]
    refs = [actor.add.remote(x, number) for x in range(1000) for number, actor in enumerate(actors)]
    assert shoal.get(refs, timeout=PATIENCE_S) == [x + number for x in range(1000) for number in range(10)]


def test_twenty_thousand_references_held():
    refs = [shoal.put(("value", x)) for x in range(20_000)]
    # With all of them alive, calls and objects work as before.
    assert shoal.get([double.remote(x) for x in range(100)], timeout=PATIENCE_S) == list(range(0, 200, 2))
    assert shoal.get(double.remote(refs[7]), timeout=PATIENCE_S) == ("value", 7) * 2
    assert shoal.get(refs) == [("value", x) for x in range(20_000)]
    del refs[::2]
    gc.collect()
    assert shoal.get(refs) == [("value", x) for x in range(1, 20_000, 2)]


def test_twenty_thousand_results_held():
    refs = [double.remote(x) for x in range(20_000)]
    ready, rest = shoal.wait(refs, num_returns=20_000, timeout=PATIENCE_S)
    assert (len(ready), rest) == (20_000, [])
    assert shoal.get(refs[::-1]) == list(range(39_998, -2, -2))


def test_object_with_ten_thousand_references():
    @shoal.remote
    def total(refs):
        return sum(shoal.get(refs))

    inner = [shoal.put(x) for x in range(10_000)]
    outer = shoal.put(inner)
    del inner
    gc.collect()
    assert shoal.get(total.remote(outer), timeout=PATIENCE_S) == sum(range(10_000))


def test_task_with_a_thousand_arguments():
    @shoal.remote
    def total(*args):
        return sum(args)

    refs = [double.remote(x) for x in range(1000)]
    assert shoal.get(total.remote(*refs), timeout=PATIENCE_S) == 2 * sum(range(1000))


def test_task_with_a_thousand_results():
    @shoal.remote(num_returns=1000)
    def many():
        return tuple(range(1000))

    assert shoal.get(many.remote(), timeout=PATIENCE_S) == list(range(1000))


def test_chain_of_thousand_tasks():
    ref = shoal.put(1)
    for _ in range(1000):
        ref = _add_one.remote(ref)
    assert shoal.get(ref, timeout=PATIENCE_S) == 1001


@shoal.remote
def _add_one(x):
    return x + 1


def test_hundred_actors():
    actors = [Counter.remote(number) for number in range(100)]
    assert shoal.get([actor.add.remote(1) for actor in actors], timeout=PATIENCE_S) == list(range(1, 101))


def test_two_thousand_large_objects():
    """Each a little over what is kept in memory, so that all go through the store."""
    refs = [shoal.put(bytes([x % 256]) * 110_000) for x in range(2000)]
    for x in range(0, 2000, 7):
        assert shoal.get(refs[x]) == bytes([x % 256]) * 110_000
