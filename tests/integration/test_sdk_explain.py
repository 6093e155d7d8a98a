"""``shoal.explain`` says what a ref waits for, and a ``get`` that takes long says it too."""

from __future__ import annotations

import os
import re
import time
from typing import Any

import pytest
from support.drivers import Driver
from support.processes import PATIENCE_S

import shoal
from shoal import Explanation
from shoal.cluster_utils import Cluster
from shoal.util import placement_group, remove_placement_group
from shoal.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tests.support.actors import Gate

pytestmark = pytest.mark.usefixtures("cluster")


@shoal.remote
def pass_gate(gate: Any) -> int:
    shoal.get(gate.pass_through.remote())
    return os.getpid()


@shoal.remote
def hand_on(value: Any) -> Any:
    return value


@shoal.remote
def get_it(refs: list[Any]) -> Any:
    return shoal.get(refs[0])


@shoal.remote(num_cpus=0)
class Worker:
    def pass_gate(self, gate: Any) -> None:
        shoal.get(gate.pass_through.remote())

    def quick(self) -> None: ...


def eventually(ref: Any, state: str) -> Explanation:
    """What arrives in a worker, or at the GCS, is known a moment later."""
    deadline = time.monotonic() + PATIENCE_S
    while (explanation := shoal.explain(ref)).state != state and time.monotonic() < deadline:
        pass
    assert explanation.state == state, str(explanation)
    return explanation


def test_a_task_that_waits_in_get_and_what_it_waits_for() -> None:
    gate = Gate.remote()
    ref = pass_gate.remote(gate)
    shoal.get(gate.arrived.remote(1))
    told = eventually(ref, "waiting in get")
    assert (told.object_id, told.name) == (ref.hex(), "pass_gate")
    assert told.node_id == shoal.get_runtime_context().get_node_id()
    assert [(each.name, each.state) for each in told.waits_for] == [("Gate.pass_through", "running")]
    shoal.get(gate.open.remote())
    assert shoal.get(ref) == told.pid


def test_down_to_the_resource_that_is_missing() -> None:
    much = hand_on.options(num_cpus=64).remote(1)
    chain = get_it.options(num_cpus=0).remote([hand_on.remote(much)])
    told = eventually(chain, "waiting in get")
    names = []
    while told.waits_for:
        (told,) = told.waits_for
        names.append((told.name, told.state))
    assert names == [("hand_on", "waiting for its arguments"), ("hand_on", "waiting for a worker")]
    assert "it waits for 64 CPU" in told.detail
    assert "lacks 62 CPU" in told.detail
    assert len(str(shoal.explain(chain)).splitlines()) == 3


def test_a_worker_that_others_hold() -> None:
    @shoal.remote
    def hold(gate: Any) -> None:
        gate_opens = gate.pass_through.remote()
        while not shoal.wait([gate_opens], timeout=0)[0]:  # without lending its CPU
            pass

    gate = Gate.remote()
    held = [hold.remote(gate) for _ in range(2)]
    shoal.get(gate.arrived.remote(2))
    waits = [hand_on.remote(number) for number in range(3)]
    told = eventually(waits[2], "waiting for a worker")
    assert "more must become free here (held: 2 CPU by tasks of job " in told.detail
    assert "2 before it in the queue" in told.detail
    shoal.get(gate.open.remote())
    assert shoal.get([*held, *waits]) == [None, None, 0, 1, 2]


def test_a_call_behind_others() -> None:
    gate, worker = Gate.remote(), Worker.remote()
    running, behind = worker.pass_gate.remote(gate), worker.quick.remote()
    shoal.get(gate.arrived.remote(1))
    told = eventually(behind, "queued behind others")
    assert told.name == "Worker.quick"
    assert [(each.name, each.state) for each in told.waits_for] == [("Worker.pass_gate", "waiting in get")]
    shoal.get(gate.open.remote())
    shoal.get([running, behind])
    assert shoal.explain(behind).state == "ready"


def test_an_actor_that_is_not_there() -> None:
    large = Worker.options(num_cpus=64).remote()
    told = eventually(large.quick.remote(), "waiting for its actor")
    assert large._actor_id.hex() in told.detail
    needs = Worker.options(num_cpus=0).remote()
    call = needs.quick.remote()
    shoal.get(call)
    shoal.kill(needs)
    assert eventually(needs.quick.remote(), "failed")


def test_a_placement_group_that_is_pending() -> None:
    group = placement_group([{"CPU": 64}])
    ref = hand_on.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group)).remote(1)
    told = eventually(ref, "waiting for a worker")
    assert f"its placement group {group.id.hex()} is pending: 0 of 1 bundles have a node" in told.detail
    assert "the most that one has is" in told.detail
    of_group = shoal.explain(group)
    assert (of_group.state, of_group.placement_group_id) == ("pending", group.id.hex())
    told_of = f"PlacementGroup({group.id.hex()}) is pending: 0 of 1 bundles have a node; 1 needs 64 CPU"
    assert str(of_group).startswith(told_of)
    remove_placement_group(group)
    assert shoal.explain(group).state == "removed"
    assert shoal.explain(placement_group([{"CPU": 0.1}])).state in ("pending", "prepared", "created")


def test_what_is_there_and_what_has_failed() -> None:
    assert shoal.explain(shoal.put(1)).state == "ready"
    large = shoal.explain(shoal.put(bytes(10**6)))
    assert (large.state, large.waits_for) == ("ready", ())
    assert "in the object store of node" in large.detail
    assert eventually(hand_on.remote(hand_on.options(num_cpus=0).remote(1)), "ready")

    @shoal.remote
    def fails() -> None:
        raise ValueError

    assert eventually(fails.remote(), "failed")


def test_a_borrower_asks_the_owner() -> None:
    @shoal.remote(num_cpus=0)
    def explain(refs: list[Any]) -> Explanation:
        return shoal.explain(refs[0])

    much = hand_on.options(num_cpus=64).remote(1)
    assert shoal.get(explain.remote([much])).state == "waiting for a worker"


def test_an_owner_that_is_gone() -> None:
    @shoal.remote(num_cpus=0)
    class Owner:
        def make(self) -> list[Any]:
            return [hand_on.options(num_cpus=64).remote(1)]

    owner = Owner.remote()
    (ref,) = shoal.get(owner.make.remote())
    shoal.kill(owner)
    with pytest.raises(shoal.exceptions.OwnerDiedError):
        shoal.get(ref)
    assert shoal.explain(ref).state == "failed"


def test_what_is_no_ref() -> None:
    with pytest.raises(TypeError, match="takes an ObjectRef or a PlacementGroup, not int"):
        shoal.explain(1)  # type: ignore[arg-type]


def test_a_get_that_takes_long_says_why_once() -> None:
    code = """
    ray.init(num_cpus=1)
    refs = [ray.remote(num_cpus=8)(lambda: None).options(name="much").remote() for _ in range(2)]
    try:
        ray.get(refs, timeout=3)
    except ray.exceptions.GetTimeoutError:
        report(done=True)
    """
    with Driver(code, env={"SHOAL_EXPLAIN_AFTER_S": "0.5"}) as driver:
        assert driver.report() == {"done": True}
    said = [line for line in driver.output if "get() has waited" in line]
    assert len(said) == 1
    assert "for 2 objects, of which one is told" in said[0]
    assert any("of much is waiting for a worker" in line and "it waits for 8 CPU" in line for line in driver.output)


def test_a_transfer_and_another_node(no_cluster: None) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        there = cluster.add_node(num_cpus=1, resources={"there": 1})
        with shoal.init(address=cluster.address, logging_level="ERROR", log_to_driver=False):
            make = hand_on.options(resources={"there": 1})
            large = make.remote(bytes(10**6))
            shoal.wait([large], fetch_local=False)
            told = shoal.explain(large)
            assert re.match(rf"10\d{{5}} bytes in the object store of node {there.node_id}", told.detail)
            assert "here there is no copy, and none is on its way" in told.detail
            gate = Gate.remote()
            runs = pass_gate.options(resources={"there": 1}).remote(gate)
            shoal.get(gate.arrived.remote(1))
            assert eventually(runs, "waiting in get").node_id == there.node_id
            shoal.get(gate.open.remote())
    finally:
        cluster.shutdown()
