"""Containers are killed, paused, cut off and scaled while a driver works."""

from __future__ import annotations

from typing import Any

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
        alive=sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes()),
    )
"""

#: Has an actor that may come back, and a large object, both on a node where the driver is not; uses them when told.
ELSEWHERE = """
import numpy as np

ray.init()
here = ray.get_runtime_context().get_node_id()
node = next(node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here and node["Resources"].get("CPU"))
there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)

@ray.remote(num_cpus=0, max_restarts=1, max_task_retries=1, scheduling_strategy=there)
class Actor:
    def node(self):
        return ray.get_runtime_context().get_node_id()

@ray.remote(scheduling_strategy=there)
def make():
    return np.arange(1_000_000)

actor, large = Actor.remote(), make.remote()
ray.wait([large], fetch_local=False)
report(there=ray.get(actor.node.remote()) == node["NodeID"], host=node["NodeManagerAddress"])
command()
report(moved=ray.get(actor.node.remote()) != node["NodeID"], sum=int(ray.get(large).sum()))
command()
"""
SUM = sum(range(1_000_000))

#: Says where it is, where the nodes are, and runs tasks all over them at each word.
EVERYWHERE = """
@ray.remote(scheduling_strategy="SPREAD")
def square(n):
    return n * n

ray.init()
here = ray.get_runtime_context().get_node_id()
while True:
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    living = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
    squares = ray.get([square.remote(n) for n in range(12)])
    report(here=living[here], others=[host for node, host in living.items() if node != here], squares=squares)
    if not command():
        break
"""
SQUARES = [n * n for n in range(12)]


def works(driver: Driver, *, nodes: int = 3) -> None:
    """Old and new actors and tasks, on so many nodes with CPUs."""
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
        eventually(lambda: health(active) == "healthy", "the killed GCS is back")
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
        eventually(lambda: health(first) == "healthy", "the killed scheduler is back")
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
        eventually(lambda: health(nats) == "healthy", "NATS is back")
        works(driver)


def test_the_cluster_grows_and_shrinks(shaken: Stack) -> None:
    with shaken.driver(WORKING) as driver:
        works(driver, nodes=3)
        shaken.up(raylet=5)
        works(driver, nodes=5)
        shaken.up(raylet=3)
        works(driver, nodes=3)


def raylet_at(stack: Stack, host: str) -> Any:
    [raylet] = [raylet for raylet in stack.running("raylet") if stack.address_of(raylet) == host]
    return raylet


def test_a_raylet_that_is_stopped_hands_on_what_it_has(shaken: Stack) -> None:
    with shaken.driver(ELSEWHERE) as driver:
        facts = driver.report()
        assert facts["there"]
        raylet = raylet_at(shaken, facts["host"])
        raylet.stop(timeout=60)
        raylet.reload()
        assert raylet.attrs["State"]["ExitCode"] == 0
        driver.tell("use")
        assert driver.report() == {"moved": True, "sum": SUM}


def others_of(driver: Driver) -> int:
    """How many nodes it sees besides its own; its tasks ran on them."""
    driver.tell("again")
    facts = driver.report()
    assert facts["squares"] == SQUARES
    return len(facts["others"])


@pytest.mark.parametrize("way", ["killed", "cut off"])
def test_a_node_is_lost_and_comes_back(shaken: Stack, way: str) -> None:
    with shaken.driver(EVERYWHERE) as driver:
        raylet = raylet_at(shaken, driver.report()["others"][0])
        if way == "killed":
            raylet.kill()
        else:
            shaken.network().disconnect(raylet)
        eventually(lambda: others_of(driver) == 1, "the node is dead")
        if way == "killed":
            raylet.start()
        else:
            shaken.network().connect(raylet, aliases=["raylet"])
        eventually(lambda: others_of(driver) == 2, "there is a node again")


#: Has on another node: an actor, a task's result, and something that the actor owns.
BEYOND = """
import socket
import numpy as np

ray.init()
here = ray.get_runtime_context().get_node_id()
nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
hosts = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}
far = next(node for node in hosts if node != here)
on = lambda node: ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=True)

@ray.remote(num_cpus=0)
class Counter:
    def __init__(self):
        self.count = 0
    def add(self, n):
        self.count += n
        return self.count
    def put(self):
        return [ray.put("theirs")]

@ray.remote(num_cpus=0, scheduling_strategy=on(far))
def make():
    return np.arange(1_000_000)

def outcome(ref, timeout=60):
    try:
        value = ray.get(ref, timeout=timeout)
    except ray.exceptions.ShoalError as error:
        return f"{type(error).__name__}: {error}"
    return int(value.sum()) if isinstance(value, np.ndarray) else value

counter = Counter.options(scheduling_strategy=on(far)).remote()
ray.get(make.remote())  # the raylets have a connection
made = make.remote()
ray.wait([made], fetch_local=False)
[theirs] = ray.get(counter.put.remote())
report(far=hosts[far], raylet=hosts[here], driver=socket.gethostbyname(socket.gethostname()))
"""

#: Until the raylet has asked the other one in vain.
AWAY = """
command()
while "has not answered" not in (text := outcome(made, 1)):
    assert text.startswith("GetTimeoutError"), text
report(made=text, add=outcome(counter.add.remote(1)))
command()
report(made=outcome(made), theirs=outcome(theirs), add=outcome(counter.add.remote(1)))
command()
"""

CUT_OFF = """
command()
call, quick = counter.add.remote(1), outcome(made, 1)
time.sleep(20)  # the fault itself
report(made=quick, ready=len(ray.wait([call, theirs], timeout=0)[0]))
command()
report(call=outcome(call), theirs=outcome(theirs), made=outcome(made), add=outcome(counter.add.remote(1)))
command()
"""


def test_raylets_that_are_cut_from_each_other_go_on_afterwards(stack: Stack) -> None:
    with stack.driver(BEYOND + AWAY) as driver:
        places = driver.report()
        with stack.cut(raylet_at(stack, places["far"]), places["raylet"]):
            driver.tell("cut")
            assert driver.report()["add"] == 1, "the driver itself reaches the other node"
        driver.tell("healed")
        assert driver.report() == {"made": SUM, "theirs": "theirs", "add": 2}


def test_a_driver_that_is_cut_from_a_node_has_lost_nothing_afterwards(stack: Stack) -> None:
    with stack.driver(BEYOND + CUT_OFF) as driver:
        places = driver.report()
        with stack.cut(raylet_at(stack, places["far"]), places["raylet"], places["driver"]):
            driver.tell("cut")
            facts = driver.report()
        assert facts["made"].startswith("GetTimeoutError: ") and facts["ready"] == 0
        driver.tell("healed")
        assert driver.report() == {"call": 1, "theirs": "theirs", "made": SUM, "add": 2}
