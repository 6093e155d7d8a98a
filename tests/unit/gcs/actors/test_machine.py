"""The life of one actor: every state against every event."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from shoal_common.channel.frames import WorkerAddress
from shoal_common.kinds import ExitKind
from shoal_common.states import ActorState
from shoal_gcs.actors.machine import (
    MAX_START_FAILURES,
    Action,
    Actor,
    ConstructorFailed,
    Create,
    EnvironmentFailed,
    Event,
    Exit,
    FindPlace,
    GiveUp,
    Kill,
    NodeDied,
    OwnerDied,
    Placed,
    Refuse,
    Release,
    Save,
    Started,
    StartFailed,
    StartProcess,
    StopProcess,
    WorkerDied,
    WorkerGone,
    handle,
    resume,
)

A, JOB, OWNER = b"actor", b"job", b"owner"
N1, N2 = b"node-1", b"node-2"
W1, W2 = WorkerAddress(N1, b"worker-1", "/w1"), WorkerAddress(N2, b"worker-2", "/w2")
CRASH = Exit(ExitKind.SYSTEM_ERROR, "killed by SIGKILL")


def actor_in(*events: Event, **spec: Any) -> Actor:
    """An actor that has seen these events."""
    actor = Actor(A, JOB, OWNER, **spec)
    for event in events:
        handle(actor, event)
    return actor


WAITING = (Create(),)
STARTING = (Create(), Placed(N1))
ALIVE = (*STARTING, Started(1, W1, 11))
LOST = (*ALIVE, WorkerDied(1, CRASH))


def kinds(actions: list[Action]) -> list[type]:
    return [type(action) for action in actions]


def test_the_whole_way_to_alive() -> None:
    actor = Actor(A, JOB, OWNER)
    assert actor.state is ActorState.DEPENDENCIES_UNREADY
    assert handle(actor, Create()) == [Save(A), FindPlace(A)]
    assert (actor.state, actor.version) == (ActorState.PENDING_CREATION, 1)
    assert handle(actor, Placed(N1)) == [Save(A), StartProcess(A, N1, 1)]
    assert (actor.state, actor.node_id, actor.version) == (ActorState.PENDING_CREATION, N1, 1)
    assert handle(actor, Started(1, W1, 11)) == [Save(A)]
    assert (actor.state, actor.address, actor.pid, actor.version) == (ActorState.ALIVE, W1, 11, 2)


@pytest.mark.parametrize("lost", [WorkerDied, NodeDied])
def test_a_node_that_leaves_costs_no_restart(lost: type[WorkerDied | NodeDied]) -> None:
    actor = actor_in(*ALIVE, max_restarts=1)
    for incarnation in range(1, 4):
        gone = WorkerDied(incarnation, CRASH, True) if lost is WorkerDied else NodeDied(N1, "it left", True)
        assert kinds(handle(actor, gone)) == [Save, WorkerGone, FindPlace]
        assert (actor.state, actor.restarts, actor.incarnation) == (ActorState.RESTARTING, 0, incarnation + 1)
        handle(actor, Placed(N1))
        handle(actor, Started(incarnation + 1, W1, 11))
    handle(actor, WorkerDied(4, CRASH))
    assert (actor.state, actor.restarts) == (ActorState.RESTARTING, 1)


def test_an_actor_without_restarts_ends_with_the_node_that_leaves() -> None:
    actor = actor_in(*ALIVE, max_restarts=0)
    handle(actor, NodeDied(N1, "it left", True))
    assert actor.state is ActorState.DEAD


def test_a_kill_on_a_node_that_leaves_is_a_restart_that_counts() -> None:
    actor = actor_in(*ALIVE, Kill(no_restart=False), max_restarts=1)
    handle(actor, WorkerDied(1, CRASH, True))
    assert (actor.state, actor.restarts) == (ActorState.RESTARTING, 1)


@pytest.mark.parametrize("max_restarts", [0, 1, 2, -1])
def test_a_crashed_actor_restarts_while_its_budget_lasts(max_restarts: int) -> None:
    actor = actor_in(*ALIVE, max_restarts=max_restarts)
    for crash in range(1, 5):
        actions = handle(actor, WorkerDied(crash, CRASH))
        assert WorkerGone(W1.worker_id) in actions
        assert (actor.address, actor.node_id, actor.exit) == (None, b"", CRASH)
        if 0 <= max_restarts < crash:
            assert actor.state is ActorState.DEAD
            assert actor.restarts == max_restarts
            assert actor.death_reason == "the actor's process ended: killed by SIGKILL"
            assert kinds(actions) == [Save, WorkerGone]
            return
        assert (actor.state, actor.restarts, actor.incarnation) == (ActorState.RESTARTING, crash, crash + 1)
        assert kinds(actions) == [Save, WorkerGone, FindPlace]
        handle(actor, Placed(N1))
        handle(actor, Started(crash + 1, W1, 11))
        assert actor.state is ActorState.ALIVE
    assert max_restarts == -1


@pytest.mark.parametrize("before", [STARTING, ALIVE])
@pytest.mark.parametrize(
    ("kind", "restarts"),
    [
        (ExitKind.SYSTEM_ERROR, True),
        (ExitKind.NODE_OUT_OF_MEMORY, True),
        (ExitKind.INTENDED_SYSTEM_EXIT, True),
        (ExitKind.USER_ERROR, True),
        (ExitKind.INTENDED_USER_EXIT, False),
    ],
)
def test_how_the_process_ended_decides(before: tuple[Event, ...], kind: ExitKind, restarts: bool) -> None:
    actor = actor_in(*before, max_restarts=-1)
    handle(actor, WorkerDied(1, Exit(kind, "so")))
    assert actor.state is (ActorState.RESTARTING if restarts else ActorState.DEAD)
    assert actor.exit == Exit(kind, "so")


def test_a_dead_node_is_a_crash_of_what_ran_there() -> None:
    actor = actor_in(*ALIVE, max_restarts=1)
    assert handle(actor, NodeDied(N2, "silent")) == []
    assert handle(actor, NodeDied(N1, "silent")) == [Save(A), WorkerGone(W1.worker_id), FindPlace(A)]
    assert actor.exit is not None
    assert actor.exit.detail == f"the actor's node {N1.hex()} died: silent"


def test_a_dead_node_is_a_crash_of_what_was_starting_there() -> None:
    actor = actor_in(*STARTING)
    assert handle(actor, NodeDied(N1, "silent")) == [Save(A)]
    assert actor.state is ActorState.DEAD


def test_a_constructor_that_raises_is_final() -> None:
    actor = actor_in(*STARTING, max_restarts=-1)
    actions = handle(actor, ConstructorFailed(1, b"error"))
    assert kinds(actions) == [Save, StopProcess]
    assert (actor.state, actor.creation_error) == (ActorState.DEAD, b"error")
    assert "constructor" in actor.death_reason


def test_a_constructor_that_raises_on_restart_is_final_too() -> None:
    actor = actor_in(*LOST, Placed(N2), max_restarts=-1)
    handle(actor, ConstructorFailed(2, b"error"))
    assert actor.state is ActorState.DEAD


def test_a_node_without_room_costs_nothing() -> None:
    actor = actor_in(*STARTING)
    assert handle(actor, Refuse()) == [Save(A), FindPlace(A, refused=True)]
    assert (actor.incarnation, actor.restarts, actor.node_id) == (1, 0, b"")
    assert handle(actor, Placed(N2)) == [Save(A), StartProcess(A, N2, 1)]


def test_a_failed_start_makes_a_new_incarnation_and_no_restart() -> None:
    actor = actor_in(*STARTING)
    assert handle(actor, StartFailed(1, "no answer")) == [Save(A), FindPlace(A, delay_s=0.1)]
    assert (actor.incarnation, actor.restarts, actor.state) == (2, 0, ActorState.PENDING_CREATION)
    handle(actor, Placed(N2))
    stray = handle(actor, Started(1, W1, 11))
    assert kinds(stray) == [StopProcess], "the first process came up after all and must go"
    assert (stray[0].node_id, stray[0].worker_id, stray[0].force) == (N1, W1.worker_id, True)  # type: ignore[union-attr]
    assert handle(actor, Started(2, W2, 12)) == [Save(A)]
    assert actor.address == W2


def test_failed_starts_end_with_the_reason() -> None:
    actor = actor_in(*WAITING, max_restarts=-1)
    delays = []
    for attempt in range(1, MAX_START_FAILURES + 1):
        handle(actor, Placed(N1))
        actions = handle(actor, StartFailed(attempt, "no memory for a process"))
        delays += [action.delay_s for action in actions if isinstance(action, FindPlace)]
    assert actor.state is ActorState.DEAD
    assert "no memory for a process" in actor.death_reason
    assert delays == sorted(delays)
    assert delays[-1] == 5.0


def test_a_successful_start_forgets_the_failed_ones() -> None:
    actor = actor_in(*STARTING, max_restarts=-1)
    for incarnation in range(1, 4 * MAX_START_FAILURES, 2):
        handle(actor, StartFailed(incarnation, "so"))
        handle(actor, Placed(N1))
        handle(actor, Started(incarnation + 1, W1, 11))
        assert actor.state is ActorState.ALIVE
        handle(actor, WorkerDied(incarnation + 1, CRASH))
        handle(actor, Placed(N1))


def test_a_second_process_of_the_same_incarnation_is_stopped() -> None:
    actor = actor_in(*ALIVE)
    assert handle(actor, Started(1, W1, 11)) == []
    assert kinds(handle(actor, Started(1, W2, 12))) == [StopProcess]
    assert actor.address == W1


def test_a_dead_actor_stops_the_process_that_comes_up() -> None:
    actor = actor_in(*STARTING, Kill(no_restart=True))
    actions = handle(actor, Started(1, W1, 11))
    assert kinds(actions) == [StopProcess]
    assert actor.state is ActorState.DEAD


@pytest.mark.parametrize("before", [WAITING, STARTING, ALIVE, LOST])
def test_kill_ends_it_from_every_state(before: tuple[Event, ...]) -> None:
    actor = actor_in(*before, max_restarts=-1)
    actions = handle(actor, Kill(no_restart=True))
    assert (actor.state, actor.killed) == (ActorState.DEAD, True)
    assert actor.death_reason == "the actor was killed by shoal.kill"
    assert [a.force for a in actions if isinstance(a, StopProcess)] == ([True] if actor.node_id else [])
    assert any(isinstance(a, WorkerGone) for a in actions) is (before is ALIVE), "what it owned dies at once"


def test_kill_with_restart_waits_for_the_end_of_the_process() -> None:
    actor = actor_in(*ALIVE, max_restarts=1)
    actions = handle(actor, Kill(no_restart=False))
    assert kinds(actions) == [Save, StopProcess]
    assert (actor.state, actor.killed) == (ActorState.ALIVE, True)
    killed = Exit(ExitKind.INTENDED_SYSTEM_EXIT, "killed")
    handle(actor, WorkerDied(1, killed))
    assert (actor.state, actor.killed, actor.restarts) == (ActorState.RESTARTING, False, 1)


def test_kill_with_restart_but_without_budget() -> None:
    actor = actor_in(*ALIVE, Kill(no_restart=False), WorkerDied(1, Exit(ExitKind.INTENDED_SYSTEM_EXIT, "killed")))
    assert (actor.state, actor.killed) == (ActorState.DEAD, True)
    assert actor.death_reason == "the actor was killed by shoal.kill"


def test_the_last_handle_of_a_running_actor() -> None:
    actor = actor_in(*ALIVE, max_restarts=-1)
    stop = StopProcess(A, N1, W1.worker_id, False, "all handles to the actor went out of scope")
    assert handle(actor, Release()) == [Save(A), stop]
    assert actor.state is ActorState.ALIVE, "its pending calls finish first"
    assert handle(actor, Release()) == []
    handle(actor, WorkerDied(1, Exit(ExitKind.INTENDED_SYSTEM_EXIT, "asked to")))
    assert (actor.state, actor.out_of_scope) == (ActorState.DEAD, True)
    assert "out of scope" in actor.death_reason


@pytest.mark.parametrize("before", [WAITING, STARTING, LOST])
def test_the_last_handle_of_an_actor_that_is_not_up_yet(before: tuple[Event, ...]) -> None:
    actor = actor_in(*before, max_restarts=-1)
    assert handle(actor, Release()) == [Save(A)]
    handle(actor, Placed(N1))
    actions = handle(actor, Started(actor.incarnation, W1, 11))
    assert kinds(actions) == [Save, StopProcess]
    assert actions[1].force is False  # type: ignore[union-attr]


def test_the_last_handle_of_an_actor_that_finds_no_place() -> None:
    actor = actor_in(*WAITING, Release())
    handle(actor, GiveUp("no GPU anywhere"))
    assert actor.state is ActorState.DEAD
    assert "out of scope" in actor.death_reason


@pytest.mark.parametrize("before", [WAITING, STARTING, ALIVE, LOST])
def test_a_detached_actor_needs_neither_handles_nor_owner(before: tuple[Event, ...]) -> None:
    actor = actor_in(*before, detached=True, max_restarts=-1)
    unchanged = copy.deepcopy(actor)
    assert handle(actor, Release()) == []
    assert handle(actor, OwnerDied("gone")) == []
    assert actor == unchanged


@pytest.mark.parametrize("before", [WAITING, STARTING, ALIVE, LOST])
def test_an_actor_dies_with_its_owner_whatever_its_budget(before: tuple[Event, ...]) -> None:
    actor = actor_in(*before, max_restarts=-1)
    handle(actor, OwnerDied("its owner has died"))
    assert (actor.state, actor.owner_died) == (ActorState.DEAD, True)
    assert actor.death_reason == "its owner has died"


def test_an_actor_that_fits_nowhere() -> None:
    actor = actor_in(*WAITING)
    assert handle(actor, GiveUp("needs 1 GPU, the closest node lacks it")) == [Save(A)]
    assert actor.death_reason == "needs 1 GPU, the closest node lacks it"


def test_an_actor_with_a_node_is_not_given_up() -> None:
    actor = actor_in(*STARTING)
    assert handle(actor, GiveUp("late")) == []
    assert actor.state is ActorState.PENDING_CREATION


def test_the_end_of_a_killed_process_is_confirmed_once() -> None:
    actor = actor_in(*ALIVE, Kill(no_restart=True))
    killed = Exit(ExitKind.INTENDED_SYSTEM_EXIT, "killed by request")
    assert handle(actor, WorkerDied(1, killed)) == [WorkerGone(W1.worker_id), Save(A)]
    assert (actor.exit, actor.address, actor.node_id) == (killed, None, b"")
    assert handle(actor, WorkerDied(1, CRASH)) == []
    assert actor.exit == killed


def test_the_end_of_a_killed_process_is_confirmed_also_when_an_earlier_one_crashed() -> None:
    actor = actor_in(*LOST, Placed(N2), Started(2, W2, 12), Kill(no_restart=True), max_restarts=1)
    handle(actor, WorkerDied(2, Exit(ExitKind.INTENDED_SYSTEM_EXIT, "killed by request")))
    assert actor.exit == Exit(ExitKind.INTENDED_SYSTEM_EXIT, "killed by request")
    assert resume(actor) == []


# --- what does not fit changes nothing ---

STATES: dict[str, tuple[Event, ...]] = {
    "unready": (),
    "waiting": WAITING,
    "starting": STARTING,
    "alive": ALIVE,
    "restarting, waiting": LOST,
    "restarting, starting": (*LOST, Placed(N2)),
    "dead": (*ALIVE, Kill(no_restart=True), WorkerDied(1, CRASH)),
}
STALE: list[Event] = [
    ConstructorFailed(7, b"stale"),
    StartFailed(7, "stale"),
    EnvironmentFailed(7, "stale"),
    WorkerDied(7, CRASH),
    NodeDied(b"elsewhere", "silent"),
]
NOT_FITTING: list[tuple[str, Event]] = [
    *((state, event) for state in STATES for event in STALE),
    *(("unready", event) for event in (Placed(N1), Refuse(), Started(1, W1, 1), Kill(True), Release(), GiveUp("x"))),
    *((state, Create()) for state in STATES if state != "unready"),
    *((state, Refuse()) for state in ("waiting", "alive", "restarting, waiting", "dead")),
    *((state, Placed(b"other")) for state in ("starting", "alive", "restarting, starting", "dead")),
    *((state, WorkerDied(1, CRASH)) for state in ("waiting", "restarting, waiting", "restarting, starting")),
    *((state, StartFailed(1, "x")) for state in ("waiting", "alive", "restarting, waiting")),
    *((state, Kill(no_restart=False)) for state in STATES if state != "alive"),
    ("alive", ConstructorFailed(1, b"late")),
    ("alive", GiveUp("late")),
    *((state, EnvironmentFailed(1, "x")) for state in ("waiting", "alive", "restarting, waiting", "dead")),
    *(("dead", event) for event in (Kill(True), Release(), OwnerDied("x"), GiveUp("x"), WorkerDied(1, CRASH))),
    ("dead", ConstructorFailed(1, b"late")),
]


def test_an_environment_that_cannot_be_made_is_the_end_of_it() -> None:
    actor = actor_in(*STARTING, max_restarts=-1)
    assert handle(actor, EnvironmentFailed(1, "no such package")) == [Save(A)]
    assert (actor.state, actor.node_id, actor.death_reason) == (ActorState.DEAD, b"", "no such package")
    assert actor.runtime_env_failed and not actor.unschedulable


@pytest.mark.parametrize(("state", "event"), NOT_FITTING, ids=lambda value: str(value)[:40])
def test_what_does_not_fit_changes_nothing(state: str, event: Event) -> None:
    actor = actor_in(*STATES[state], max_restarts=1)
    unchanged = replace(actor)
    assert handle(actor, event) == []
    assert actor == unchanged


@pytest.mark.parametrize("state", STATES)
def test_the_version_grows_with_the_state_and_only_then(state: str) -> None:
    events = [Create(), Placed(N1), Refuse(), *STALE, Started(1, W1, 1), WorkerDied(1, CRASH), Release(), Kill(True)]
    for event in events:
        actor = actor_in(*STATES[state], max_restarts=1)
        before = (actor.state, actor.version)
        handle(actor, event)
        assert actor.version == before[1] + (actor.state is not before[0])


# --- after the GCS was away ---


@pytest.mark.parametrize(
    ("events", "asked"),
    [
        (WAITING, [FindPlace(A)]),
        (STARTING, [StartProcess(A, N1, 1)]),
        (ALIVE, []),
        (LOST, [FindPlace(A)]),
        ((*LOST, Placed(N2)), [StartProcess(A, N2, 2)]),
        ((*ALIVE, Release()), [StopProcess(A, N1, W1.worker_id, False, "all handles to the actor went out of scope")]),
        ((*ALIVE, Kill(False)), [StopProcess(A, N1, W1.worker_id, True, "the actor was killed by shoal.kill")]),
        (
            (*ALIVE, Kill(True)),
            [StopProcess(A, N1, W1.worker_id, True, "the actor was killed by shoal.kill"), WorkerGone(W1.worker_id)],
        ),
        ((*STARTING, Kill(True)), [StopProcess(A, N1, b"", True, "the actor was killed by shoal.kill")]),
        ((*ALIVE, Kill(True), WorkerDied(1, CRASH)), []),
    ],
)
def test_resume_asks_again_for_what_may_be_lost(events: tuple[Event, ...], asked: list[Action]) -> None:
    actor = actor_in(*events, max_restarts=1)
    unchanged = replace(actor)
    assert resume(actor) == asked
    assert actor == unchanged
