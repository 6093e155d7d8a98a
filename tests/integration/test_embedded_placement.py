"""Where tasks and actors go in an embedded cluster: when nothing is free, and when nothing can ever hold them."""

from __future__ import annotations

import threading

import pytest
from support.processes import PATIENCE_S

import shoal
from shoal import exceptions

pytestmark = pytest.mark.usefixtures("no_cluster")


def test_an_actor_starts_while_tasks_want_all_cpus():
    shoal.init(num_cpus=2, logging_level="ERROR", log_to_driver=False)
    enough = threading.Event()
    first_round = threading.Barrier(3)

    @shoal.remote
    def task():
        return None

    @shoal.remote(num_cpus=1)
    class Actor:
        def ping(self):
            return "pong"

    def flood():
        shoal.get([task.remote() for _ in range(100)])
        first_round.wait(PATIENCE_S)
        while not enough.is_set():
            shoal.get([task.remote() for _ in range(100)])

    floods = [threading.Thread(target=flood) for _ in range(2)]
    for thread in floods:
        thread.start()
    first_round.wait(PATIENCE_S)
    try:
        for _ in range(3):
            actor = Actor.remote()
            assert shoal.get(actor.ping.remote(), timeout=PATIENCE_S) == "pong"
            shoal.kill(actor)
    finally:
        enough.set()
        for thread in floods:
            thread.join(PATIENCE_S)


@pytest.fixture
def impatient():
    """A cluster in which nothing waits for a node that could hold it. Without the setting it would be 30 s."""
    shoal.init(num_cpus=2, logging_level="ERROR", log_to_driver=False, _system_config={"infeasible_grace_s": 0})


def test_a_task_that_no_node_can_ever_hold_fails(impatient):
    @shoal.remote(num_cpus=1000)
    def task():
        return None

    with pytest.raises(exceptions.TaskUnschedulableError, match=r"closest of 1, node \w+, lacks 998 CPU \(it has 2\)"):
        shoal.get(task.remote(), timeout=PATIENCE_S)


def test_an_actor_that_no_node_can_ever_hold_fails(impatient):
    @shoal.remote(resources={"unobtainium": 1})
    class Actor:
        def ping(self):
            return None

    with pytest.raises(exceptions.ActorUnschedulableError, match="lacks 1 unobtainium"):
        shoal.get(Actor.remote().ping.remote(), timeout=PATIENCE_S)
