"""Containers are killed, paused, cut off and scaled while a driver works."""

from __future__ import annotations

import pytest
from support.drivers import Driver
from support.processes import eventually
from support.stack import Stack, health

#: Makes a new actor and runs tasks at each word it is told, and says which nodes live.
WORKING = """
@ray.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.n = 0
    def add(self):
        self.n += 1
        return self.n

@ray.remote
def square(n):
    return n * n

ray.init()
first = Counter.remote()
calls = 0
while word := command():
    calls += 1
    fresh = Counter.remote()
    report(
        squares=ray.get([square.remote(n) for n in range(8)]),
        first=ray.get(first.add.remote()) == calls,
        fresh=ray.get(fresh.add.remote()),
        alive=sum(node["Alive"] for node in ray.nodes()),
    )
"""


def works(driver: Driver, *, nodes: int = 3) -> None:
    """Old and new actors and tasks, on so many nodes."""
    driver.tell("work")
    expected = {"squares": [n * n for n in range(8)], "first": True, "fresh": 1, "alive": nodes}
    assert driver.report() == expected


def test_the_standby_takes_over_when_the_active_gcs_is_killed(shaken: Stack) -> None:
    with shaken.driver(WORKING) as driver:
        works(driver)
        active = shaken.active_gcs()
        active.kill()
        works(driver)
        assert shaken.active_gcs().id != active.id
        # And back: the other one is a standby by now.
        active.start()
        eventually(lambda: health(active) == "healthy", "the killed GCS is back", within=60)
        shaken.active_gcs().kill()
        works(driver)
        assert shaken.active_gcs().id == active.id


def test_a_gcs_that_is_stopped_hands_over(shaken: Stack) -> None:
    with shaken.driver(WORKING) as driver:
        works(driver)
        active = shaken.active_gcs()
        active.stop(timeout=10)
        active.reload()
        assert active.attrs["State"]["ExitCode"] == 0
        works(driver)
        assert shaken.active_gcs().id != active.id


def test_one_scheduler_is_enough(shaken: Stack) -> None:
    with shaken.driver(WORKING) as driver:
        works(driver)
        first, second = shaken.running("scheduler")
        first.kill()
        works(driver)
        first.start()
        eventually(lambda: health(first) == "healthy", "the killed scheduler is back", within=60)
        second.kill()
        works(driver)


@pytest.mark.parametrize("shard", ["etcd-1", "etcd-2"])
def test_while_a_shard_hangs_creations_wait_and_nothing_is_lost(shaken: Stack, shard: str) -> None:
    with shaken.driver(WORKING) as driver:
        works(driver)
        container = shaken.running(shard)[0]
        container.pause()
        driver.tell("work")
        driver.tell("work")
        container.unpause()
        for _ in range(2):
            assert driver.report()["fresh"] == 1
        works(driver)


def test_a_killed_shard_comes_back_with_its_data(shaken: Stack) -> None:
    with shaken.driver(WORKING) as driver:
        works(driver)
        container = shaken.running("etcd-2")[0]
        container.kill()
        driver.tell("work")
        container.start()
        assert driver.report()["first"]
        works(driver)


def test_nobody_is_dead_for_the_silence_of_nats(shaken: Stack) -> None:
    with shaken.driver(WORKING) as driver:
        works(driver)
        [nats] = shaken.running("nats")
        nats.kill()
        works(driver)
        nats.start()
        eventually(lambda: health(nats) == "healthy", "NATS is back", within=60)
        works(driver)


def test_the_cluster_grows_and_shrinks(shaken: Stack) -> None:
    with shaken.driver(WORKING) as driver:
        works(driver, nodes=3)
        shaken.up(raylets=5)
        works(driver, nodes=5)
        shaken.up(raylets=3)
        works(driver, nodes=3)
