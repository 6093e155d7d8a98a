"""Leases, actors and bundles of one node while owners, workers and connections end in any order: nothing is granted
twice, and nothing stays held when all have ended.

The deciding parts are the real ones, wired as `shoal_raylet.node` does it. What is held is known to the model from the
messages alone: a grant begins it; the return, the loss that an owner is told, or the end of owner or process ends it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shoal_common.channel import frames
from shoal_common.kinds import ExitKind
from shoal_common.placement.resources import GRAINS, ResourceSet
from shoal_raylet.actions import Action, AskScheduler, KillWorker, Send, StartWorker, WorkersUnstartable
from shoal_raylet.leases.actor_placement import ActorPlacement, PlacedActor
from shoal_raylet.leases.bundle_reservations import BundleReservations
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.scheduler_answer import LeasesPlaced, SchedulerAnswer
from shoal_raylet.leases.worker_leases import WorkerLeases
from shoal_raylet.leases.worker_pool import WorkerPool, WorkerState

NODE, OTHER = bytes(16), b"\1" * 16
TOTAL = ResourceSet.of({"CPU": 3, "GPU": 2, "disk": 1})
NEEDS = [{"CPU": 1}, {"CPU": 0.5, "GPU": 1}, {"GPU": 0.5}, {"CPU": 1, "disk": 1}, {}]
DRIVERS = [b"driver1", b"driver2"]
ACTORS, GROUPS = [b"actor1", b"actor2"], [b"group1", b"group2"]
INDICES = st.integers(0, 11)


@dataclass(frozen=True)
class Grant:
    owner: bytes
    worker_id: bytes
    resources: ResourceSet
    devices: dict[str, list[str]]


class Leases(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = ResourceLedger(TOTAL, {"GPU": ["0", "1"]})
        workers, leases = itertools.count(1), itertools.count(1)
        self.pool = WorkerPool(2, 1, 10.0, lambda: b"worker%d" % next(workers))
        new_lease_id = lambda: b"lease%d" % next(leases)  # noqa: E731
        self.leases = WorkerLeases(NODE, {}, self.ledger, self.pool, 30.0, new_lease_id)
        self.actors = ActorPlacement(self.ledger, self.pool)
        self.reservations = BundleReservations(self.ledger)
        self.now = 0.0
        #: Connected drivers; what workers own is the workers' own.
        self.drivers = set(DRIVERS)
        #: Of each owner's classes, how many were wanted in all, and granted or sent elsewhere.
        self.totals: dict[tuple[bytes, int], int] = {}
        self.got: dict[tuple[bytes, int], int] = {}
        #: As messages tell: by lease id, and by actor.
        self.granted: dict[bytes, Grant] = {}
        self.placed: dict[bytes, Grant] = {}
        #: Lease ids that were once granted.
        self.known: list[tuple[bytes, bytes]] = []
        self.disconnected: set[bytes] = set()
        self.blocked: set[bytes] = set()
        self.questions: list[AskScheduler] = []
        self.incarnation = 0
        self.schedule()

    # -- owners -------------------------------------------------------------------------------------------

    @precondition(lambda self: self.owners())
    @rule(which=INDICES, key=st.integers(0, len(NEEDS) - 1), more=st.integers(-1, 3), placed=st.booleans())
    def demand(self, which: int, key: int, more: int, placed: bool) -> None:
        """``more`` than before; -1: no more than it has got."""
        owner = self.owners()[which % len(self.owners())]
        total = self.totals.get((owner, key), 0) + more if more >= 0 else self.got.get((owner, key), 0)
        self.totals[owner, key] = total
        spec = frames.SchedulingClass("f", tuple(sorted(ResourceSet.of(NEEDS[key]).grains.items())))
        self.execute(
            self.leases.demanded(owner, self.job(owner), frames.LeaseDemand(key, total, spec, placed), self.now)
        )
        self.schedule()

    @precondition(lambda self: self.known)
    @rule(which=INDICES, exits=st.booleans(), foreign=st.booleans())
    def give_back(self, which: int, exits: bool, foreign: bool) -> None:
        """Perhaps a second time, when it is over, or by somebody whose it is not."""
        lease_id, owner = self.known[-1 - which % len(self.known)]
        by = b"somebody" if foreign else owner
        self.leases.returned(by, lease_id, exits, self.now)
        if not foreign and (self.granted.get(lease_id) is not None):
            self.end(lease_id)
        self.schedule()

    @precondition(lambda self: self.drivers)
    @rule(which=INDICES)
    def driver_ends(self, which: int) -> None:
        driver = sorted(self.drivers)[which % len(self.drivers)]
        self.drivers.discard(driver)
        self.owner_gone(driver)
        for actor in self.actors.of_job(driver):
            self.stop_actor(actor.actor_id)
        for worker in self.pool.of_job(driver):
            self.pool.ending(worker.worker_id, self.now)
        self.schedule()

    @rule(which=st.sampled_from(DRIVERS))
    def driver_comes(self, which: bytes) -> None:
        """Or comes again, without its leases."""
        if which in self.drivers:
            self.owner_gone(which)
        self.drivers.add(which)
        self.schedule()

    # -- workers ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.in_state(WorkerState.STARTING))
    @rule(which=INDICES)
    def worker_registers(self, which: int) -> None:
        starting = self.in_state(WorkerState.STARTING)
        worker_id = starting[which % len(starting)]
        self.pool.registered(worker_id, 1, frames.WorkerAddress(NODE, worker_id, "/w"), self.now)
        self.schedule()

    @precondition(lambda self: self.connected())
    @rule(which=INDICES)
    def connection_of_a_worker_ends(self, which: int) -> None:
        """Its process may live on for a while."""
        worker_id = self.connected()[which % len(self.connected())]
        self.disconnected.add(worker_id)
        self.owner_gone(worker_id)
        self.pool.ending(worker_id, self.now)
        self.schedule()

    @precondition(lambda self: self.pool.workers)
    @rule(which=INDICES)
    def process_of_a_worker_ends(self, which: int) -> None:
        """Perhaps before its connection is seen to end."""
        worker_id = list(self.pool.workers)[which % len(self.pool.workers)]
        worker = self.pool.gone(worker_id)
        assert worker is not None
        if worker.address is None:
            self.execute(self.pool.start_failed(worker, "it fell over", self.now))
        else:
            self.execute(self.leases.worker_lost(worker_id, ExitKind.SYSTEM_ERROR, "it fell over"))
            self.actors.worker_lost(worker_id)
            self.placed = {actor: held for actor, held in self.placed.items() if held.worker_id != worker_id}
            if worker_id not in self.disconnected:
                self.owner_gone(worker_id)
        self.disconnected.discard(worker_id)
        self.schedule()

    @precondition(lambda self: self.connected())
    @rule(which=INDICES, blocked=st.booleans())
    def block(self, which: int, blocked: bool) -> None:
        worker_id = self.connected()[which % len(self.connected())]
        holder = self.pool.workers[worker_id].actor_id or worker_id
        if blocked:
            self.ledger.lend_cpu(holder)
            self.schedule()
        else:
            self.ledger.take_back_cpu(holder)

    # -- actors and bundles -------------------------------------------------------------------------------

    @rule(actor_id=st.sampled_from(ACTORS), driver=st.sampled_from(DRIVERS), need=st.sampled_from(NEEDS))
    def start_actor(self, actor_id: bytes, driver: bytes, need: dict[str, float]) -> None:
        resources = ResourceSet.of(need)
        self.incarnation += 1
        self.stop_actor(actor_id)
        if driver in self.drivers and self.actors.get(actor_id) is None:
            if self.actors.has_room(resources):
                self.leases.actor_placed(actor_id)
                self.actors.accept(
                    PlacedActor(actor_id, self.incarnation, driver, "A", b"", False, resources, resources, "")
                )
            else:
                self.leases.actor_waits(actor_id, resources, self.now)
        self.schedule()

    @rule(actor_id=st.sampled_from(ACTORS))
    def actor_ends(self, actor_id: bytes) -> None:
        self.stop_actor(actor_id)
        self.schedule()

    @rule(group_id=st.sampled_from(GROUPS), number=st.integers(1, 2), need=st.sampled_from(NEEDS[:3]))
    def prepare(self, group_id: bytes, number: int, need: dict[str, float]) -> None:
        self.reservations.prepare(group_id, b"%d" % number, {0: ResourceSet.of(need)}, self.now)
        self.schedule()

    @rule(group_id=st.sampled_from(GROUPS), number=st.integers(1, 2))
    def commit(self, group_id: bytes, number: int) -> None:
        self.reservations.commit(group_id, b"%d" % number)
        self.schedule()

    @rule(group_id=st.sampled_from(GROUPS), number=st.integers(1, 2))
    def give_bundles_back(self, group_id: bytes, number: int) -> None:
        self.reservations.give_back(group_id, b"%d" % number)
        self.schedule()

    # -- time and others ----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.04, 0.2, 1.0, 3.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.schedule()

    @rule(alone=st.booleans())
    def nodes_change(self, alone: bool) -> None:
        self.leases.alone = alone
        self.schedule()

    @precondition(lambda self: self.questions)
    @rule(which=INDICES, here=st.integers(0, 2), there=st.integers(0, 2), nobody=st.booleans())
    def scheduler_answers(self, which: int, here: int, there: int, nobody: bool) -> None:
        """Perhaps an owner that is gone, or wants something else by now."""
        question = self.questions.pop(which % len(self.questions))
        placed = (LeasesPlaced(NODE, "", 0, here), LeasesPlaced(OTHER, "10.0.0.2", 7000, there))
        answer = None if nobody else SchedulerAnswer(placed, infeasible=not here + there)
        self.execute(self.leases.answered(question.owner, question.class_key, answer, self.now))
        self.schedule()

    # -- what must hold -----------------------------------------------------------------------------------

    @invariant()
    def they_are_sound(self) -> None:
        for each in (self.ledger, self.pool, self.leases, self.actors, self.reservations):
            each.validate()

    @invariant()
    def nothing_is_granted_twice(self) -> None:
        held = [*self.granted.values(), *self.placed.values()]
        workers = [each.worker_id for each in held]
        assert len(workers) == len(set(workers)), "a worker for two"
        used = ResourceSet.sum(each.resources for each in held)
        for name in ("GPU", "disk"):
            assert used[name] <= TOTAL[name], f"more {name} than there is"
        shares: dict[str, int] = {}
        for each in held:
            devices = each.devices.get("GPU", [])
            for device in devices:
                shares[device] = shares.get(device, 0) + each.resources["GPU"] // len(devices)
        assert all(share <= GRAINS for share in shares.values()), "more of a device than all of it"

    @invariant()
    def what_is_held_is_what_messages_say(self) -> None:
        assert self.leases.held == len(self.granted)
        for grant in self.granted.values():
            assert self.leases.owner_of(grant.worker_id) == grant.owner

    def teardown(self) -> None:
        """All end."""
        for driver in list(self.drivers):
            self.driver_ends(sorted(self.drivers).index(driver))
        for actor_id in ACTORS:
            self.stop_actor(actor_id)
        for group_id in GROUPS:
            self.reservations.give_back(group_id, b"")
        while used := [i for i, worker in enumerate(self.pool.workers.values()) if worker.job_id]:
            self.process_of_a_worker_ends(used[0])
        self.time_passes(31.0)
        assert self.ledger.available.grains == TOTAL.grains
        assert self.leases.held == self.leases.queued == 0
        assert not self.granted
        assert not self.placed
        assert self.leases.next_deadline(self.now + 100) is None, "nobody waits for anything"

    # -- how ----------------------------------------------------------------------------------------------

    def schedule(self) -> None:
        self.reservations.tick(self.now)
        self.execute(self.leases.tick(self.now))
        for_actors, wanted_by_actors = self.actors.dispatch(self.now)
        for_leases, wanted_by_leases = self.leases.dispatch(self.now)
        self.execute([*for_actors, *for_leases])
        self.execute(self.pool.balance(wanted_by_actors + wanted_by_leases, self.now))

    def execute(self, actions: Sequence[Action]) -> None:
        assigned: frames.LeaseAssigned | None = None
        for action in actions:
            match action:
                case Send(peer, frames.LeaseAssigned() as assigned):
                    assert self.pool.workers[peer].state is WorkerState.LEASED
                case Send(peer, frames.LeaseGranted() as granted):
                    assert assigned is not None
                    assert granted.lease_id == assigned.lease_id
                    assert granted.lease_id not in self.granted
                    assert peer in self.owners(), "a lease for somebody who is gone"
                    resources = ResourceSet(dict(assigned.resources))
                    worker_id = granted.worker.worker_id
                    self.granted[granted.lease_id] = Grant(peer, worker_id, resources, assigned.devices)
                    self.known.append((granted.lease_id, peer))
                    self.count(peer, granted.class_key, 1)
                case Send(peer, frames.LeaseSpillback() as sent):
                    self.count(peer, sent.class_key, sent.count)
                case Send(peer, frames.LeaseRefused() as refused):
                    self.totals[peer, refused.class_key] = self.got.get((peer, refused.class_key), 0)
                case Send(peer, frames.LeaseLost() as lost):
                    assert self.granted[lost.lease_id].owner == peer
                    self.end(lost.lease_id)
                case Send(peer, frames.CreateActor() as created):
                    resources = ResourceSet(dict(created.resources))
                    self.placed[created.actor_id] = Grant(b"", peer, resources, created.devices)
                case KillWorker(worker_id):
                    self.pool.ending(worker_id, self.now)
                case WorkersUnstartable(reason):
                    self.execute(self.leases.workers_unstartable(reason))
                    self.actors.workers_unstartable(reason)
                case AskScheduler():
                    self.questions.append(action)
                case StartWorker(worker_id):
                    assert worker_id in self.pool.workers

    def count(self, owner: bytes, key: int, number: int) -> None:
        self.got[owner, key] = self.got.get((owner, key), 0) + number
        assert self.got[owner, key] <= self.totals[owner, key], "more than was wanted"

    def end(self, lease_id: bytes) -> None:
        del self.granted[lease_id]

    def owner_gone(self, owner: bytes) -> None:
        self.granted = {lease_id: grant for lease_id, grant in self.granted.items() if grant.owner != owner}
        for each in (self.totals, self.got):
            for key in [key for key in each if key[0] == owner]:
                del each[key]
        self.execute(self.leases.owner_gone(owner, self.now))

    def stop_actor(self, actor_id: bytes) -> None:
        self.execute(self.actors.stop(actor_id, True, "it is to end", self.now))

    def owners(self) -> list[bytes]:
        return [*sorted(self.drivers), *(each for each in self.connected() if self.pool.workers[each].job_id)]

    def connected(self) -> list[bytes]:
        known = self.pool.workers.items()
        return [worker for worker, each in known if each.address is not None and worker not in self.disconnected]

    def in_state(self, state: WorkerState) -> list[bytes]:
        return [worker_id for worker_id, worker in self.pool.workers.items() if worker.state is state]

    def job(self, owner: bytes) -> bytes:
        worker = self.pool.workers.get(owner)
        return worker.job_id if worker is not None else owner


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=20, stateful_step_count=40, deadline=None)
