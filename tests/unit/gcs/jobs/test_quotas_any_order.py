"""A job's quota between the GCS and three nodes, while questions and answers are late, lost and doubled, nodes die and
the GCS is replaced: never more is held than the quota, and nothing waits for ever while there is some left.

Both ends are the real ones, as `shoal_raylet.node` and `shoal_gcs.jobs.quota_manager` wire them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from copy import deepcopy

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shoal_common.channel import frames
from shoal_common.placement.resources import ResourceSet
from shoal_gcs.jobs.quotas import FORGOTTEN_S, Quota
from shoal_raylet.actions import Action, AskAllowance, AskScheduler, Send
from shoal_raylet.leases.allowances import LAST_PAUSE_S, AllowanceAnswer
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.worker_leases import WorkerLeases
from shoal_raylet.leases.worker_pool import WorkerPool, WorkerState

JOB, OWNER = b"job1", b"owner"
LIMIT = {"CPU": 30_000, "GPU": 10_000}
NEEDS = [{"CPU": 1}, {"CPU": 2}, {"CPU": 1, "GPU": 1}, {"CPU": 3}, {"disk": 1}]
INDICES = st.integers(0, 5)


class Node:
    def __init__(self, node_id: bytes, incarnation: int, now: float) -> None:
        self.node_id, self.incarnation = node_id, incarnation
        self.ledger = ResourceLedger(ResourceSet.of({"CPU": 4, "GPU": 1, "disk": 2}))
        workers, leases = itertools.count(1), itertools.count(1)
        self.pool = WorkerPool(20, 0, 10.0, lambda: b"w%d" % next(workers))
        self.leases = WorkerLeases(node_id, {}, self.ledger, self.pool, 30.0, lambda: b"l%d" % next(leases))
        self.totals = [0] * len(NEEDS)
        #: By lease id.
        self.held: dict[bytes, ResourceSet] = {}
        self.asked_back: list[bytes] = []
        while len(self.pool.workers) < 10:
            for action in self.pool.balance({"": 10}, now):
                worker_id = action.worker_id  # type: ignore[union-attr]
                self.pool.registered(worker_id, 1, frames.WorkerAddress(node_id, worker_id, "/w"), now)

    def want(self, kind: int, count: int, now: float) -> None:
        self.totals[kind] += count
        resources = tuple(sorted(ResourceSet.of(NEEDS[kind]).grains.items()))
        spec = frames.SchedulingClass("f", resources, quota=tuple(sorted(LIMIT.items())))
        message = frames.LeaseDemand(kind, self.totals[kind], spec, placed=True)
        self.take_note(self.leases.demanded(OWNER, JOB, message, now), kind)

    def take_note(self, actions: Sequence[Action], kind: int | None = None) -> list[AskAllowance]:
        for action in actions:
            match action:
                case Send(_, frames.LeaseGranted(class_key=key, lease_id=lease_id)):
                    self.held[lease_id] = ResourceSet.of(NEEDS[key])
                case Send(_, frames.LeaseReclaim(lease_id=lease_id)):
                    self.asked_back.append(lease_id)
        return [action for action in actions if isinstance(action, AskAllowance)]

    @property
    def waits(self) -> bool:
        return bool(self.leases._waiting)


class Cluster(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.quota = Quota(LIMIT)
        #: What the GCS has written down.
        self.stored: dict[bytes, object] = {}
        self.incarnations = itertools.count(1)
        self.nodes = [Node(b"node%d" % n, next(self.incarnations), 0.0) for n in range(3)]
        #: On their way, with the raylet that sent them.
        self.questions: list[tuple[Node, AskAllowance]] = []
        self.answers: list[tuple[Node, AskAllowance, AllowanceAnswer | None]] = []
        self.actors: set[bytes] = set()

    # -- what nodes do -------------------------------------------------------------------------------------

    @rule(which=INDICES, kind=st.integers(0, len(NEEDS) - 1), count=st.integers(1, 3))
    def tasks_come(self, which: int, kind: int, count: int) -> None:
        node = self.nodes[which % 3]
        node.want(kind, count, self.now)
        self.schedule(node)

    @precondition(lambda self: any(node.held for node in self.nodes))
    @rule(which=INDICES)
    def a_lease_ends(self, which: int) -> None:
        node = [node for node in self.nodes if node.held][which % sum(bool(node.held) for node in self.nodes)]
        self.give_back(node, list(node.held)[which % len(node.held)])

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for node in self.nodes:
            self.schedule(node)

    @rule(which=INDICES)
    def a_node_dies_and_comes_again(self, which: int) -> None:
        node = self.nodes[which % 3]
        if self.quota.node_died(node.node_id):
            self.store()
        self.nodes[which % 3] = Node(node.node_id, next(self.incarnations), self.now)

    # -- messages ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.questions)
    @rule(which=INDICES, doubled=st.booleans())
    def a_question_arrives(self, which: int, doubled: bool) -> None:
        at = which % len(self.questions)
        node, question = self.questions[at] if doubled else self.questions.pop(at)
        self.answer(node, question)

    @precondition(lambda self: self.answers)
    @rule(which=INDICES, lost=st.booleans())
    def an_answer_arrives(self, which: int, lost: bool) -> None:
        node, question, answer = self.answers.pop(which % len(self.answers))
        node.leases.allowance_answered(JOB, question.number, None if lost else answer, self.now)
        self.schedule(node)

    @precondition(lambda self: self.questions)
    @rule(which=INDICES)
    def a_question_is_given_up(self, which: int) -> None:
        """It may arrive all the same, later."""
        node, question = self.questions[which % len(self.questions)]
        node.leases.allowance_answered(JOB, question.number, None, self.now)
        self.schedule(node)

    # -- the GCS -------------------------------------------------------------------------------------------

    @rule(which=st.sampled_from([b"actor", b"group"]), cpus=st.integers(1, 2))
    def an_actor_comes(self, which: bytes, cpus: int) -> None:
        if self.quota.take(which, ResourceSet.of({"CPU": cpus}), self.now):
            self.actors.add(which)

    @precondition(lambda self: self.actors)
    @rule()
    def an_actor_ends(self) -> None:
        self.quota.holds(self.actors.pop(), ResourceSet())

    @rule()
    def the_gcs_is_replaced(self) -> None:
        quota = Quota(LIMIT)
        quota.load(deepcopy(self.stored))  # type: ignore[arg-type]
        for actor in self.actors:
            quota.holds(actor, self.quota._held[actor])
        self.quota = quota

    # -- inside --------------------------------------------------------------------------------------------

    def store(self) -> None:
        self.stored = deepcopy(self.quota.allowances)  # type: ignore[assignment]

    def answer(self, node: Node, question: AskAllowance) -> None:
        answer = None
        if any(each is node for each in self.nodes):
            before = self.quota.allowances.get(node.node_id)
            held = before.granted if before is not None else ResourceSet()
            got = self.quota.ask(
                node.node_id, node.incarnation, question.number, question.keeps, question.wants, self.now
            )
            if got is not None:
                answer = AllowanceAnswer(got.granted, got.left, got.for_tasks, got.asked_back)
                if got.granted != held:
                    self.store()
        self.answers.append((node, question, answer))

    def give_back(self, node: Node, lease_id: bytes) -> None:
        del node.held[lease_id]
        node.leases.returned(OWNER, lease_id, False, self.now)
        self.schedule(node)

    def schedule(self, node: Node) -> None:
        actions = node.leases.tick(self.now)
        granted, _ = node.leases.dispatch(self.now)
        self.questions += [(node, question) for question in node.take_note([*actions, *granted])]
        for action in actions:
            if isinstance(action, AskScheduler):
                node.leases.answered(OWNER, action.class_key, None, self.now)

    @invariant()
    def never_more_than_the_quota(self) -> None:
        held = [resources for node in self.nodes for resources in node.held.values()]
        total = ResourceSet.sum([*held, *(self.quota._held[actor] for actor in self.actors)])
        assert self.quota.counted(total).fits_in(ResourceSet(LIMIT))

    @invariant()
    def books_are_in_order(self) -> None:
        self.quota.validate()
        for node in self.nodes:
            node.leases.validate()
            node.ledger.validate()
            assert sum(w.state is WorkerState.LEASED for w in node.pool.workers.values()) == len(node.held)

    def teardown(self) -> None:
        """Everything arrives and everything ends: then everything gets its turn."""
        while self.actors:
            self.quota.holds(self.actors.pop(), ResourceSet())
        self.quota._waiting.pop(b"actor", None)
        self.quota._waiting.pop(b"group", None)
        for _ in range(200):
            for node in self.nodes:
                for lease_id in list(node.held):
                    self.give_back(node, lease_id)
            for _ in range(20):
                while self.questions:
                    self.answer(*self.questions.pop(0))
                while self.answers:
                    node, question, answer = self.answers.pop(0)
                    node.leases.allowance_answered(JOB, question.number, answer, self.now)
                    self.schedule(node)
                self.now += 0.001
            if not any(node.waits or node.held for node in self.nodes):
                break
            self.now += LAST_PAUSE_S
            for node in self.nodes:
                self.schedule(node)
        assert not any(node.waits for node in self.nodes), "everything has had its turn"
        self.now += FORGOTTEN_S
        for _ in range(3):
            for node in self.nodes:
                self.schedule(node)
            while self.questions:
                self.answer(*self.questions.pop(0))
        assert self.quota.left == ResourceSet(LIMIT), "nobody keeps what he does not use"


Cluster.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestAnyOrder = Cluster.TestCase
