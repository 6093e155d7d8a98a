"""Who holds what of a node, in words."""

from __future__ import annotations

from shoal_common.placement.resources import ResourceSet
from shoal_raylet.leases.bundle_reservations import BundleReservations
from shoal_raylet.leases.holders import MAX_TOLD, holders_told
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.worker_pool import Worker, WorkerState

GROUP, ACTOR = b"g" * 16, b"a" * 16


def test_the_bundles_of_a_group_count_together_and_actors_have_names() -> None:
    ledger = ResourceLedger(ResourceSet.of({"CPU": 8, "GPU": 1}))
    wanted = {0: ResourceSet.of({"CPU": 2}), 1: ResourceSet.of({"CPU": 1})}
    assert BundleReservations(ledger).prepare(GROUP, b"r", wanted, 0.0) == {}
    ledger.allocate(ACTOR, ResourceSet.of({"CPU": 0.1, "GPU": 1}))
    workers = {b"w": Worker(b"w", WorkerState.ACTOR, 0.0, name="Slow", actor_id=ACTOR)}
    slow, group = f"actor Slow {ACTOR.hex()}", f"placement group {GROUP.hex()}"
    assert holders_told(["CPU"], ledger, {}, workers) == f"3 CPU by {group}, 0.1 CPU by {slow}"
    assert holders_told(["GPU", "CPU"], ledger, {}, {}).endswith(f", 1 GPU by actor {ACTOR.hex()}")
    ledger.lend_cpu(ACTOR)
    assert holders_told(["CPU"], ledger, {}, workers) == f"3 CPU by {group}"
    assert holders_told(["TPU"], ledger, {}, workers) == ""


def test_only_those_that_hold_the_most_are_named() -> None:
    ledger = ResourceLedger(ResourceSet.of({"CPU": 64}))
    for number in range(1, MAX_TOLD + 3):
        ledger.allocate(bytes([number]) * 16, ResourceSet.of({"CPU": number}))
    told = holders_told(["CPU"], ledger, {}, {}).split(", ")
    assert (told[0].split(" by ")[0], told[-1]) == ("5 CPU", "3 CPU by 2 others")
    assert len(told) == MAX_TOLD + 1
