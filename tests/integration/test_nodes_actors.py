"""Actors on other nodes: created there, called over TCP, found again."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Iterator

import pytest
from support.clusters import ProcessCluster, RayletProcess
from support.processes import PATIENCE_S, eventually

import shoal
from shoal.dag import InputNode


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[RayletProcess, RayletProcess]]:
    """This process is a driver on the first one."""
    with ProcessCluster() as cluster:
        first = cluster.add_node(cpus=1, resources={"first": 1})
        second = cluster.add_node(cpus=1, resources={"second": 1})
        with cluster.connected():
            yield first, second


@shoal.remote(num_cpus=0)
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.count = start

    def add(self, amount: int = 1) -> int:
        self.count += amount
        return self.count

    def add_or_die(self, last: int) -> int:
        if self.count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.add()

    def node(self) -> str:
        return str(shoal.get_runtime_context().get_node_id())

    def add_all(self, refs: list[shoal.ObjectRef[int]]) -> int:
        return self.add(sum(shoal.get(refs)))

    def make(self) -> shoal.ObjectRef[list[int]]:
        return shoal.put([self.count])

    def ask(self, other: shoal.ActorHandle, amount: int) -> int:
        return int(shoal.get(other.add.remote(amount)))


def on(resource: str, start: int = 0) -> shoal.ActorHandle:
    return Counter.options(resources={resource: 0.01}).remote(start)


def test_an_actor_runs_where_its_resources_are(nodes: tuple[RayletProcess, RayletProcess]) -> None:
    for node, resource in zip(nodes, ("first", "second"), strict=True):
        assert shoal.get(on(resource).node.remote()) == node.node_id


def test_calls_of_one_caller_stay_in_order(nodes: tuple[RayletProcess, RayletProcess]) -> None:
    counter = on("second")
    assert shoal.get([counter.add.remote() for _ in range(2000)]) == list(range(1, 2001))


def test_an_actor_calls_one_on_another_node(nodes: tuple[RayletProcess, RayletProcess]) -> None:
    here, there = on("first"), on("second", 10)
    assert shoal.get(here.ask.remote(there, 5)) == 15
    assert shoal.get(there.ask.remote(here, 5)) == 5


def test_references_travel_between_nodes(nodes: tuple[RayletProcess, RayletProcess]) -> None:
    counter = on("second")
    mine = [shoal.put(3), shoal.put(4)]
    assert shoal.get(counter.add_all.remote(mine)) == 7
    made = shoal.get(counter.make.remote())
    assert shoal.get(made) == [7], "its owner is the actor over there"
    assert shoal.get(on("second").add_all.remote([shoal.put(1), counter.add.remote(0)])) == 8


def test_a_named_actor_is_found_from_another_node(nodes: tuple[RayletProcess, RayletProcess]) -> None:
    kept = Counter.options(name="there", resources={"second": 0.01}).remote(1)
    assert shoal.get(kept.add.remote()) == 2

    @shoal.remote(num_cpus=0, resources={"first": 0.01})
    def from_here() -> int:
        return int(shoal.get(shoal.get_actor("there").add.remote()))

    assert shoal.get(from_here.remote()) == 3


def test_the_end_of_an_actor_elsewhere_is_told(nodes: tuple[RayletProcess, RayletProcess]) -> None:
    counter = on("second")
    assert shoal.get(counter.add.remote()) == 1
    shoal.kill(counter)
    with pytest.raises(shoal.exceptions.ActorDiedError, match="kill"):
        shoal.get(counter.add.remote())


def test_calls_that_have_run_elsewhere_are_answered_although_the_next_one_kills_the_actor(
    nodes: tuple[RayletProcess, RayletProcess],
) -> None:
    """Replies that were held back are on that node: its raylet hands them on."""
    counter = on("second")
    refs = [counter.add_or_die.remote(300) for _ in range(320)]
    assert shoal.get(refs[:300], timeout=PATIENCE_S) == list(range(1, 301))
    for ref in refs[300:]:
        with pytest.raises(shoal.exceptions.ActorDiedError):
            shoal.get(ref, timeout=PATIENCE_S)


def test_the_driver_is_told_which_nodes_there_are(nodes: tuple[RayletProcess, RayletProcess]) -> None:
    assert {node["NodeID"] for node in shoal.nodes() if node["Alive"]} == {node.node_id for node in nodes}
    assert shoal.cluster_resources()["CPU"] == 2


def test_garbage_is_collected_here_for_what_waits_on_another_node(nodes: tuple[RayletProcess, RayletProcess]) -> None:
    """The driver's only cycle holds the actor, and who waits for the actor's resource waits over there."""
    gc.disable()
    try:
        holder = Counter.options(resources={"second": 1}).remote()
        cycle: list[object] = [holder]
        cycle.append(cycle)
        assert shoal.get(holder.add.remote()) == 1
        del holder, cycle
        assert shoal.get(Counter.options(resources={"second": 1}).remote().add.remote(), timeout=60) == 1
    finally:
        gc.enable()


def test_a_compiled_graph_of_actors_elsewhere_is_refused(nodes: tuple[RayletProcess, RayletProcess]) -> None:
    with InputNode() as value:
        graph = on("second").add.bind(on("first").add.bind(value))
    with pytest.raises(NotImplementedError, match=f"is on node {nodes[1].node_id}.*NodeAffinitySchedulingStrategy"):
        graph.experimental_compile()


@shoal.remote(num_cpus=0, resources={"first": 0.01})
class GraphDriver:
    def compile(self, actor: shoal.ActorHandle) -> int:
        with InputNode() as value:
            self.graph = actor.add.bind(value).experimental_compile()
        return int(shoal.get(self.graph.execute(3)))


def at_work(actor: shoal.ActorHandle) -> bool:
    """For a compiled graph."""

    def look(_: object) -> bool:
        return any(thread.name.startswith("shoal-system") for thread in threading.enumerate())

    return bool(shoal.get(actor.__ray_call__.remote(look)))


def test_an_actor_lets_go_of_a_compiled_graph_whose_driver_has_died(nodes: tuple[RayletProcess, RayletProcess]) -> None:
    actor, driver = on("first"), GraphDriver.remote()
    assert shoal.get(driver.compile.remote(actor)) == 3
    assert at_work(actor)
    shoal.kill(driver)
    eventually(lambda: not at_work(actor), "the actor has let go", PATIENCE_S)
    assert shoal.get(actor.add.remote(1)) == 4


def test_an_actor_lets_go_of_a_compiled_graph_that_nobody_has(nodes: tuple[RayletProcess, RayletProcess]) -> None:
    actor = on("first")
    with InputNode() as value:
        graph = actor.add.bind(value).experimental_compile()
    assert shoal.get(graph.execute(3)) == 3
    assert at_work(actor)
    del graph
    eventually(lambda: not at_work(actor), "the actor has let go", PATIENCE_S)
