"""Nodes that die, hang or lose their driver while others work with them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.clusters import MIB, ProcessCluster
from support.drivers import Driver
from support.processes import PATIENCE_S, alive, all_gone, eventually

import shoal
from shoal import exceptions
from shoal._current import current


@pytest.fixture
def cluster() -> Iterator[ProcessCluster]:
    """Three nodes: the driver's with the resource ``home``, and two with ``there``."""
    with ProcessCluster() as cluster:
        cluster.add_node(cpus=1, resources={"home": 1})
        for _ in range(2):
            cluster.add_node(cpus=2, resources={"there": 10})
        yield cluster


@shoal.remote
class Log:
    """Where tasks have begun: (node, pid) of each."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []

    def note(self, node: str, pid: int) -> None:
        self.begun.append((node, pid))

    def all(self) -> list[tuple[str, int]]:
        return self.begun


@shoal.remote
def work(log: Any, number: int, seconds: float) -> int:
    shoal.get(log.note.remote(shoal.get_runtime_context().get_node_id(), os.getpid()))
    time.sleep(seconds)
    return number


def begun_on(log: Any, node_id: str) -> list[int]:
    return [pid for node, pid in shoal.get(log.all.remote()) if node == node_id]


@pytest.mark.parametrize("way", ["killed", "frozen"])
def test_tasks_of_a_lost_node_run_elsewhere(cluster: ProcessCluster, way: str) -> None:
    victim = cluster.nodes[1]
    with cluster.connected():
        log = Log.options(num_cpus=0, resources={"home": 0.1}).remote()  # type: ignore[attr-defined]
        refs = [work.options(resources={"there": 1}).remote(log, i, 0.1) for i in range(120)]
        eventually(lambda: len(begun_on(log, victim.node_id)) >= 5, "tasks run on the node")
        if way == "killed":
            left = victim.processes()
            victim.kill()
            all_gone(left)
        else:
            victim.freeze()
        assert shoal.get(refs, timeout=120) == list(range(120))

        def dead() -> list[str]:
            return [node["NodeID"] for node in shoal.nodes() if not node["Alive"]]

        eventually(lambda: dead() == [victim.node_id], "the node, and no other, is given up")


def test_a_pause_of_three_seconds_is_no_death() -> None:
    """With the settings of a GCS that is told none."""
    with ProcessCluster(gcs={"silence_s": 1.5, "checks": 2}) as cluster:
        cluster.add_node(cpus=1)
        victim = cluster.add_node(cpus=1, resources={"there": 1})
        with cluster.connected():
            log = Log.options(num_cpus=0, resources={"there": 0.1}).remote()  # type: ignore[attr-defined]
            shoal.get(log.note.remote("before", 0))
            victim.freeze()
            ref = log.note.remote("meanwhile", 0)
            time.sleep(3)  # the fault itself
            victim.thaw()
            shoal.get(ref, timeout=60)
            assert shoal.get(log.all.remote(), timeout=60) == [("before", 0), ("meanwhile", 0)]
            assert all(node["Alive"] for node in shoal.nodes())


def test_a_task_that_may_not_run_again_fails_with_its_node(cluster: ProcessCluster) -> None:
    victim = cluster.nodes[1]
    with cluster.connected():
        log = Log.options(num_cpus=0, resources={"home": 0.1}).remote()  # type: ignore[attr-defined]
        refs = [work.options(resources={"there": 1}, max_retries=0).remote(log, i, 60) for i in range(4)]
        eventually(lambda: len(begun_on(log, victim.node_id)) == 2, "tasks run on the node")
        victim.kill()
        done, _ = shoal.wait(refs, num_returns=2, timeout=60)
        for ref in done:
            with pytest.raises(shoal.exceptions.NodeDiedError, match=victim.node_id):
                shoal.get(ref)


@pytest.mark.parametrize("way", ["killed", "frozen"])
def test_an_actor_of_a_lost_node_comes_back_elsewhere(cluster: ProcessCluster, way: str) -> None:
    @shoal.remote(max_restarts=1, max_task_retries=-1, resources={"there": 1})
    class Actor:
        def node(self) -> str:
            return str(shoal.get_runtime_context().get_node_id())

    with cluster.connected():
        actor = Actor.remote()  # type: ignore[attr-defined]
        before = shoal.get(actor.node.remote())
        victim = next(node for node in cluster.nodes if node.node_id == before)
        if way == "killed":
            victim.kill()
        else:
            victim.freeze()
        after = shoal.get(actor.node.remote(), timeout=60)
        assert after != before


def test_an_incarnation_that_is_over_and_still_answers_is_left(
    cluster: ProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node hangs, its process does not, and says that it lives before the GCS says where the next one is."""

    @shoal.remote(num_cpus=0, resources={"there": 1}, max_restarts=-1, max_task_retries=-1)
    class Where:
        def node(self) -> str:
            return str(shoal.get_runtime_context().get_node_id())

    with cluster.connected():
        where = Where.remote()
        before = shoal.get(where.node.remote(), timeout=PATIENCE_S)
        core = current()
        wait = core.gcs.actors.begin_wait

        def slow(actor_id: bytes, version: int, wait_s: float, done: Any) -> None:
            def answered(actor: Any, error: Any) -> None:
                core.reactor.call_later(1.0, lambda: done(actor, error))

            wait(actor_id, version, wait_s, answered)

        monkeypatch.setattr(core.gcs.actors, "begin_wait", slow)
        next(node for node in cluster.nodes if node.node_id == before).stop()
        eventually(lambda: shoal.get(where.node.remote(), timeout=PATIENCE_S) != before, "the next one answers")


def test_an_actor_without_restarts_dies_with_its_node(cluster: ProcessCluster) -> None:
    with cluster.connected():
        actor = Log.options(resources={"there": 1}, num_cpus=0).remote()  # type: ignore[attr-defined]
        shoal.get(actor.note.remote("x", 1))
        for node in cluster.nodes[1:]:
            node.kill()
        with pytest.raises(shoal.exceptions.ActorDiedError):
            shoal.get(actor.all.remote(), timeout=60)


_WORK_EVERYWHERE = """
ray.init(logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=0, resources={"home": 0.1})
class Log:
    def __init__(self): self.pids = []
    def note(self, pid): self.pids.append(pid)
    def all(self): return self.pids

@ray.remote(resources={"there": 1})
def busy(log):
    child = subprocess.Popen(["sleep", "1000"])
    ray.get([log.note.remote(os.getpid()), log.note.remote(child.pid)])
    time.sleep(1000)

@ray.remote(num_cpus=0, resources={"there": 0.1})
class Actor:
    def pid(self): return os.getpid()

log = Log.remote()
refs = [busy.remote(log) for _ in range(4)]
actors = [Actor.remote() for _ in range(2)]
pids = ray.get([actor.pid.remote() for actor in actors])
while len(found := ray.get(log.all.remote())) < 8:
    time.sleep(0.02)
report(pids=found + pids)
command()
"""


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM])
def test_a_drivers_workers_end_on_all_nodes(cluster: ProcessCluster, way: signal.Signals) -> None:
    with Driver(_WORK_EVERYWHERE, env=cluster.environment) as driver:
        pids = driver.report()["pids"]
        assert all(map(alive, pids))
        driver.process.send_signal(way)
        all_gone(pids)


def test_what_a_lost_worker_had_asked_of_another_node_ends(cluster: ProcessCluster, tmp_path: Path) -> None:
    """The worker on the lost node is the owner of the task on the other one."""
    pid_file = tmp_path / "pid"

    @shoal.remote(num_cpus=0.1, resources={"there": 1}, max_retries=0)
    def inner() -> None:
        pid_file.write_text(str(os.getpid()))
        time.sleep(1000)

    @shoal.remote(num_cpus=0.1, max_retries=0)
    def outer(node_id: str) -> None:
        affinity = shoal.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
        shoal.get(inner.options(scheduling_strategy=affinity).remote())

    first, second = cluster.nodes[1:]
    with cluster.connected():
        affinity = shoal.util.scheduling_strategies.NodeAffinitySchedulingStrategy(first.node_id, soft=False)
        ref = outer.options(scheduling_strategy=affinity).remote(second.node_id)
        pid = int(eventually(lambda: pid_file.exists() and pid_file.read_text(), "the inner task runs"))
        assert pid in second.processes()
        first.kill()
        with pytest.raises(shoal.exceptions.NodeDiedError):
            shoal.get(ref, timeout=60)
        all_gone([pid])


def test_the_spilled_blobs_of_a_dead_owner_are_freed(cluster: ProcessCluster) -> None:
    """Of one that has died alone, and of one that has died with its node, whose raylet can free nothing any more."""

    @shoal.remote(num_cpus=0)
    class Owner:
        def spill(self) -> int:
            """Twice what the store holds."""
            self.refs = [shoal.put(np.full(16 * MIB, number, np.uint8)) for number in range(8)]
            return os.getpid()

    def spilled() -> int:
        """How many blobs there are."""
        return len(cluster.blobs())

    owners, pids = [], []
    with cluster.connected():
        for node in cluster.nodes[1:]:
            affinity = shoal.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.node_id, soft=False)
            owners.append(Owner.options(scheduling_strategy=affinity).remote())  # type: ignore[attr-defined]
            pids.append(shoal.get(owners[-1].spill.remote(), timeout=60))
        both = spilled()
        assert both >= 8, "what does not fit in the store of each"
        os.kill(pids[0], signal.SIGKILL)
        eventually(lambda: 0 < spilled() < both, "those of the first owner are freed, and no others")
        cluster.nodes[2].kill()
        eventually(lambda: not spilled(), "those of the second owner are freed")


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with its node"])
def test_what_a_dead_node_has_spilled_goes_with_its_owner_on_another_one(cluster: ProcessCluster, alone: bool) -> None:
    first, second = cluster.nodes[1:]

    @shoal.remote(num_cpus=0, max_retries=0)
    def make(number: int) -> Any:
        return np.full(16 * MIB, number, np.uint8)

    @shoal.remote(num_cpus=0)
    class Owner:
        def spill(self, node_id: str) -> int:
            """There, and twice what the store holds."""
            there = shoal.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
            self.refs = [make.options(scheduling_strategy=there).remote(number) for number in range(8)]
            shoal.wait(self.refs, num_returns=len(self.refs), fetch_local=False)
            return os.getpid()

    with cluster.connected():
        here = shoal.util.scheduling_strategies.NodeAffinitySchedulingStrategy(first.node_id, soft=False)
        owner = Owner.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
        pid = shoal.get(owner.spill.remote(second.node_id), timeout=PATIENCE_S)
        assert cluster.blobs()
        second.kill()
        dead = lambda: [node["NodeID"] for node in shoal.nodes() if not node["Alive"]]  # noqa: E731
        eventually(lambda: dead() == [second.node_id], "the node is given up")
        assert cluster.blobs(), "its owner lives"
        if alone:
            os.kill(pid, signal.SIGKILL)
        else:
            first.kill()
        eventually(lambda: not cluster.blobs(), "nobody needs them")


def test_a_scheduler_that_dies_leaves_the_other_one() -> None:
    with ProcessCluster(schedulers=2) as cluster:
        cluster.add_node(cpus=1)
        there = cluster.add_node(cpus=1, resources={"there": 10})
        with cluster.connected():

            @shoal.remote(resources={"there": 1})
            def where() -> str:
                return str(shoal.get_runtime_context().get_node_id())

            assert shoal.get(where.remote()) == there.node_id
            for scheduler in cluster.schedulers:
                scheduler.kill()
                if scheduler is cluster.schedulers[0]:
                    assert shoal.get([where.remote() for _ in range(3)]) == [there.node_id] * 3

            @shoal.remote
            def here() -> int:
                return 1

            # Without any, each node still grants what it can.
            assert shoal.get([here.remote() for _ in range(20)]) == [1] * 20


def test_a_node_that_leaves_in_order_fails_nothing(cluster: ProcessCluster) -> None:
    """SIGTERM: what runs there ends, what waits there goes elsewhere; nothing is retried."""
    leaving = cluster.nodes[1]
    with cluster.connected():
        log = Log.options(num_cpus=0, resources={"home": 0.1}).remote()  # type: ignore[attr-defined]
        refs = [work.options(resources={"there": 1}, max_retries=0).remote(log, i, 0.1) for i in range(100)]
        eventually(lambda: len(begun_on(log, leaving.node_id)) >= 5, "tasks run on the node")
        leaving.end()
        assert leaving.wait() == 0
        assert shoal.get(refs, timeout=120) == list(range(100))
        assert len(shoal.get(log.all.remote())) == 100


@shoal.remote
def zeros() -> Any:
    return np.zeros(MIB)


def test_get_gives_up_in_time_on_what_a_node_that_hangs_has() -> None:
    with ProcessCluster(gcs={"silence_s": 600.0}) as cluster:
        cluster.add_node(cpus=1)
        node = cluster.add_node(cpus=1, resources={"there": 1})
        with cluster.connected():
            ref = zeros.options(resources={"there": 1}).remote()
            shoal.wait([ref], fetch_local=False)
            here = shoal.put(np.ones(MIB))
            node.freeze()
            for timeout in (0.2, 0):
                with pytest.raises(exceptions.GetTimeoutError, match=f"{ref.hex()} did not come in time"):
                    shoal.get([here, ref], timeout=timeout)
            assert shoal.get(here, timeout=0).sum() == MIB
            node.thaw()
            assert shoal.get(ref, timeout=60).sum() == 0
