from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from shoal_common.channel import frames
from shoal_common.kinds import ExitKind, RefusalKind
from shoal_common.placement import bundles
from shoal_common.placement.resources import ResourceSet
from shoal_raylet.actions import Action, AskScheduler, CollectGarbage, KillWorker, Send
from shoal_raylet.leases.demand import LAST_PAUSE_S, MOVE_AGAIN_S, SPILL_AFTER_S
from shoal_raylet.leases.reclaiming import QUANTUM_S
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.scheduler_answer import LeasesPlaced, SchedulerAnswer
from shoal_raylet.leases.starvation import PATIENCE_S
from shoal_raylet.leases.worker_leases import PASSED_OVER_S, WorkerLeases
from shoal_raylet.leases.worker_pool import WorkerPool, WorkerState

NODE, OTHER, THIRD = bytes(16), b"\1" * 16, b"\2" * 16
LABELS = {"zone": "a"}
JOB, OTHER_JOB = b"job1", b"job2"


class Node:
    """The three pure modules together, with workers that are there at once."""

    def __init__(self, grace_s: float = 30.0, workers: int = 50, **total: float) -> None:
        self.ledger = ResourceLedger(ResourceSet.of(total or {"CPU": 2}))
        ids, leases = itertools.count(1), itertools.count(1)
        self.pool = WorkerPool(50, 0, 10.0, lambda: b"w%d" % next(ids))
        self.leases = WorkerLeases(NODE, LABELS, self.ledger, self.pool, grace_s, lambda: b"l%d" % next(leases))
        self.now = 0.0
        self.wanted: Mapping[str, int] = {}
        while len(self.pool.workers) < workers:
            for action in self.pool.balance({"": workers}, 0.0):
                worker_id = action.worker_id  # type: ignore[union-attr]
                self.pool.registered(worker_id, 1, frames.WorkerAddress(NODE, worker_id, "/w"), 0.0)

    def demand(
        self,
        owner: bytes,
        total: int,
        key: int = 1,
        job: bytes = JOB,
        strategy: str = "",
        placed: bool = False,
        arguments: dict[bytes, int] | None = None,
        priority: int = 0,
        weight: float = 1.0,
        **needs: float,
    ) -> list[Action]:
        resources = ResourceSet.of(needs or {"CPU": 1})
        spec = frames.SchedulingClass(
            "f", tuple(sorted(resources.grains.items())), strategy, priority=priority, weight=weight
        )
        message = frames.LeaseDemand(key, total, spec, placed, arguments)
        return self.leases.demanded(owner, job, message, self.now) + self.dispatch()

    def answer(self, owner: bytes, answer: SchedulerAnswer | None, key: int = 1) -> list[Action]:
        return self.leases.answered(owner, key, answer, self.now) + self.dispatch()

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


def spilled(actions: list[Action]) -> list[tuple[bytes, int]]:
    """(node, count) of each spillback."""
    return [
        (a.message.node_id, a.message.count)
        for a in actions
        if isinstance(a, Send) and isinstance(a.message, frames.LeaseSpillback)
    ]


def asked(actions: list[Action]) -> list[int]:
    """For how many each question is."""
    return [a.count for a in actions if isinstance(a, AskScheduler)]


def to(node_id: bytes, count: int = 1) -> SchedulerAnswer:
    return SchedulerAnswer((LeasesPlaced(node_id, "10.0.0.2", 7000, count),))


def no(reason: str = "x") -> SchedulerAnswer:
    return SchedulerAnswer(infeasible=True, reason=reason)


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
        Node().leases.demanded(b"A", JOB, frames.LeaseDemand(1, 1), 0.0)


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
    held = list(node.leases._leases.by_id)
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
    assert node.leases._leases.by_id[asked].demand.owner == b"G"


def test_missing_workers_are_counted_up_to_the_free_resources() -> None:
    node = Node(workers=0, CPU=2)
    node.demand(b"A", 100)
    assert node.wanted == {"": 2}


def test_a_class_that_needs_nothing_is_bounded_all_the_same() -> None:
    node = Node(CPU=1)
    message = frames.LeaseDemand(1, 1000, frames.SchedulingClass("f", ()))
    actions = node.leases.demanded(b"A", JOB, message, 0.0) + node.dispatch()
    assert len(granted(actions)) == 8


def test_a_blocked_worker_makes_room_for_another() -> None:
    node = Node(CPU=1)
    node.demand(b"A", 2)
    (lease,) = node.leases._leases.by_id.values()
    node.ledger.lend_cpu(lease.worker.worker_id)
    assert len(granted(node.dispatch())) == 1


def test_a_lost_worker_is_told_to_its_owner_and_its_room_is_free() -> None:
    node = Node(CPU=1)
    node.demand(b"A", 1)
    (lease,) = node.leases._leases.by_id.values()
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
    assert node.wanted == {"": 1}


def test_an_infeasible_class_is_refused_after_the_grace_with_the_schedulers_words() -> None:
    node = Node(grace_s=3.0, CPU=2)
    (ask,) = node.demand(b"A", 1, GPU=1)
    assert isinstance(ask, AskScheduler) and ask.resources == ResourceSet.of({"GPU": 1})
    while node.now < 3.0:
        assert node.answer(b"A", no("node x lacks 1 GPU")) == []
        assert node.pass_time(0.01) == [], "not at once again"
        assert asked(node.pass_time(LAST_PAUSE_S)) == [1]
    (refusal,) = refusals(node.answer(b"A", no("node x lacks 1 GPU")))
    assert refusal.kind == "infeasible"
    assert refusal.reason == "node x lacks 1 GPU. Ask for less, or add a node that has it"
    assert node.leases.queued == 0


def test_without_a_scheduler_the_node_names_what_it_lacks_itself() -> None:
    node = Node(grace_s=0.0, CPU=2)
    node.demand(b"A", 1, CPU=5)
    (refusal,) = refusals(node.answer(b"A", None))
    assert "lacks 3 CPU" in refusal.reason


def test_a_class_that_another_node_can_hold_waits() -> None:
    node = Node(grace_s=1.0)
    node.demand(b"A", 1, GPU=1)
    for _ in range(5):
        node.pass_time(1.0)
        assert node.answer(b"A", SchedulerAnswer()) == []
    assert node.leases.queued == 1


def test_grace_minus_one_waits_for_ever() -> None:
    node = Node(grace_s=-1.0)
    node.demand(b"A", 1, GPU=1)
    node.pass_time(1e6)
    assert node.answer(b"A", no()) == []


def test_a_refused_class_can_be_demanded_anew() -> None:
    node = Node(grace_s=0.0)
    node.demand(b"A", 4, GPU=1)
    node.answer(b"A", no())
    # The owner counts from what was granted.
    assert asked(node.demand(b"A", 1, GPU=1)) == [1]


def test_an_infeasible_class_does_not_hold_up_others() -> None:
    node = Node()
    node.demand(b"A", 1, GPU=1)
    node.now += 2 * PASSED_OVER_S
    assert len(granted(node.demand(b"A", 2, key=2))) == 2


# --- other nodes ---


@pytest.fixture
def node() -> Node:
    """Of a cluster with others."""
    node = Node(CPU=2)
    node.leases.alone = False
    return node


def test_what_waits_goes_elsewhere_after_a_moment(node: Node) -> None:
    assert len(granted(node.demand(b"A", 10))) == 2
    assert asked(node.pass_time(SPILL_AFTER_S / 2)) == []
    assert asked(node.pass_time(SPILL_AFTER_S)) == [8]
    assert asked(node.pass_time(10)) == [], "one question at a time"
    actions = node.answer(b"A", to(OTHER, 5))
    (spillback,) = [a.message for a in actions if isinstance(a, Send)]
    assert spillback == frames.LeaseSpillback(1, 5, OTHER, "10.0.0.2", 7000)
    assert node.leases.queued == 3


def test_what_waits_for_a_process_only_stays() -> None:
    node = Node(CPU=2, workers=0)
    node.leases.alone = False
    node.demand(b"A", 2)
    for _ in range(20):
        assert asked(node.pass_time(SPILL_AFTER_S)) == []
    node.demand(b"A", 5)
    assert asked(node.pass_time(SPILL_AFTER_S)) == [3]


def test_spilled_leases_count_as_granted(node: Node) -> None:
    node.demand(b"A", 10)
    node.pass_time(SPILL_AFTER_S)
    assert spilled(node.answer(b"A", to(OTHER, 100))) == [(OTHER, 8)], "never more than is owed"
    assert node.leases.queued == 0
    assert node.leases.next_deadline(node.now) is None
    node.demand(b"A", 11)
    assert node.leases.queued == 1


def test_several_nodes_share_what_is_spilled(node: Node) -> None:
    node.demand(b"A", 10)
    node.pass_time(SPILL_AFTER_S)
    placed = (LeasesPlaced(OTHER, "h", 1, 3), LeasesPlaced(NODE, "", 0, 2), LeasesPlaced(THIRD, "h", 1, 1))
    answer = SchedulerAnswer(placed)
    assert spilled(node.answer(b"A", answer)) == [(OTHER, 3), (THIRD, 1)]
    assert node.leases.queued == 4


def test_a_scheduler_that_knows_no_better_is_asked_less_and_less_often(node: Node) -> None:
    node.demand(b"A", 10)
    questions = 0
    while node.now < 10:
        if asked(node.pass_time(0.01)):
            questions += 1
            node.answer(b"A", SchedulerAnswer())
    assert 10 <= questions <= 20


def test_a_node_alone_asks_nobody() -> None:
    node = Node(CPU=1)
    node.demand(b"A", 10)
    node.demand(b"A", 5, key=2, strategy="SPREAD")
    for _ in range(10):
        assert asked(node.pass_time(1.0)) == []


def test_what_is_cancelled_meanwhile_goes_nowhere(node: Node) -> None:
    node.demand(b"A", 10)
    node.pass_time(SPILL_AFTER_S)
    node.demand(b"A", 2)
    assert node.answer(b"A", to(OTHER, 8)) == []


def test_an_answer_for_an_owner_that_is_gone_is_dropped(node: Node) -> None:
    node.demand(b"A", 10)
    node.pass_time(SPILL_AFTER_S)
    node.leases.owner_gone(b"A", node.now)
    assert node.answer(b"A", to(OTHER, 8)) == []


def test_when_no_scheduler_answers_it_waits_here(node: Node) -> None:
    node.demand(b"A", 10)
    node.pass_time(SPILL_AFTER_S)
    assert node.answer(b"A", None) == []
    assert node.leases.queued == 8


def test_what_this_node_cannot_hold_goes_elsewhere_at_once(node: Node) -> None:
    assert asked(node.demand(b"A", 3, GPU=1)) == [3]
    assert spilled(node.answer(b"A", to(OTHER, 3))) == [(OTHER, 3)]


def test_spread_leases_are_placed_before_any_is_granted(node: Node) -> None:
    assert granted(actions := node.demand(b"A", 3, strategy="SPREAD")) == [] and asked(actions) == [3]
    actions = node.answer(b"A", SchedulerAnswer((LeasesPlaced(OTHER, "h", 1, 2), LeasesPlaced(NODE, "", 0, 1))))
    assert spilled(actions) == [(OTHER, 2)] and len(granted(actions)) == 1
    assert asked(node.demand(b"A", 5, strategy="SPREAD")) == [2], "only for what is new"


def test_spread_leases_without_a_scheduler_are_granted_here(node: Node) -> None:
    node.demand(b"A", 3, strategy="SPREAD")
    assert len(granted(node.answer(b"A", None))) == 2


def test_what_a_scheduler_sent_here_queues_here(node: Node) -> None:
    actions = node.demand(b"A", 3, strategy="SPREAD", placed=True)
    assert len(granted(actions)) == 2 and asked(actions) == []
    assert asked(node.pass_time(60.0)) == []


def test_what_was_sent_here_in_vain_may_move_on_later(node: Node) -> None:
    assert len(granted(node.demand(b"A", 3, placed=True))) == 2
    assert asked(node.pass_time(MOVE_AGAIN_S / 2)) == []
    assert asked(node.pass_time(MOVE_AGAIN_S)) == [1]
    assert spilled(node.answer(b"A", to(THIRD))) == [(THIRD, 1)]


def test_what_comes_back_to_its_own_node_is_granted_there(node: Node) -> None:
    node.demand(b"A", 1, strategy="SPREAD")
    node.answer(b"A", to(OTHER))
    # The other node has found it another place: this one.
    assert len(granted(node.demand(b"A", 2, strategy="SPREAD", placed=True))) == 1


def test_hard_affinity_to_another_node_goes_there_or_nowhere(node: Node) -> None:
    there = "node:" + OTHER.hex()
    assert asked(node.demand(b"A", 2, strategy=there)) == [2]
    assert spilled(node.answer(b"A", to(OTHER, 2))) == [(OTHER, 2)]
    node.demand(b"B", 1, strategy=there)
    (refusal,) = refusals(node.answer(b"B", no("node 01 is not alive")))
    assert (refusal.kind, refusal.reason) == ("affinity", "node 01 is not alive")


def test_hard_affinity_to_this_node_asks_nobody(node: Node) -> None:
    here = "node:" + NODE.hex()
    assert len(granted(node.demand(b"A", 3, strategy=here))) == 2
    assert asked(node.pass_time(60.0)) == []
    (refusal,) = refusals(node.demand(b"B", 1, strategy=here, CPU=3))
    assert refusal.kind == "affinity" and "lacks 1 CPU" in refusal.reason


def test_soft_affinity_is_asked_about_and_falls_back(node: Node) -> None:
    assert asked(node.demand(b"A", 1, strategy="node?:" + OTHER.hex())) == [1]
    assert len(granted(node.answer(b"A", None))) == 1


def test_soft_affinity_of_a_node_alone() -> None:
    assert len(granted(Node().demand(b"A", 1, strategy="node?:" + OTHER.hex()))) == 1


def test_a_node_that_leaves_asks_for_its_leases_and_sends_on_who_waits(node: Node) -> None:
    held = [lease for _, lease in granted(node.demand(b"A", 3))]
    assert reclaimed(node.leases.drain()) == held
    assert granted(node.give_back(b"A", held[0])) == []
    assert asked(node.pass_time(0.01)) == [1]
    assert spilled(node.answer(b"A", to(OTHER))) == [(OTHER, 1)]
    assert granted(actions := node.demand(b"B", 2)) == [] and asked(actions) == [2]


def test_who_waits_on_a_node_that_drains_is_told_so_and_not_refused() -> None:
    node = Node(grace_s=0.0)
    node.leases.drain()
    assert asked(node.demand(b"A", 1)) == [1]
    assert refusals(node.answer(b"A", None)) == [], "other nodes may come, or be there unseen"
    assert "is draining: it takes nothing new" in node.leases.explain(b"A", 1, 0, node.now)


@pytest.mark.parametrize(("selector", "here"), [(";zone=a", True), (";zone=b", False), (";zone=b|zone=a", False)])
def test_labels(node: Node, selector: str, here: bool) -> None:
    actions = node.demand(b"A", 1, strategy=selector)
    assert len(granted(actions)) == here and asked(actions) == ([] if here else [1])


def test_a_node_alone_with_other_labels_grants_nothing() -> None:
    node = Node(grace_s=0.0)
    assert asked(node.demand(b"A", 1, strategy=";zone=b")) == [1]
    assert [refusal.kind for refusal in refusals(node.answer(b"A", None))] == ["infeasible"]


def test_the_mean_run_time_is_that_of_what_waits(node: Node) -> None:
    assert node.leases.mean_task_us == 0
    spec = frames.SchedulingClass("f", (("CPU", 10_000),))
    node.leases.demanded(b"A", JOB, frames.LeaseDemand(1, 3, spec, mean_task_us=100), 0.0)
    node.leases.demanded(b"B", JOB, frames.LeaseDemand(1, 1, spec, mean_task_us=500), 0.0)
    node.leases.demanded(b"C", JOB, frames.LeaseDemand(1, 9, spec), 0.0)
    assert node.leases.mean_task_us == 200


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


def test_for_a_group_that_waits_as_many_leases_are_asked_back_as_it_needs() -> None:
    node = Node(CPU=4)
    leases = [lease for _, lease in granted(node.demand(b"A", 9))]
    node.ledger.set_aside(b"group", ResourceSet.of({"CPU": 3}))
    first, second, third = reclaimed(node.pass_time(2 * QUANTUM_S))
    assert node.leases.next_deadline(node.now) is not None
    for lease in (first, second, third):
        assert granted(node.give_back(b"A", lease)) == [], "what comes back is kept"
        assert reclaimed(node.pass_time(2 * QUANTUM_S)) == []
    (last,) = set(leases) - {first, second, third}
    assert len(granted(node.give_back(b"A", last))) == 1, "the fourth CPU is for tasks"
    node.ledger.set_aside(b"group", ResourceSet())
    assert len(granted(node.dispatch())) == 3


def test_what_cannot_run_because_a_group_waits_may_run_elsewhere() -> None:
    node = two_nodes(CPU=2)
    node.ledger.set_aside(b"group", ResourceSet.of({"CPU": 2}))
    assert granted(node.demand(b"A", 1)) == []
    assert asked(node.pass_time(SPILL_AFTER_S)) == [1]


def test_a_job_keeps_its_workers_to_itself() -> None:
    node = Node(workers=1, CPU=2)
    ((_, lease),) = granted(node.demand(b"A", 1))
    node.give_back(b"A", lease)
    assert granted(node.demand(b"B", 1, job=OTHER_JOB)) == []
    assert node.pool.of_job(JOB)[0].state is WorkerState.IDLE


# --- placement groups ---

GROUP = b"\x07" * 16
IN_GROUP = f"group:{GROUP.hex()}"


def with_bundle(node: Node, **amounts: float) -> list[Action]:
    node.ledger.grow(bundles.offered(ResourceSet.of(amounts), GROUP, 0))
    node.leases.bundles_changed()
    return node.dispatch()


def test_a_task_of_a_placement_group_waits_for_its_bundle_and_takes_nothing_else() -> None:
    node = Node()
    assert asked(node.demand(b"A", 1, strategy=IN_GROUP)) == [1]
    assert len(granted(with_bundle(node, CPU=1))) == 1
    assert node.ledger.available["CPU"] == 20_000
    assert granted(node.demand(b"B", 1, strategy=f"{IN_GROUP}:0+")) == [], "the bundle is full"


def test_a_task_of_a_placement_group_that_needs_nothing_is_bound_and_bounded_too() -> None:
    node = Node()
    node.leases.demanded(b"A", JOB, frames.LeaseDemand(1, 40, frames.SchedulingClass("f", (), IN_GROUP)), 0.0)
    assert granted(node.dispatch()) == []
    assert len(granted(with_bundle(node, CPU=1))) == 8


def test_a_group_that_no_scheduler_knows_of_is_waited_for_and_a_removed_one_is_not() -> None:
    node = Node(grace_s=0.0)
    node.demand(b"A", 1, strategy=IN_GROUP)
    assert refusals(node.answer(b"A", None)) == [], "nobody answers"
    node.pass_time(LAST_PAUSE_S)
    assert refusals(node.answer(b"A", SchedulerAnswer())) == []
    node.pass_time(LAST_PAUSE_S)
    (refusal,) = refusals(node.answer(b"A", no("it was removed")))
    assert (refusal.kind, refusal.reason) == (RefusalKind.GROUP_REMOVED, "it was removed")


def test_what_runs_in_a_removed_group_ends_and_what_waits_is_refused() -> None:
    node = Node()
    with_bundle(node, CPU=1)
    ((_, lease_id),) = granted(node.demand(b"A", 2, strategy=IN_GROUP))
    ((_, other),) = granted(node.demand(b"B", 1))
    actions = node.leases.group_removed(GROUP, "why", node.now)
    assert [a.message for a in actions if isinstance(a, Send)] == [
        frames.LeaseLost(lease_id, ExitKind.INTENDED_SYSTEM_EXIT, "why", group_removed=True),
        frames.LeaseRefused(1, RefusalKind.GROUP_REMOVED, "why"),
    ]
    assert len([a for a in actions if isinstance(a, KillWorker)]) == 1
    assert node.leases.worker_of(lease_id) is None and node.leases.worker_of(other) is not None


def test_a_bundle_that_leaves_the_node_takes_its_waiting_tasks_along() -> None:
    node = Node()
    with_bundle(node, CPU=1)
    node.demand(b"A", 1, strategy=IN_GROUP)
    node.demand(b"B", 1, strategy=IN_GROUP)
    node.ledger.shrink(bundles.offered(ResourceSet.of({"CPU": 1}), GROUP, 0))
    node.leases.bundles_changed()
    assert asked(node.pass_time(0.0)) == [1]
    assert spilled(node.answer(b"B", to(OTHER))) == [(OTHER, 1)]


def collected(actions: list[Action]) -> bool:
    return any(isinstance(action, CollectGarbage) for action in actions)


def test_garbage_is_collected_when_a_task_waits_for_what_an_actor_holds() -> None:
    node = Node(CPU=1)
    node.ledger.allocate(b"actor", ResourceSet.of({"CPU": 1}))
    assert not collected(node.demand(b"A", 1))
    assert not collected(node.pass_time(PATIENCE_S / 2)), "who waits for a moment does not starve"
    assert collected(node.pass_time(PATIENCE_S / 2))
    assert not collected(node.pass_time(PATIENCE_S)), "not time and again"


def test_garbage_is_not_collected_for_who_waits_for_a_lease() -> None:
    node = Node(CPU=1)
    node.demand(b"A", 1)
    node.demand(b"B", 1)
    assert not any(collected(node.pass_time(PATIENCE_S)) for _ in range(20))


def test_garbage_is_collected_for_an_actor_at_once() -> None:
    node = Node(CPU=1)
    need = ResourceSet.of({"CPU": 1})
    node.ledger.allocate(b"actor", need)
    node.leases.actor_waits(b"other actor", need, node.now)
    assert collected(node.pass_time(0.0))


MIB = 1 << 20


def two_nodes(**total: float) -> Node:
    node = Node(**total)
    node.leases.alone = False
    return node


def test_a_task_whose_arguments_lie_on_another_node_is_asked_about_before_it_is_granted() -> None:
    node = two_nodes(CPU=4)
    actions = node.demand(b"A", 2, arguments={OTHER: 10 * MIB, NODE: MIB})
    assert asked(actions) == [2] and granted(actions) == []
    assert spilled(node.answer(b"A", to(OTHER, 2))) == [(OTHER, 2)]
    assert node.leases.queued == 0


@pytest.mark.parametrize(
    "answer",
    [SchedulerAnswer(), no(), None, to(NODE, 2), to(THIRD, 2)],
    ids=["busy", "unknown", "no scheduler", "here", "a third one, which has no arguments either"],
)
def test_it_runs_here_when_the_node_with_its_arguments_has_no_room(answer: SchedulerAnswer | None) -> None:
    node = two_nodes(CPU=4)
    node.demand(b"A", 2, arguments={OTHER: 10 * MIB})
    assert len(granted(node.answer(b"A", answer))) == 2


def test_what_has_come_during_the_question_is_asked_about_at_once() -> None:
    node = two_nodes(CPU=4)
    node.demand(b"A", 1, arguments={OTHER: 10 * MIB})
    assert asked(node.demand(b"A", 3, arguments={OTHER: 10 * MIB})) == []
    node.answer(b"A", to(OTHER, 1))
    assert asked(node.pass_time(0.0)) == [2]
    assert len(granted(node.answer(b"A", SchedulerAnswer()))) == 2


@pytest.mark.parametrize("arguments", [None, {NODE: MIB}, {NODE: 2 * MIB, OTHER: MIB}])
def test_a_task_whose_arguments_are_here_is_granted_here(arguments: dict[bytes, int] | None) -> None:
    node = two_nodes(CPU=4)
    assert len(granted(node.demand(b"A", 2, arguments=arguments))) == 2


def test_a_task_that_has_no_choice_runs_here_wherever_its_arguments_are() -> None:
    arguments = {OTHER: 10 * MIB}
    assert len(granted(two_nodes().demand(b"A", 1, arguments=arguments, placed=True))) == 1
    assert len(granted(two_nodes().demand(b"A", 1, arguments=arguments, strategy=f"node:{NODE.hex()}"))) == 1
    assert len(granted(Node().demand(b"A", 1, arguments=arguments))) == 1, "there is no other node"


def test_a_node_that_is_drained_does_not_wait_for_the_one_with_the_arguments() -> None:
    node = two_nodes(CPU=4)
    node.demand(b"A", 1, arguments={OTHER: 10 * MIB})
    node.leases.drain()
    assert granted(node.answer(b"A", SchedulerAnswer())) == []
    assert spilled(node.answer(b"A", to(OTHER))) == [(OTHER, 1)]


def test_no_more_are_granted_here_than_a_scheduler_has_placed_here() -> None:
    node = two_nodes(CPU=4)
    assert asked(node.demand(b"A", 4, strategy="SPREAD")) == [4]
    assert len(granted(node.answer(b"A", to(NODE, 1)))) == 1
    assert len(granted(node.answer(b"A", to(NODE, 2)))) == 2


# -- in words ----------------------------------------------------------------------------------------------------


def test_why_a_lease_is_not_granted_yet() -> None:
    node = Node(CPU=2)
    node.demand(b"A", 2)
    node.demand(b"B", 1)
    node.pass_time(1.5)
    told = node.leases.explain(b"B", 1, 0, node.now)
    held = f"held: 2 CPU by tasks of job {JOB.hex()}"
    assert told == f"it waits for 1 CPU for 1.5 s: 1 CPU more must become free here ({held})"
    assert node.leases.explain(b"A", 1, 0, node.now) == "nothing is waited for here"
    assert node.leases.explain(b"C", 1, 0, node.now) == "nothing is waited for here"


def test_why_a_lease_waits_for_a_process() -> None:
    node = Node(workers=0, CPU=2)
    node.demand(b"A", 1)
    assert "there is room, and 3 worker processes are starting" in node.leases.explain(b"A", 1, 3, node.now)


def test_why_a_lease_will_never_be_granted_here() -> None:
    node = Node(CPU=2)
    node.demand(b"A", 1, CPU=8)
    assert "it waits for 8 CPU" in node.leases.explain(b"A", 1, 0, node.now)
    assert "lacks 6 CPU" in node.leases.explain(b"A", 1, 0, node.now)
    node.answer(b"A", no("no node has 8 CPU"))
    assert node.leases.explain(b"A", 1, 0, node.now).endswith("no node has 8 CPU")


def test_why_a_lease_in_a_placement_group_waits() -> None:
    node = Node(CPU=2)
    node.demand(b"A", 1, strategy=f"group:{b'g'.hex() * 16}")
    assert "no bundle of its placement group is reserved here" in node.leases.explain(b"A", 1, 0, node.now)


def held(node: Node) -> dict[int, int]:
    """How many leases each class has, by its key."""
    return {key: len(demand.held) for (_, key), demand in node.leases._demands.items()}


def asked_at_once(actions: list[Action]) -> list[bytes]:
    messages = [action.message for action in actions if isinstance(action, Send)]
    return [each.lease_id for each in messages if isinstance(each, frames.LeaseReclaim) and each.at_once]


def test_a_higher_priority_of_the_same_job_is_served_first_whoever_came_first() -> None:
    node = Node(CPU=1)
    ((_, first),) = granted(node.demand(b"A", 1))
    node.demand(b"A", 5, key=2)
    node.demand(b"B", 2, key=3, priority=1)
    node.demand(b"A", 2, key=4, priority=2)
    order = []
    lease, owner = first, b"A"
    for _ in range(6):
        ((owner, lease),) = granted(node.give_back(owner, lease))
        order.append(node.leases._leases.by_id[lease].demand.priority)
    assert order == [2, 2, 1, 1, 0, 0]


def test_leases_of_a_lower_priority_are_asked_back_at_once_and_no_more_than_are_needed() -> None:
    node = Node(CPU=4)
    low = [lease for _, lease in granted(node.demand(b"A", 8))]
    asked = asked_at_once(node.demand(b"B", 2, key=2, priority=1))
    assert len(asked) == 2 and set(asked) < set(low)
    assert asked_at_once(node.pass_time(1.0)) == []
    ((owner, _),) = granted(node.give_back(b"A", asked[0]))
    assert owner == b"B"


def test_the_lowest_priority_gives_first() -> None:
    node = Node(CPU=2)
    granted(node.demand(b"A", 1, key=1, priority=1))
    ((_, lowest),) = granted(node.demand(b"A", 1, key=2, priority=-1))
    assert asked_at_once(node.demand(b"A", 1, key=3, priority=2)) == [lowest]


def test_a_higher_priority_gives_nothing_to_a_lower_one() -> None:
    node = Node(CPU=2)
    node.demand(b"A", 10, priority=1)
    node.demand(b"B", 1, key=2)
    assert reclaimed(node.pass_time(10 * QUANTUM_S)) == []


def test_what_does_not_fit_yet_is_not_passed_by_a_lower_priority() -> None:
    node = Node(CPU=2)
    ((_, first),) = granted(node.demand(b"A", 1))
    assert granted(node.demand(b"A", 1, key=2, priority=1, CPU=2)) == []
    assert granted(node.demand(b"A", 9)) == []
    assert len(granted(node.give_back(b"A", first))) == 1
    assert held(node) == {1: 0, 2: 1}


def test_what_a_higher_priority_cannot_use_is_used() -> None:
    node = Node(CPU=4, GPU=1)
    granted(node.demand(b"A", 5, key=1, priority=1, CPU=1, GPU=1))
    granted(node.demand(b"A", 9, key=2))
    # One has the GPU, and one CPU is kept for the next one that gets it.
    assert held(node) == {1: 1, 2: 2}


def test_priorities_of_other_jobs_do_not_count() -> None:
    node = Node(CPU=2)
    node.demand(b"A", 4, priority=100)
    assert asked_at_once(node.demand(b"B", 4, key=2, job=OTHER_JOB)) == []
    (asked,) = reclaimed(node.pass_time(2 * QUANTUM_S))
    ((owner, _),) = granted(node.give_back(b"A", asked))
    assert owner == b"B"


@pytest.mark.parametrize(("weight", "theirs"), [(1.0, 2), (3.0, 1)])
def test_jobs_share_by_their_weights(weight: float, theirs: int) -> None:
    node = Node(CPU=4)
    node.demand(b"A", 100)
    asked = reclaimed(node.demand(b"B", 100, key=2, job=OTHER_JOB, weight=weight) + node.pass_time(2 * QUANTUM_S))
    for lease in asked:
        node.give_back(b"A", lease)
    assert held(node) == {1: theirs, 2: 4 - theirs}
    assert reclaimed(node.pass_time(2 * QUANTUM_S)) == []
