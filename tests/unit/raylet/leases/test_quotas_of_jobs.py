"""Jobs with a quota on one node: no lease without an allowance, and no allowance without a use."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from shoal_common.channel import frames
from shoal_common.placement.resources import ResourceSet
from shoal_raylet.actions import Action, AskAllowance, AskScheduler, Send
from shoal_raylet.leases.allowances import IDLE_S, LAST_PAUSE_S, RENEW_S, AllowanceAnswer
from shoal_raylet.leases.demand import SPILL_AFTER_S
from shoal_raylet.leases.reclaiming import QUANTUM_S
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.worker_leases import PASSED_OVER_S, WorkerLeases
from shoal_raylet.leases.worker_pool import WorkerPool

NODE, JOB, OTHER_JOB, OWNER = bytes(16), b"job1", b"job2", b"owner"
NOTHING, ONE = ResourceSet(), ResourceSet.of({"CPU": 1})


def cpus(count: float) -> ResourceSet:
    return ResourceSet.of({"CPU": count})


class Node:
    """Of eight CPUs; its job may hold four in the cluster."""

    def __init__(self, workers: int = 20) -> None:
        self.ledger = ResourceLedger(ResourceSet.of({"CPU": 8}))
        ids, leases = itertools.count(1), itertools.count(1)
        self.pool = WorkerPool(50, 0, 10.0, lambda: b"w%d" % next(ids))
        self.leases = WorkerLeases(NODE, {}, self.ledger, self.pool, 30.0, lambda: b"l%d" % next(leases))
        self.now = 0.0
        self.held: dict[bytes, int] = {}
        self.reclaimed: list[bytes] = []
        self.questions: list[AskAllowance] = []
        self.asked_scheduler: list[int] = []
        self.wanted = 0
        while len(self.pool.workers) < workers:
            for action in self.pool.balance({"": workers}, 0.0):
                worker_id = action.worker_id  # type: ignore[union-attr]
                self.pool.registered(worker_id, 1, frames.WorkerAddress(NODE, worker_id, "/w"), 0.0)

    def demand(
        self, total: int, key: int = 1, need: float = 1, priority: int = 0, job: bytes = JOB, quota: bool = True
    ) -> None:
        resources = tuple(cpus(need).grains.items())
        limit = (("CPU", 40_000),) if quota else ()
        spec = frames.SchedulingClass("f", resources, priority=priority, quota=limit)
        self.note(self.leases.demanded(OWNER + job, job, frames.LeaseDemand(key, total, spec), self.now))
        self.dispatch()

    def dispatch(self) -> None:
        actions, wanted = self.leases.dispatch(self.now)
        self.wanted = sum(wanted.values())
        self.note(actions)
        self.leases.validate()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.note(self.leases.tick(self.now))
        self.dispatch()

    def answer(self, granted: float, left: float = 0, asked_back: float = 0, for_tasks: float = 4) -> None:
        answer = AllowanceAnswer(cpus(granted), cpus(left), cpus(for_tasks), cpus(asked_back))
        self.leases.allowance_answered(JOB, self.questions[-1].number, answer, self.now)
        self.dispatch()

    def give_back(self, lease_id: bytes) -> None:
        del self.held[lease_id]
        self.leases.returned(OWNER + JOB, lease_id, False, self.now)
        self.dispatch()

    def note(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(_, frames.LeaseGranted(class_key=key, lease_id=lease_id)):
                    self.held[lease_id] = key
                case Send(_, frames.LeaseReclaim(lease_id=lease_id)):
                    self.reclaimed.append(lease_id)
                case AskAllowance():
                    self.questions.append(action)
                case AskScheduler(count=count):
                    self.asked_scheduler.append(count)


@pytest.fixture
def node() -> Node:
    return Node()


def test_nothing_without_an_allowance_and_as_much_as_it_allows(node: Node) -> None:
    node.demand(10)
    (question,) = node.questions
    assert not node.held and question.keeps == NOTHING
    assert question.wants == (ONE,) * 8, "as many as there is room for"
    node.answer(4)
    assert len(node.held) == 4
    assert "max_resources" in node.leases.explain(OWNER + JOB, 1, 0, node.now)


def test_other_jobs_are_served_meanwhile(node: Node) -> None:
    node.demand(10)
    node.demand(10, job=OTHER_JOB, quota=False)
    assert len(node.held) == 8


def test_no_more_workers_are_started_than_it_allows() -> None:
    node = Node(workers=0)
    node.demand(10)
    assert node.wanted == 0
    node.answer(4)
    assert node.wanted == 4
    node.pass_time(2 * IDLE_S)
    assert node.questions[-1].keeps == cpus(4), "those that start have a use for it"


def test_what_is_not_used_goes_back(node: Node) -> None:
    node.demand(2)
    node.answer(2)
    for lease_id in list(node.held):
        node.give_back(lease_id)
    assert len(node.questions) == 1
    node.pass_time(IDLE_S)
    assert (node.questions[-1].keeps, node.questions[-1].wants) == (NOTHING, ())
    node.answer(0)
    node.pass_time(10 * RENEW_S)
    assert len(node.questions) == 2


def test_a_question_without_an_answer_gets_nothing_and_is_asked_again(node: Node) -> None:
    node.demand(1)
    node.leases.allowance_answered(JOB, 1, None, node.now)
    node.pass_time(LAST_PAUSE_S)
    assert [each.number for each in node.questions] == [1, 2]
    node.leases.allowance_answered(JOB, 1, AllowanceAnswer(ONE, NOTHING, NOTHING, NOTHING), node.now)
    node.dispatch()
    assert not node.held, "an answer to an earlier question is none"


def test_what_others_wait_for_is_asked_back_from_those_that_have_had_it(node: Node) -> None:
    node.demand(10)
    node.answer(4)
    node.pass_time(RENEW_S)
    node.answer(4, asked_back=2)
    node.pass_time(QUANTUM_S)
    assert len(node.reclaimed) == 2
    node.give_back(node.reclaimed[0])
    assert len(node.held) == 3, "its own do not get it"
    node.answer(4, asked_back=2)
    node.pass_time(LAST_PAUSE_S)
    assert node.questions[-1].keeps == cpus(3)


def test_what_needs_more_of_the_quota_is_passed_for_a_moment_only(node: Node) -> None:
    node.demand(9)
    node.answer(4)
    node.demand(1, key=2, need=3)
    for lease_id in list(node.held)[:2]:
        node.give_back(lease_id)
    assert list(node.held.values()) == [1] * 4
    node.pass_time(PASSED_OVER_S)
    for lease_id in list(node.held)[:3]:
        node.give_back(lease_id)
    assert sorted(node.held.values()) == [1, 2]


def test_the_higher_priority_gets_what_the_quota_has(node: Node) -> None:
    node.demand(9)
    node.answer(4)
    node.demand(1, key=2, need=2, priority=1)
    for count in (1, 2):
        assert len(node.reclaimed) == count
        node.give_back(node.reclaimed[-1])
    assert sorted(node.held.values()) == [1, 1, 2]


def test_a_task_that_waits_lends_its_part_to_those_it_waits_for(node: Node) -> None:
    node.demand(1, need=4)
    node.answer(4)
    node.demand(1, key=2)
    assert list(node.held.values()) == [1]
    (worker_id,) = [worker.worker_id for worker in node.pool.workers.values() if worker.job_id]
    node.ledger.lend_cpu(worker_id)
    node.dispatch()
    assert sorted(node.held.values()) == [1, 2]


def test_no_more_is_sent_elsewhere_than_the_quota_allows(node: Node) -> None:
    node.leases.alone = False
    node.demand(8, job=OTHER_JOB, quota=False)
    node.demand(100)
    assert node.questions[-1].wants == (), "there is no room here that it could use"
    node.answer(0, left=3)
    node.pass_time(SPILL_AFTER_S)
    assert node.asked_scheduler == [3] and node.leases.queued == 3
    node.pass_time(RENEW_S)
    node.answer(0, left=0)
    assert node.leases.queued == 0
