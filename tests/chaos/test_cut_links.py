"""A link between two nodes that live is cut for a while: nothing is lost, and nothing runs twice."""

from __future__ import annotations

import time
from pathlib import Path

from support.clusters import ProcessCluster
from support.drivers import Driver
from support.loopback import CUT_S, own_network
from support.servers import free_port

#: The driver is on one node. On the other one: an actor, a result, what the actor owns; and what runs during the cut.
_ACROSS = """
import numpy as np

ray.init(logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=0, resources={"there": 0.1})
class Actor:
    def __init__(self): self.calls = 0
    def add(self):
        self.calls += 1
        return self.calls
    def own(self): return [ray.put("small"), ray.put(np.ones(1_000_000))]
    def until(self, path):
        while not os.path.exists(path): time.sleep(0.05)
        return self.add()

@ray.remote(resources={"there": 1}, max_retries=0)
def make(): return np.arange(1_000_000)

@ray.remote(resources={"there": 1}, max_retries=0)
def until(path):
    while not os.path.exists(path): time.sleep(0.05)
    return "ran through"

@ray.remote(num_cpus=0, resources={"home": 0.1})
def sum_of(refs): return int(ray.get(refs[0]).sum())

actor, made = Actor.remote(), make.remote()
ray.wait([made], fetch_local=False)
small, large = ray.get(actor.own.remote())
assert ray.get(actor.add.remote()) == 1
path = command()
call, task = actor.until.remote(path), until.remote(path)
report(begun=True)
command()
# Cut: all that is asked for now waits.
later = actor.add.remote()
refs = [call, task, later, small, sum_of.remote([large]), sum_of.remote([made])]
ready, _ = ray.wait(refs, num_returns=1, timeout=0.5)
report(ready=len(ready))
command()
report(values=ray.get(refs, timeout=150), made=int(ray.get(made).sum()), new=ray.get(make.remote()).size)
command()
"""


def test_what_was_owned_across_it_is_usable_when_it_heals(tmp_path: Path) -> None:
    with own_network() as network, ProcessCluster() as cluster:
        cluster.looks_at_its_end = False  # this process does not reach what is on that network
        home, there = (("127.0.0.2", free_port()), ("127.0.0.3", free_port()))
        cluster.add_node(cpus=1, resources={"home": 1}, host=home[0], port=home[1])
        cluster.add_node(cpus=1, resources={"there": 2}, host=there[0], port=there[1])
        with Driver(_ACROSS, env=cluster.environment) as driver:
            begin = tmp_path / "begin"
            driver.tell(str(begin))
            assert driver.report() == {"begun": True}
            with network.cut(home, there):
                healed_at = time.monotonic() + CUT_S
                begin.touch()  # the task and the call end during the cut
                driver.tell("cut")
                assert driver.report() == {"ready": 0}
                time.sleep(healed_at - time.monotonic())  # the fault itself
            driver.tell("healed")
            values = [2, "ran through", 3, "small", 1_000_000, sum(range(1_000_000))]
            assert driver.report() == {"values": values, "made": values[-1], "new": 1_000_000}
            driver.tell("end")
            assert driver.wait() == 0


#: The driver is on one node. On the other one: an actor and what it owns, and two tasks, one of which may run again.
_LOST = """
ray.init(logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=0, max_concurrency=2, resources={"there": 0.1})
class Actor:
    def own(self): return [ray.put("small")]
    def wait(self): time.sleep(1000)
    def node(self): return ray.get_runtime_context().get_node_id()

@ray.remote(num_cpus=0, resources={"home": 0.1})
class Tries:
    def __init__(self): self.begun = 0
    def begin(self):
        self.begun += 1
        return self.begun
    def count(self): return self.begun

@ray.remote(resources={"there": 1})
def work(tries):
    if ray.get(tries.begin.remote()) <= 2: time.sleep(1000)
    return "tried again"

def outcome(ref):
    try:
        return ray.get(ref, timeout=60)
    except ray.exceptions.ShoalError as error:
        return f"{type(error).__name__}: {error}"

actor, tries = Actor.remote(), Tries.remote()
[owned] = ray.get(actor.own.remote())
once, again = work.options(max_retries=0).remote(tries), work.options(max_retries=1).remote(tries)
while ray.get(tries.count.remote()) < 2: time.sleep(0.05)
call = actor.wait.remote()
report(begun=True)
command()
report(once=outcome(once), call=outcome(call), owned=outcome(owned))
command()
report(again=outcome(again), actor=outcome(actor.node.remote()))
command()
"""


def test_what_is_lost_with_a_connection_says_so() -> None:
    """Something between the nodes has ended it, as after a cut that is too long, and there is no new one yet."""
    with own_network() as network, ProcessCluster() as cluster:
        cluster.looks_at_its_end = False  # this process does not reach what is on that network
        home, there = (("127.0.0.2", free_port()), ("127.0.0.3", free_port()))
        cluster.add_node(cpus=1, resources={"home": 1}, host=home[0], port=home[1])
        away = cluster.add_node(cpus=2, resources={"there": 3}, host=there[0], port=there[1])
        with Driver(_LOST, env=cluster.environment) as driver:
            assert driver.report() == {"begun": True}
            with network.cut(home, there, answer="tcp-reset"):
                driver.tell("cut")
                facts = driver.report()
            assert facts["once"].startswith("NodeDiedError: ") and "the connection to its raylet" in facts["once"]
            assert facts["call"].startswith("ActorUnavailableError: ") and "and it lives" in facts["call"]
            assert facts["owned"].startswith("OwnerDiedError: ") and "was cut off (worker" in facts["owned"]
            driver.tell("healed")
            assert driver.report() == {"again": "tried again", "actor": away.node_id}
            driver.tell("end")
            assert driver.wait() == 0
