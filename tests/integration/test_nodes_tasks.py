"""Tasks on other nodes: by overload, by what they need, by their strategy; nested ones too."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from support.clusters import ProcessCluster, RayletProcess
from support.processes import eventually

import shoal
from shoal.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@pytest.fixture(scope="module")
def cluster() -> Iterator[ProcessCluster]:
    """This process is a driver on the first of two nodes."""
    with ProcessCluster() as cluster:
        for name, disk in (("first", "slow"), ("second", "fast")):
            cluster.add_node(cpus=2, resources={name: 1}, labels={"disk": disk}, infeasible_grace_s=2)
        with cluster.connected():
            yield cluster


@pytest.fixture
def first(cluster: ProcessCluster) -> RayletProcess:
    return cluster.nodes[0]


@pytest.fixture
def second(cluster: ProcessCluster) -> RayletProcess:
    return cluster.nodes[1]


@shoal.remote
def where(seconds: float = 0.0) -> str:
    time.sleep(seconds)
    return str(shoal.get_runtime_context().get_node_id())


def places(refs: list[Any]) -> Counter[str]:
    return Counter(shoal.get(refs))


def test_a_task_stays_at_home_while_there_is_room(first: RayletProcess) -> None:
    for _ in range(20):
        assert shoal.get(where.remote()) == first.node_id


def test_what_waits_goes_to_a_node_with_room(first: RayletProcess, second: RayletProcess) -> None:
    def both_are_used() -> bool:
        found = places([where.remote(0.05) for _ in range(60)])
        assert found[first.node_id] + found[second.node_id] == 60
        return found[second.node_id] >= 10

    eventually(both_are_used, "tasks run on both nodes")


def test_a_task_goes_to_its_large_arguments_also_while_there_is_room_at_home(
    first: RayletProcess, second: RayletProcess
) -> None:
    @shoal.remote(num_cpus=0)
    def make() -> bytes:
        return bytes(10 * 1024 * 1024)

    @shoal.remote(num_cpus=0.25)
    def where_it_is(_: bytes) -> str:
        return str(shoal.get_runtime_context().get_node_id())

    here = make.options(resources={"first": 0.01}).remote()
    there = make.options(resources={"second": 0.01}).remote()
    shoal.wait([here, there], num_returns=2, fetch_local=False)
    assert shoal.get(where_it_is.remote(there)) == second.node_id
    # Of another class, as the lease over there is still held.
    assert shoal.get(where_it_is.options(num_cpus=0.5).remote(here)) == first.node_id


def test_four_tasks_hold_the_four_cpus_of_two_nodes(second: RayletProcess) -> None:
    @shoal.remote
    class Door:
        def __init__(self) -> None:
            self.inside = 0

        def enter(self) -> None:
            self.inside += 1

        def count(self) -> int:
            return self.inside

    door = Door.options(num_cpus=0).remote()  # type: ignore[attr-defined]

    @shoal.remote
    def wait_for_all(door: Any) -> bool:
        shoal.get(door.enter.remote())
        deadline = time.monotonic() + 30
        while shoal.get(door.count.remote()) < 4:
            # Not shoal.get alone: a task that blocks lends its CPU.
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    assert all(shoal.get([wait_for_all.remote(door) for _ in range(4)]))


def test_a_task_runs_where_its_resources_are(first: RayletProcess, second: RayletProcess) -> None:
    there = where.options(resources={"second": 0.1})
    assert places([there.remote() for _ in range(50)]) == {second.node_id: 50}
    here = where.options(resources={"first": 0.1})
    assert places([here.remote() for _ in range(50)]) == {first.node_id: 50}


def test_spread_uses_both_nodes(first: RayletProcess, second: RayletProcess) -> None:
    @shoal.remote(scheduling_strategy="SPREAD")
    def spread() -> str:
        """Not ``where``, of which a lease takes many ahead: it has taken no time before."""
        time.sleep(0.1)
        return str(shoal.get_runtime_context().get_node_id())

    def both_are_used() -> bool:
        found = places([spread.remote() for _ in range(20)])
        return min(found[first.node_id], found[second.node_id]) >= 4

    eventually(both_are_used, "tasks run on both nodes")


def test_spread_tasks_one_after_the_other_do_not_stay_on_one_node(first: RayletProcess, second: RayletProcess) -> None:
    there = where.options(scheduling_strategy="SPREAD")
    assert {shoal.get(there.remote()) for _ in range(10)} == {first.node_id, second.node_id}


@pytest.mark.parametrize("soft", [False, True])
def test_affinity(first: RayletProcess, second: RayletProcess, soft: bool) -> None:
    for node in (first, second):
        strategy = NodeAffinitySchedulingStrategy(node.node_id, soft=soft)
        assert places([where.options(scheduling_strategy=strategy).remote() for _ in range(10)]) == {node.node_id: 10}


def test_affinity_to_a_node_that_is_not_there(first: RayletProcess) -> None:
    hard = NodeAffinitySchedulingStrategy("fe" * 16, soft=False)
    with pytest.raises(shoal.exceptions.TaskUnschedulableError, match="is not alive"):
        shoal.get(where.options(scheduling_strategy=hard).remote())
    soft = NodeAffinitySchedulingStrategy("fe" * 16, soft=True)
    assert shoal.get(where.options(scheduling_strategy=soft).remote())


def test_labels(first: RayletProcess, second: RayletProcess) -> None:
    for node, disk in ((first, "slow"), (second, "fast")):
        found = places([where.options(label_selector={"disk": disk}).remote() for _ in range(10)])
        assert found == {node.node_id: 10}


def test_nested_tasks_run_from_another_node_too(first: RayletProcess, second: RayletProcess) -> None:
    @shoal.remote(resources={"second": 0.1})
    def outer() -> Any:
        here = shoal.get_runtime_context().get_node_id()
        back = shoal.get([where.options(resources={"first": 0.1}).remote() for _ in range(5)])
        return here, back, shoal.get(where.remote())

    here, back, beside = shoal.get(outer.remote())
    assert here == second.node_id and set(back) == {first.node_id}
    assert beside == second.node_id, "nested tasks stay on their own node while there is room"


def test_a_reference_to_a_nested_result_is_passed_on() -> None:
    @shoal.remote
    def number() -> int:
        return 42

    @shoal.remote(resources={"second": 0.1})
    def make() -> Any:
        return [number.remote()]

    @shoal.remote(resources={"first": 0.1})
    def use(refs: list[Any]) -> int:
        return int(shoal.get(refs[0])) + 1

    assert shoal.get(use.remote(shoal.get(make.remote()))) == 43


def test_errors_of_tasks_elsewhere_come_home() -> None:
    @shoal.remote(resources={"second": 0.1}, max_retries=0)
    def fail() -> None:
        raise KeyError("over there")

    @shoal.remote(resources={"second": 0.1}, max_retries=0)
    def die() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(KeyError, match="over there"):
        shoal.get(fail.remote())
    with pytest.raises(shoal.exceptions.WorkerCrashedError, match="SIGKILL"):
        shoal.get(die.remote())


def test_output_of_workers_elsewhere_is_heard(cluster: ProcessCluster) -> None:
    from support.drivers import Driver

    code = """
    @ray.remote(resources={"second": 0.1})
    def speak():
        print("spoken over there")

    with ray.init(logging_level="ERROR"):
        ray.get(speak.remote())
    report()
    """
    with Driver(code, env=cluster.environment) as driver:
        driver.report()
        driver.wait()
    assert "spoken over there" in driver.text


def test_leases_go_back_to_their_node(cluster: ProcessCluster) -> None:
    places([where.remote(0.02) for _ in range(40)])
    eventually(lambda: shoal.available_resources().get("CPU") == 4, "all CPUs are free again")


def test_what_fits_no_node_names_the_closest() -> None:
    with pytest.raises(shoal.exceptions.TaskUnschedulableError, match="GPU"):
        shoal.get(where.options(num_gpus=1).remote())
