"""A durable actor's process is killed, and its node, again and again: each call counts once, and is answered once."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time

import pytest
from support.clusters import ProcessCluster, RayletProcess
from support.processes import PATIENCE_S

import shoal

CALLERS = 4
CALLS = 1_000
KILLS = 20


@shoal.remote(num_cpus=0, durable=True, checkpoint_every=50, resources={"counts": 1})
class Counter:
    def __init__(self):
        self.value = 0

    def add(self):
        self.value += 1
        return self.value

    def read(self):
        return self.value

    def where(self):
        return os.getpid(), shoal.get_runtime_context().get_node_id()


@shoal.remote(num_cpus=0, resources={"calls": 1})
class Caller:
    def __init__(self, counter):
        self.counter = counter

    def call(self, calls):
        """What it is answered, some calls at a time, so that kills find calls at every moment."""
        answers = []
        rng = random.Random(calls)
        while len(answers) < calls:
            some = min(rng.choice([1, 1, 5, 20]), calls - len(answers))
            answers += shoal.get([self.counter.add.remote() for _ in range(some)])
            time.sleep(0.02)
        return answers


def test_a_thousand_calls_of_four_callers_through_twenty_kills():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with ProcessCluster() as cluster:
        # The log is a file where a node has the directory of the blobs, and made of blobs elsewhere.
        has_directory = itertools.cycle([{"blob_directory": cluster.directory / "blobs"}, {}])

        def add_place() -> RayletProcess:
            return cluster.add_node(cpus=2, resources={"counts": 1}, **next(has_directory))

        cluster.add_node(cpus=2, resources={"calls": CALLERS})
        places = [add_place() for _ in range(2)]
        with cluster.connected():
            counter = Counter.remote()
            callers = [Caller.remote(counter) for _ in range(CALLERS)]
            answered = [caller.call.remote(CALLS // CALLERS) for caller in callers]
            nodes = sorted(rng.sample(range(KILLS), 3))
            for kill in range(KILLS):
                pid, node_id = shoal.get(counter.where.remote(), timeout=PATIENCE_S)
                time.sleep(rng.random() * 0.1)
                if kill in nodes:
                    dead = next(place for place in places if place.node_id == node_id)
                    dead.kill()
                    places.remove(dead)
                    places.append(add_place())
                else:
                    os.kill(pid, signal.SIGKILL)
            answers = shoal.get(answered, timeout=PATIENCE_S)
            assert shoal.get(counter.read.remote(), timeout=PATIENCE_S) == CALLS, f"seed {seed}"
    assert sorted(answer for each in answers for answer in each) == list(range(1, CALLS + 1)), f"seed {seed}"
    assert all(each == sorted(each) for each in answers), f"seed {seed}"


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_while_it_is_restored(seed):
    """Its constructor takes a while, and its process is killed in there, and in its replay."""

    @shoal.remote(num_cpus=0, durable=True, checkpoint_every=0)
    class Slow(Counter.__ray_metadata__.modified_class):
        def __init__(self, place):
            super().__init__()
            with open(place, "a") as file:
                file.write(f"{os.getpid()}\n")

        def add(self):
            time.sleep(0.01)
            return super().add()

    rng = random.Random(seed)
    with shoal.init(num_cpus=1, logging_level="ERROR"):
        place = os.path.join(shoal.get_runtime_context().get_temp_dir(), f"pids-{os.getpid()}-{seed}")
        try:
            slow = Slow.remote(place)
            assert shoal.get([slow.add.remote() for _ in range(40)], timeout=PATIENCE_S) == list(range(1, 41))
            killed: set[int] = set()
            deadline = time.monotonic() + PATIENCE_S
            while len(killed) < 4 and time.monotonic() < deadline:
                with open(place) as file:
                    pid = int(file.read().split()[-1])
                if pid not in killed:
                    killed.add(pid)
                    threading.Event().wait(rng.random() * 0.3)
                    os.kill(pid, signal.SIGKILL)
            assert shoal.get(slow.add.remote(), timeout=PATIENCE_S) == 41
        finally:
            os.unlink(place)


def test_nodes_that_leave_take_nothing_along_and_cost_no_restart():
    with ProcessCluster() as cluster:
        cluster.add_node(cpus=1)
        place = cluster.add_node(cpus=1, resources={"counts": 1})
        with cluster.connected():
            counter = Counter.options(max_restarts=1).remote()
            made = 0
            for _ in range(2):
                assert shoal.get([counter.add.remote() for _ in range(10)], timeout=PATIENCE_S) == list(
                    range(made + 1, made + 11)
                )
                made += 10
                following = cluster.add_node(cpus=1, resources={"counts": 1})
                place.terminate()
                assert place.wait() == 0
                place = following
                _, node_id = shoal.get(counter.where.remote(), timeout=PATIENCE_S)
                assert node_id == place.node_id
            # The one restart that it has is still there.
            pid, _ = shoal.get(counter.where.remote())
            os.kill(pid, signal.SIGKILL)
            assert shoal.get(counter.read.remote(), timeout=PATIENCE_S) == made
