from __future__ import annotations

import itertools

import pytest

from shoal_common import frames
from shoal_common.resources import ResourceSet
from shoal_raylet.actions import Action, AskScheduler, KillWorker, Send
from shoal_raylet.resource_ledger import ResourceLedger
from shoal_raylet.worker_leases import ASK_AGAIN_S, PASSED_OVER_S, QUANTUM_S, WorkerLeases
from shoal_raylet.worker_pool import WorkerPool, WorkerState

NODE = bytes(16)
JOB, OTHER_JOB = b"job1", b"job2"


class Node:
    """The three pure modules together, with workers that are there at once."""

    def __init__(self, grace_s: float = 30.0, workers: int = 50, **total: float) -> None:
        self.ledger = ResourceLedger(ResourceSet.of(total or {"CPU": 2}))
        ids, leases = itertools.count(1), itertools.count(1)
        self.pool = WorkerPool(50, 0, 10.0, lambda: b"w%d" % next(ids))
        self.leases = WorkerLeases(NODE, self.ledger, self.pool, grace_s, lambda: b"l%d" % next(leases))
        self.now = 0.0
        self.wanted = 0
        while len(self.pool.workers) < workers:
            for action in self.pool.balance(workers, 0.0):
                worker_id = action.worker_id  # type: ignore[union-attr]
                self.pool.registered(worker_id, 1, frames.WorkerAddress(NODE, worker_id, "/w"), 0.0)

    def demand(
        self, owner: bytes, total: int, key: int = 1, job: bytes = JOB, strategy: str = "", **needs: float
    ) -> list[Action]:
        resources = ResourceSet.of(needs or {"CPU": 1})
        spec = frames.SchedulingClass("f", tuple(sorted(resources.grains.items())), strategy)
        return self.leases.demanded(owner, job, key, total, spec, self.now) + self.dispatch()

    def dispatch(self) -> list[Action]:
        actions, self.wanted = self.leases.dispatch(self.now)
        return actions

    def give_back(self, owner: bytes, lease_id: bytes) -> list[Action]:
        self.leases.returned(owner, lease_id, False, self.now)
        return self.dispatch()

    def pass_time(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.leases.tick(self.now) + self.dispatch()


def granted(actions: list[Action]) -> list[tuple[bytes, bytes]]:
    """(owner, lease id) of each grant."""
    return [(a.peer, a.message.lease_id) for a in actions if isinstance(a, Send) and _is(a, frames.LeaseGranted)]  # type: ignore[attr-defined]


def reclaimed(actions: list[Action]) -> list[bytes]:
    return [a.message.lease_id for a in actions if isinstance(a, Send) and _is(a, frames.LeaseReclaim)]  # type: ignore[attr-defined]


def refusals(actions: list[Action]) -> list[frames.LeaseRefused]:
    return [a.message for a in actions if isinstance(a, Send) and isinstance(a.message, frames.LeaseRefused)]


def _is(action: Send, kind: type[frames.Message]) -> bool:
    return isinstance(action.message, kind)


def test_the_worker_is_told_before_the_owner() -> None:
    node = Node()
    to_worker, to_owner = node.demand(b"A", 1)
    assert isinstance(to_worker, Send) and isinstance(to_worker.message, frames.LeaseAssigned)
    assert isinstance(to_owner, Send) and isinstance(to_owner.message, frames.LeaseGranted)
    assert to_worker.peer == to_owner.message.worker.worker_id
    assert to_worker.message.resources == (("CPU", 10_000),)


def test_totals_are_cumulative_and_can_be_lowered() -> None:
    node = Node()
    assert len(granted(node.demand(b"A", 2))) == 2
    assert granted(node.demand(b"A", 2)) == []
    node.demand(b"A", 5)
    assert node.leases.queued == 3
    node.demand(b"A", 2)
    assert node.leases.queued == 0


def test_a_demand_without_its_spec_is_an_error() -> None:
    with pytest.raises(ValueError, match="no spec"):
        Node().leases.demanded(b"A", JOB, 1, 1, None, 0.0)


def test_owners_take_turns() -> None:
    node = Node(CPU=1)
    ((_, lease),) = granted(node.demand(b"A", 3))
    node.demand(b"B", 3)
    turns = []
    owner = b"A"
    for _ in range(5):
        ((owner, lease),) = granted(node.give_back(owner, lease))
        turns.append(owner)
    # A asked first, for its second one too.
    assert turns == [b"A", b"B", b"A", b"B", b"B"]


def test_two_jobs_get_equal_shares_however_many_owners_they_have() -> None:
    node = Node(CPU=4)
    leases = granted(node.demand(b"A", 1000))
    for owner in (b"B1", b"B2", b"B3"):
        node.demand(owner, 1000, job=OTHER_JOB)
    for _ in range(200):
        owner, lease = leases.pop(0)
        leases += granted(node.give_back(owner, lease))
        node.now += 0.01
    by_job = [owner == b"A" for owner, _ in leases]
    assert by_job.count(True) == 2


def test_a_large_demand_is_passed_by_small_ones_but_not_for_ever() -> None:
    node = Node(CPU=2)
    (small, _) = granted(node.demand(b"A", 10))
    node.demand(b"B", 1, CPU=2)
    ((_, second),) = granted(node.give_back(*small))
    node.now += PASSED_OVER_S
    assert granted(node.give_back(b"A", second)) == []
    held = list(node.leases._leases)
    assert granted(node.give_back(b"A", held[0]))[0][0] == b"B"


def test_leases_held_long_are_asked_back_once_while_others_wait() -> None:
    node = Node(CPU=2)
    held = [lease for _, lease in granted(node.demand(b"A", 10))]
    node.demand(b"B", 1)
    assert reclaimed(node.pass_time(QUANTUM_S / 2)) == []
    asked = reclaimed(node.pass_time(QUANTUM_S))
    assert len(asked) == 1 and asked[0] in held
    assert reclaimed(node.pass_time(QUANTUM_S)) == []


def test_who_has_a_fair_share_is_not_asked() -> None:
    node = Node(CPU=2)
    node.demand(b"A", 10)
    (asked,) = reclaimed(node.demand(b"B", 10) + node.pass_time(2 * QUANTUM_S))
    ((owner, _),) = granted(node.give_back(b"A", asked))
    assert owner == b"B"
    assert reclaimed(node.pass_time(2 * QUANTUM_S)) == []


def test_nobody_is_asked_for_what_would_not_help() -> None:
    node = Node(CPU=2, GPU=1)
    node.demand(b"A", 1, CPU=1)
    node.demand(b"G", 1, key=2, GPU=1)
    node.demand(b"B", 1, key=3, GPU=1)
    (asked,) = reclaimed(node.pass_time(2 * QUANTUM_S))
    assert node.leases._leases[asked].demand.owner == b"G"


def test_missing_workers_are_counted_up_to_the_free_resources() -> None:
    node = Node(workers=0, CPU=2)
    node.demand(b"A", 100)
    assert node.wanted == 2


def test_a_class_that_needs_nothing_is_bounded_all_the_same() -> None:
    node = Node(CPU=1)
    actions = node.leases.demanded(b"A", JOB, 1, 1000, frames.SchedulingClass("f", ()), 0.0) + node.dispatch()
    assert len(granted(actions)) == 8


def test_a_blocked_worker_makes_room_for_another() -> None:
    node = Node(CPU=1)
    node.demand(b"A", 2)
    (lease,) = node.leases._leases.values()
    node.ledger.lend_cpu(lease.worker.worker_id)
    assert len(granted(node.dispatch())) == 1


def test_a_lost_worker_is_told_to_its_owner_and_its_room_is_free() -> None:
    node = Node(CPU=1)
    node.demand(b"A", 1)
    (lease,) = node.leases._leases.values()
    (action,) = node.leases.worker_lost(lease.worker.worker_id, "SYSTEM_ERROR", "killed by SIGKILL")
    assert action == Send(b"A", frames.LeaseLost(lease.lease_id, "SYSTEM_ERROR", "killed by SIGKILL"))
    assert node.ledger.available == node.ledger.total
    # A return that crossed it on the way changes nothing.
    node.leases.returned(b"A", lease.lease_id, False, 0.0)
    assert node.ledger.available == node.ledger.total


def test_an_owners_end_revokes_its_leases() -> None:
    node = Node(CPU=2)
    node.demand(b"A", 5)
    actions = node.leases.owner_gone(b"A", 0.0)
    assert len(actions) == 2 and all(isinstance(action, KillWorker) for action in actions)
    assert node.ledger.available == node.ledger.total
    assert node.leases.queued == 0
    assert len(granted(node.demand(b"B", 2))) == 2


def test_a_returned_lease_belongs_to_its_owner_only() -> None:
    node = Node(CPU=1)
    ((_, lease),) = granted(node.demand(b"A", 1))
    node.leases.returned(b"B", lease, False, 0.0)
    assert not node.ledger.can_hold(ResourceSet.of({"CPU": 1}))


def test_a_worker_that_exits_with_its_lease_is_not_used_again() -> None:
    node = Node(CPU=1, workers=1)
    ((_, lease),) = granted(node.demand(b"A", 2))
    node.leases.returned(b"A", lease, True, 0.0)
    assert granted(node.dispatch()) == []
    assert node.wanted == 1


def test_an_infeasible_class_is_refused_after_the_grace_with_the_schedulers_words() -> None:
    node = Node(grace_s=3.0, CPU=2)
    (ask,) = node.demand(b"A", 1, GPU=1)
    assert isinstance(ask, AskScheduler) and ask.resources == ResourceSet.of({"GPU": 1})
    assert node.leases.scheduler_answered(b"A", 1, True, "node x lacks 1 GPU", node.now) == []
    (ask,) = node.pass_time(ASK_AGAIN_S)
    assert isinstance(ask, AskScheduler)
    assert node.pass_time(ASK_AGAIN_S / 2) == []
    node.pass_time(2.0)
    (refusal,) = refusals(node.leases.scheduler_answered(b"A", 1, True, "node x lacks 1 GPU", node.now))
    assert refusal.kind == "infeasible"
    assert refusal.reason == "node x lacks 1 GPU. Ask for less, or add a node that has it"
    assert node.leases.queued == 0


def test_without_a_scheduler_the_node_names_what_it_lacks_itself() -> None:
    node = Node(grace_s=0.0, CPU=2)
    node.demand(b"A", 1, CPU=5)
    (refusal,) = refusals(node.leases.scheduler_answered(b"A", 1, True, "", 0.0))
    assert "lacks 3 CPU" in refusal.reason


def test_a_class_that_another_node_can_hold_waits() -> None:
    node = Node(grace_s=1.0)
    node.demand(b"A", 1, GPU=1)
    for _ in range(5):
        node.pass_time(1.0)
        assert node.leases.scheduler_answered(b"A", 1, False, "", node.now) == []
    assert node.leases.queued == 1


def test_grace_minus_one_waits_for_ever() -> None:
    node = Node(grace_s=-1.0)
    node.demand(b"A", 1, GPU=1)
    node.pass_time(1e6)
    assert node.leases.scheduler_answered(b"A", 1, True, "x", node.now) == []


def test_a_refused_class_can_be_demanded_anew() -> None:
    node = Node(grace_s=0.0)
    node.demand(b"A", 4, GPU=1)
    node.leases.scheduler_answered(b"A", 1, True, "x", 0.0)
    # The owner counts from what was granted.
    assert any(isinstance(action, AskScheduler) for action in node.demand(b"A", 1, GPU=1))


def test_an_infeasible_class_does_not_hold_up_others() -> None:
    node = Node()
    node.demand(b"A", 1, GPU=1)
    node.now += 2 * PASSED_OVER_S
    assert len(granted(node.demand(b"A", 2, key=2))) == 2


@pytest.mark.parametrize(("strategy", "kind"), [("node:" + "ff" * 16, "affinity"), ("node:" + NODE.hex(), None)])
def test_hard_affinity(strategy: str, kind: str | None) -> None:
    node = Node()
    actions = node.demand(b"A", 1, strategy=strategy)
    assert [refusal.kind for refusal in refusals(actions)] == ([kind] if kind else [])
    assert len(granted(actions)) == (0 if kind else 1)


def test_soft_affinity_falls_back() -> None:
    assert len(granted(Node().demand(b"A", 1, strategy="node?:" + "ff" * 16))) == 1


def test_workers_that_cannot_start_refuse_what_waits() -> None:
    node = Node(workers=0)
    node.demand(b"A", 3)
    (refusal,) = refusals(node.leases.workers_unstartable("ImportError: x"))
    assert refusal.kind == "worker_start" and "ImportError: x" in refusal.reason


def test_room_for_an_actor_that_waits_is_set_aside() -> None:
    node = Node(CPU=1)
    ((_, lease),) = granted(node.demand(b"A", 5))
    node.leases.actor_waits(b"actor", ResourceSet.of({"CPU": 1}), node.now)
    assert reclaimed(node.pass_time(2 * QUANTUM_S)) == [lease]
    assert granted(node.give_back(b"A", lease)) == []
    node.leases.actor_placed(b"actor")
    assert len(granted(node.dispatch())) == 1


def test_an_actor_that_never_comes_back_does_not_keep_its_room() -> None:
    node = Node(CPU=1)
    node.leases.actor_waits(b"actor", ResourceSet.of({"CPU": 1}), node.now)
    assert granted(node.demand(b"A", 1)) == []
    assert len(granted(node.pass_time(5.0))) == 1


def test_a_job_keeps_its_workers_to_itself() -> None:
    node = Node(workers=1, CPU=2)
    ((_, lease),) = granted(node.demand(b"A", 1))
    node.give_back(b"A", lease)
    assert granted(node.demand(b"B", 1, job=OTHER_JOB)) == []
    assert node.pool.of_job(JOB)[0].state is WorkerState.IDLE
