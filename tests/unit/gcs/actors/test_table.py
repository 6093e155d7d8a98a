"""Names, owners, jobs and the remembered dead."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shoal_common.channel.frames import SchedulingClass, WorkerAddress
from shoal_common.errors import AlreadyExists
from shoal_common.kinds import ExitKind
from shoal_common.states import ActorState
from shoal_gcs.actors import table as actor_table
from shoal_gcs.actors.machine import (
    Actor,
    Exit,
    Kill,
    Refuse,
    Release,
    Save,
    Started,
    StartProcess,
    StopProcess,
    WorkerDied,
)
from shoal_gcs.actors.table import Action, ActorTable, Forget, JobUnused

DRIVER, JOB, NODE = b"driver", b"job", b"node"
CPU = SchedulingClass("", (("CPU", 10_000),))
CRASH = Exit(ExitKind.SYSTEM_ERROR, "killed by SIGKILL")


class Actors:
    """A table, and what the tests do with it again and again."""

    def __init__(self, grace_s: float = 30.0, dead_kept: int = 100) -> None:
        self.table = ActorTable(infeasible_grace_s=grace_s, dead_kept=dead_kept)

    def create(self, actor_id: bytes, owner_id: bytes = DRIVER, **spec: Any) -> list[Action]:
        spec = {"job_id": JOB, "scheduling_class": CPU, **spec}
        return self.table.create(Actor(actor_id=actor_id, owner_id=owner_id, **spec), 0.0)

    def run(self, actor_id: bytes, owner_id: bytes = DRIVER, **spec: Any) -> bytes:
        """Create an actor and bring it up; returns its worker id."""
        self.create(actor_id, owner_id, **spec)
        return self.start(actor_id)

    def start(self, actor_id: bytes) -> bytes:
        assert self.table.due(0.0) == [actor_id]
        self.table.found(actor_id, NODE, 0.0)
        incarnation = self.table[actor_id].incarnation
        worker_id = actor_id + b"/worker-%d" % incarnation
        self.table.handle(actor_id, Started(incarnation, WorkerAddress(NODE, worker_id, "/socket"), 1), 0.0)
        return worker_id

    def crash(self, actor_id: bytes) -> list[Action]:
        return self.table.handle(actor_id, WorkerDied(self.table[actor_id].incarnation, CRASH), 0.0)

    def state(self, actor_id: bytes) -> ActorState:
        return self.table[actor_id].state

    def living(self, *actor_ids: bytes) -> list[bytes]:
        return [i for i in actor_ids if self.state(i) is not ActorState.DEAD]


@pytest.fixture
def actors() -> Actors:
    return Actors()


def test_creation_saves_and_looks_for_a_node(actors: Actors) -> None:
    assert actors.create(b"a") == [Save(b"a")]
    assert actors.table.due(0.0) == [b"a"]
    assert actors.table.found(b"a", NODE, 0.0) == [Save(b"a"), StartProcess(b"a", NODE, 1)]
    assert actors.table.due(0.0) == []


def test_creation_is_idempotent(actors: Actors) -> None:
    actors.run(b"a", name="n")
    assert actors.create(b"a", name="n") == []
    assert actors.state(b"a") is ActorState.ALIVE


def test_unknown_actors_are_nobodys_business(actors: Actors) -> None:
    assert actors.table.handle(b"unknown", Kill(True), 0.0) == []


# --- names ---


def test_a_name_is_unique_in_its_namespace_while_its_actor_lives(actors: Actors) -> None:
    actors.run(b"a", name="n", namespace="s")
    with pytest.raises(AlreadyExists, match="'n' exists in namespace 's'"):
        actors.create(b"b", name="n", namespace="s")
    assert b"b" not in actors.table
    actors.create(b"c", name="n", namespace="t")
    found = actors.table.named("s", "n")
    assert found is not None and found.actor_id == b"a"
    actors.table.handle(b"a", Kill(True), 0.0)
    assert actors.table.named("s", "n") is None
    actors.create(b"d", name="n", namespace="s")


def test_a_restarting_actor_keeps_its_name(actors: Actors) -> None:
    actors.run(b"a", name="n", max_restarts=1)
    actors.crash(b"a")
    with pytest.raises(AlreadyExists):
        actors.create(b"b", name="n")


def test_an_actor_without_handles_frees_its_name_at_once(actors: Actors) -> None:
    actors.run(b"a", name="n")
    actors.table.handle(b"a", Release(), 0.0)
    assert actors.state(b"a") is ActorState.ALIVE
    assert actors.table.named("", "n") is None
    actors.create(b"b", name="n")
    actors.crash(b"a")
    found = actors.table.named("", "n")
    assert found is not None and found.actor_id == b"b", "the end of the first must not free the name of the second"


# --- owners ---


def test_what_a_dead_worker_owned_dies_all_the_way_down(actors: Actors) -> None:
    parent = actors.run(b"parent", max_restarts=-1)
    child = actors.run(b"child", parent)
    actors.run(b"grandchild", child)
    actors.run(b"other")
    actions = actors.crash(b"parent")
    assert actors.living(b"parent", b"child", b"grandchild", b"other") == [b"parent", b"other"]
    assert actors.state(b"parent") is ActorState.RESTARTING
    stopped = [a.actor_id for a in actions if isinstance(a, StopProcess)]
    assert stopped == [b"child", b"grandchild"]
    assert child.hex() in actors.table[b"grandchild"].death_reason


def test_killing_an_owner_ends_what_it_owned_without_waiting_for_its_process(actors: Actors) -> None:
    parent = actors.run(b"parent")
    actors.run(b"child", parent)
    actors.table.handle(b"parent", Kill(True), 0.0)
    assert actors.living(b"parent", b"child") == []


def test_a_driver_or_task_worker_takes_its_actors_along(actors: Actors) -> None:
    actors.run(b"a")
    actors.run(b"b", b"someone else")
    actors.run(b"c", detached=True)
    actors.table.worker_died(DRIVER, 0.0)
    assert actors.living(b"a", b"b", b"c") == [b"b", b"c"]


def test_an_actor_whose_owner_died_before_it_was_created(actors: Actors) -> None:
    actors.table.worker_died(b"gone", 0.0)
    assert actors.create(b"a", b"gone")[0] == Save(b"a")
    assert (actors.state(b"a"), actors.table[b"a"].owner_died) == (ActorState.DEAD, True)
    actors.create(b"b", b"gone", detached=True)
    assert actors.living(b"b") == [b"b"]


def test_a_long_chain_of_owners() -> None:
    actors, owner = Actors(dead_kept=5_000), DRIVER
    chain = [b"%04d" % i for i in range(3_000)]
    for actor_id in chain:
        owner = actors.run(actor_id, owner)
    actors.table.worker_died(DRIVER, 0.0)
    assert actors.living(*chain) == []


def test_dead_workers_are_remembered_up_to_a_bound(actors: Actors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_table, "DEAD_WORKERS_KEPT", 2)
    for worker_id in (b"1", b"2", b"3"):
        actors.table.worker_died(worker_id, 0.0)
    for worker_id in (b"1", b"2", b"3"):
        actors.create(b"of " + worker_id, worker_id)
    assert actors.living(b"of 1", b"of 2", b"of 3") == [b"of 1"]


# --- nodes and jobs ---


def test_a_dead_node_takes_what_ran_or_started_there(actors: Actors) -> None:
    actors.run(b"running")
    actors.create(b"starting")
    actors.table.due(0.0)
    actors.table.found(b"starting", NODE, 0.0)
    actors.create(b"waiting")
    actors.table.node_died(b"another", "silent", 0.0)
    assert actors.living(b"running", b"starting", b"waiting") == [b"running", b"starting", b"waiting"]
    actors.table.node_died(NODE, "silent", 0.0)
    assert actors.living(b"running", b"starting", b"waiting") == [b"waiting"]


def test_the_end_of_a_job_spares_detached_actors_and_what_they_own(actors: Actors) -> None:
    keeper = actors.run(b"keeper", detached=True)
    helper = actors.run(b"helper", keeper)
    actors.run(b"helper's helper", helper)
    actors.run(b"plain")
    actors.run(b"other job's", job_id=b"job 2")
    actions = actors.table.job_finished(JOB, 0.0)
    assert [a.actor_id for a in actions if isinstance(a, StopProcess)] == [b"plain"]
    assert actors.table.living_of_job(JOB) == [b"helper", b"helper's helper", b"keeper"]
    assert actors.living(b"other job's") == [b"other job's"]
    assert not any(isinstance(action, JobUnused) for action in actions)
    assert JobUnused(JOB) in actors.table.handle(b"keeper", Kill(True), 0.0)
    assert actors.table.living_of_job(JOB) == []


def test_the_last_actor_of_a_job_is_told_once(actors: Actors) -> None:
    actors.run(b"a")
    actors.run(b"b")
    assert JobUnused(JOB) not in actors.table.handle(b"a", Kill(True), 0.0)
    assert JobUnused(JOB) in actors.table.handle(b"b", Kill(True), 0.0)
    assert JobUnused(JOB) not in actors.crash(b"b")


# --- the search for a node ---


def test_what_fits_nowhere_dies_with_the_schedulers_reason() -> None:
    actors = Actors(grace_s=10.0)
    actors.create(b"a")
    actors.table.due(0.0)
    assert actors.table.infeasible(b"a", "GPU: 1 needed, node-1 has 0", 0.0) == []
    actors.table.due(10.0)
    assert actors.table.infeasible(b"a", "GPU: 1 needed, node-1 has 0", 10.0) == [JobUnused(JOB), Save(b"a")]
    assert actors.table[b"a"].death_reason.startswith("GPU: 1 needed, node-1 has 0")
    assert actors.table[b"a"].unschedulable


def test_what_nobody_waits_for_does_not_wait_for_room(actors: Actors) -> None:
    for actor_id in (b"released before", b"held", b"released after"):
        actors.create(actor_id)
    actors.table.handle(b"released before", Release(), 0.0)
    for actor_id in actors.table.due(0.0):
        actors.table.no_room(actor_id, 0.0)
    assert actors.living(b"released before", b"held", b"released after") == [b"held", b"released after"]
    actors.table.handle(b"released after", Release(), 0.0)
    assert actors.living(b"held", b"released after") == [b"held"]


def test_what_nobody_waits_for_is_not_sent_to_a_second_node(actors: Actors) -> None:
    actors.create(b"a")
    actors.table.due(0.0)
    actors.table.found(b"a", NODE, 0.0)
    actors.table.handle(b"a", Release(), 0.0)
    actors.table.handle(b"a", Refuse(), 0.0)
    assert actors.living(b"a") == []


def test_what_dies_while_the_scheduler_is_asked_is_not_started(actors: Actors) -> None:
    actors.create(b"a")
    actors.table.due(0.0)
    actors.table.handle(b"a", Kill(True), 0.0)
    assert actors.table.found(b"a", NODE, 0.0) == []
    assert actors.table.no_room(b"a", 0.0) == []
    assert actors.table.next_deadline() is None


# --- the dead, and a new GCS ---


def test_only_the_newest_dead_are_remembered() -> None:
    actors = Actors(dead_kept=2)
    forgotten: list[Action] = []
    for i in range(4):
        actors.run(b"%d" % i)
        forgotten += [a for a in actors.table.handle(b"%d" % i, Kill(True), 0.0) if isinstance(a, Forget)]
    assert forgotten == [Forget(b"0"), Forget(b"1")]
    assert [b"%d" % i in actors.table for i in range(4)] == [False, False, True, True]
    actors.table.node_died(NODE, "silent", 0.0)


def test_a_new_gcs_goes_on_where_the_old_one_was() -> None:
    old = Actors()
    parent = old.run(b"alive", name="n")
    old.run(b"dead")
    old.table.handle(b"dead", Kill(True), 0.0)
    old.create(b"starting", parent)
    old.table.due(0.0)
    old.table.found(b"starting", NODE, 0.0)
    old.create(b"waiting")
    stored = [replace(old.table[i]) for i in (b"alive", b"dead", b"starting", b"waiting")]

    new = Actors()
    actions = new.table.load(stored, 0.0)
    assert [(type(a), a.actor_id) for a in actions if not isinstance(a, JobUnused)] == [
        (StopProcess, b"dead"),
        (StartProcess, b"starting"),
    ]
    assert new.table.due(0.0) == [b"waiting"]
    with pytest.raises(AlreadyExists):
        new.create(b"another", name="n")
    new.table.worker_died(parent, 0.0)
    assert new.state(b"starting") is ActorState.DEAD
    new.table.node_died(NODE, "silent", 0.0)
    assert new.living(b"alive", b"waiting") == [b"waiting"]


def test_a_new_gcs_carries_on_a_death_that_stopped_half_way() -> None:
    """The owner's death was stored, that of what it owned was not."""
    old = Actors()
    parent = old.run(b"parent")
    old.run(b"child", parent)
    stored_child = replace(old.table[b"child"])
    old.table.handle(b"parent", Kill(True), 0.0)

    new = Actors()
    actions = new.table.load([replace(old.table[b"parent"]), stored_child], 0.0)
    assert new.state(b"child") is ActorState.DEAD
    assert Save(b"child") in actions
