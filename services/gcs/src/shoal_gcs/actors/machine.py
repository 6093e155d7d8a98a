"""The life of one actor, as a table of what each event does in each state.

    DEPENDENCIES_UNREADY --Create--> PENDING_CREATION --Started--> ALIVE --WorkerDied--> RESTARTING --Started--> ALIVE
    and from each of them to DEAD.

An actor in PENDING_CREATION or RESTARTING first waits for a place (``node_id`` empty), then for its process
(``node_id`` set). Each process gets its own *incarnation*; what an earlier one still reports is refused, and its
process ended. A (state, event) pair that is not in the table changes nothing: messages arrive late and twice.

DEPENDENCIES_UNREADY is where a record begins and is never stored: the owner waits for the arguments of the
constructor before it asks for the actor.

Pure: events in, actions out. Covers one actor; names, owners and many actors are in ``table``, the search for a
place in ``placement_queue``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shoal_common.channel.frames import SchedulingClass, WorkerAddress
from shoal_common.kinds import ExitKind
from shoal_common.placement.resources import ResourceSet
from shoal_common.states import ActorState

#: Processes that may fail to start, one after the other, before the actor is given up.
MAX_START_FAILURES = 10
#: Needs nothing of a node.
NOTHING = SchedulingClass("", ())


@dataclass(frozen=True, slots=True)
class Exit:
    kind: ExitKind
    #: For humans, e.g. "killed by SIGSEGV".
    detail: str


@dataclass(slots=True)
class Actor:
    """What the GCS knows of one actor."""

    actor_id: bytes
    job_id: bytes
    #: Worker id of its creator.
    owner_id: bytes
    #: The creator's node; empty = not known.
    owner_node_id: bytes = b""
    name: str = ""
    namespace: str = ""
    class_name: str = ""
    detached: bool = False
    #: Detached, but it ends with the name that its job holds.
    of_named_job: bool = False
    #: -1 = no limit.
    max_restarts: int = 0
    #: What it needs of a node, without a name: actors of equal classes fit equally.
    scheduling_class: SchedulingClass = NOTHING
    #: What it takes of its node, or of its bundle, as long as it has a process.
    held: ResourceSet = field(default_factory=ResourceSet)
    #: The placement group in which it runs; empty = in none.
    group_id: bytes = b""
    #: Grows with every actor that is created: the order of creation.
    sequence: int = 0

    state: ActorState = ActorState.DEPENDENCIES_UNREADY
    #: Grows with every change that others may wait for.
    version: int = 0
    #: Of the running process, or of the next one.
    incarnation: int = 1
    #: Those that count: not after a node has left on purpose.
    restarts: int = 0
    #: Where its process runs or is being started; empty = it has none. DEAD with a node: the process has been asked
    #: to end and its end has not been reported yet.
    node_id: bytes = b""
    #: Of the process of this incarnation, once it runs.
    address: WorkerAddress | None = None
    pid: int = 0
    #: The constructor's serialized exception.
    creation_error: bytes = b""
    death_reason: str = ""
    exit: Exit | None = None
    killed: bool = False
    out_of_scope: bool = False
    owner_died: bool = False
    #: It was given up because no node could ever hold it.
    unschedulable: bool = False
    #: It was given up because its runtime environment could not be made.
    runtime_env_failed: bool = False
    #: Its placement group was removed while it had no process.
    group_removed: bool = False
    #: Processes that failed to start since the last that did. Not stored.
    start_failures: int = 0

    def validate(self) -> None:
        """For tests: what is always true of it."""
        assert self.incarnation >= 1 and 0 <= self.restarts < self.incarnation
        assert self.address is None or self.address.node_id == self.node_id, "its process runs on its node"
        if self.state is ActorState.ALIVE:
            assert self.address is not None, "who is ALIVE can be called"
        if self.state in (ActorState.PENDING_CREATION, ActorState.RESTARTING):
            assert self.address is None, "who waits for a process has none"
        assert self.max_restarts < 0 or self.restarts <= self.max_restarts
        assert self.detached or not self.of_named_job
        assert not (self.detached and (self.out_of_scope or self.owner_died)), "detached actors need no handles"
        assert self.start_failures <= MAX_START_FAILURES


# --- events ---


@dataclass(frozen=True, slots=True)
class Create:
    """Its owner asked for it."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The scheduler chose a node."""

    node_id: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    """The chosen node had no room after all; no process was started."""


@dataclass(frozen=True, slots=True)
class Started:
    """The constructor returned."""

    incarnation: int
    address: WorkerAddress
    pid: int


@dataclass(frozen=True, slots=True)
class ConstructorFailed:
    incarnation: int
    error: bytes


@dataclass(frozen=True, slots=True)
class StartFailed:
    """Its process could not be started, or nobody knows whether it was; not the constructor's fault."""

    incarnation: int
    reason: str


@dataclass(frozen=True, slots=True)
class EnvironmentFailed:
    """Its runtime environment could not be made: another try would end the same way."""

    incarnation: int
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerDied:
    incarnation: int
    exit: Exit
    #: Its node was leaving the cluster: that is no failure of the actor's.
    drained: bool = False


@dataclass(frozen=True, slots=True)
class NodeDied:
    node_id: bytes
    reason: str
    #: As of ``WorkerDied``.
    drained: bool = False


@dataclass(frozen=True, slots=True)
class Kill:
    """``ray.kill``. ``no_restart`` False: only the process is killed."""

    no_restart: bool


@dataclass(frozen=True, slots=True)
class Release:
    """The last handle is gone."""


@dataclass(frozen=True, slots=True)
class OwnerDied:
    reason: str


@dataclass(frozen=True, slots=True)
class NamedJobOver:
    """Nobody holds the name of its job, nor will."""


@dataclass(frozen=True, slots=True)
class GroupRemoved:
    """Its placement group does not exist any more."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No node can ever hold it."""

    reason: str


Event = (
    Create
    | Placed
    | Refuse
    | Started
    | ConstructorFailed
    | EnvironmentFailed
    | StartFailed
    | WorkerDied
    | NodeDied
    | Kill
    | Release
    | OwnerDied
    | NamedJobOver
    | GroupRemoved
    | GiveUp
)


# --- actions ---


@dataclass(frozen=True, slots=True)
class Save:
    """Write its row, then tell those who wait for a newer version."""

    actor_id: bytes


@dataclass(frozen=True, slots=True)
class FindPlace:
    """Find a node for it."""

    actor_id: bytes
    #: Seconds to hold back first.
    delay_s: float = 0.0
    #: The node that was found had no room: it keeps its turn before those of equal demand.
    refused: bool = False


@dataclass(frozen=True, slots=True)
class StartProcess:
    """Ask the raylet of the node to start it, once its row is written."""

    actor_id: bytes
    node_id: bytes
    incarnation: int


@dataclass(frozen=True, slots=True)
class StopProcess:
    """Ask the raylet to end a process. ``worker_id`` empty: the one that holds or is creating the actor."""

    actor_id: bytes
    node_id: bytes
    worker_id: bytes
    #: SIGKILL; False = its pending calls finish first.
    force: bool
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """This worker has ended or is ended by force: what it owned dies with it."""

    worker_id: bytes


Action = Save | FindPlace | StartProcess | StopProcess | WorkerGone


def handle(actor: Actor, event: Event) -> list[Action]:
    """Apply one event; an event that does not fit the state changes nothing and asks for nothing."""
    rule = _RULES.get((actor.state, type(event)))
    return rule(actor, event) if rule else []


def resume(actor: Actor) -> list[Action]:
    """What must be asked again after the GCS was away: the requests that may have been lost with it."""
    if actor.state is ActorState.DEAD:
        return _stop_by_force(actor, actor.death_reason)
    if actor.state is ActorState.ALIVE:
        if actor.killed:
            return [_stop(actor, force=True, reason=_KILLED)]
        return [_stop(actor, force=False, reason=_OUT_OF_SCOPE)] if actor.out_of_scope else []
    if not actor.node_id:
        return [FindPlace(actor.actor_id)]
    return [StartProcess(actor.actor_id, actor.node_id, actor.incarnation)]


_OUT_OF_SCOPE = "all handles to the actor went out of scope"
_KILLED = "the actor was killed by shoal.kill"


def _create(actor: Actor, _event: Create) -> list[Action]:
    return [*_move(actor, ActorState.PENDING_CREATION), FindPlace(actor.actor_id)]


def _placed(actor: Actor, event: Placed) -> list[Action]:
    if actor.node_id:
        return []
    actor.node_id = event.node_id
    return [Save(actor.actor_id), StartProcess(actor.actor_id, actor.node_id, actor.incarnation)]


def _refuse(actor: Actor, _event: Refuse) -> list[Action]:
    """The same incarnation goes to the next node: this one has started no process."""
    if not actor.node_id:
        return []
    actor.node_id = b""
    return [Save(actor.actor_id), FindPlace(actor.actor_id, refused=True)]


def _started(actor: Actor, event: Started) -> list[Action]:
    if event.incarnation != actor.incarnation:
        return _stop_stray(actor, event)
    actor.address = event.address
    actor.node_id = event.address.node_id
    actor.pid = event.pid
    actor.start_failures = 0
    actions = _move(actor, ActorState.ALIVE)
    if actor.out_of_scope:
        actions.append(_stop(actor, force=False, reason=_OUT_OF_SCOPE))
    return actions


def _started_again(actor: Actor, event: Started) -> list[Action]:
    """A repeat of what is known, or a second process, which must not live beside the first."""
    return [] if event.address == actor.address else _stop_stray(actor, event)


def _stop_stray(actor: Actor, event: Started) -> list[Action]:
    reason = f"incarnation {event.incarnation} of the actor has been replaced"
    return [StopProcess(actor.actor_id, event.address.node_id, event.address.worker_id, True, reason)]


def _constructor_failed(actor: Actor, event: ConstructorFailed) -> list[Action]:
    if event.incarnation != actor.incarnation:
        return []
    actor.creation_error = event.error
    stop = _stop(actor, force=False, reason="the actor's constructor raised an exception")
    return [*_die(actor, "the actor's constructor raised an exception"), stop]


def _start_failed(actor: Actor, event: StartFailed) -> list[Action]:
    """A new incarnation, as the process of this one may exist all the same and report later."""
    if event.incarnation != actor.incarnation or not actor.node_id:
        return []
    if actor.out_of_scope:
        return _die(actor, _OUT_OF_SCOPE)
    actor.start_failures += 1
    if actor.start_failures >= MAX_START_FAILURES:
        return _die(actor, f"its process failed to start {MAX_START_FAILURES} times; the last time: {event.reason}")
    actor.node_id = b""
    actor.incarnation += 1
    return [Save(actor.actor_id), FindPlace(actor.actor_id, delay_s=min(0.05 * 2.0**actor.start_failures, 5.0))]


def _environment_failed(actor: Actor, event: EnvironmentFailed) -> list[Action]:
    if event.incarnation != actor.incarnation or not actor.node_id:
        return []
    if actor.out_of_scope:
        return _die(actor, _OUT_OF_SCOPE)
    actor.node_id = b""
    actor.runtime_env_failed = True
    return _die(actor, event.reason)


def _worker_died(actor: Actor, event: WorkerDied) -> list[Action]:
    if event.incarnation != actor.incarnation or not actor.node_id:
        return []
    return _lose_process(actor, event.exit, f"the actor's process ended: {event.exit.detail}", event.drained)


def _node_died(actor: Actor, event: NodeDied) -> list[Action]:
    if event.node_id != actor.node_id:
        return []
    reason = f"the actor's node {event.node_id.hex()} died: {event.reason}"
    return _lose_process(actor, Exit(ExitKind.SYSTEM_ERROR, reason), reason, event.drained)


def _lose_process(actor: Actor, exit_: Exit, reason: str, drained: bool) -> list[Action]:
    actor.exit = exit_
    gone = _forget_process(actor)
    if actor.out_of_scope:
        return [*_die(actor, _OUT_OF_SCOPE), *gone]
    free = drained and actor.max_restarts != 0 and not actor.killed
    budget = free or actor.max_restarts < 0 or actor.restarts < actor.max_restarts
    if exit_.kind is ExitKind.INTENDED_USER_EXIT or not budget:
        return [*_die(actor, _KILLED if actor.killed else reason), *gone]
    actor.killed = False
    actor.restarts += not free
    actor.incarnation += 1
    return [*_move(actor, ActorState.RESTARTING), *gone, FindPlace(actor.actor_id)]


def _confirm_end(actor: Actor, event: WorkerDied) -> list[Action]:
    """The process of a DEAD actor has ended: nothing is left to stop."""
    if event.incarnation != actor.incarnation or not actor.node_id:
        return []
    actor.exit = event.exit
    return [*_forget_process(actor), Save(actor.actor_id)]


def _confirm_end_with_node(actor: Actor, event: NodeDied) -> list[Action]:
    if event.node_id != actor.node_id:
        return []
    return [*_forget_process(actor), Save(actor.actor_id)]


def _kill_alive(actor: Actor, event: Kill) -> list[Action]:
    actor.killed = True
    if event.no_restart:
        return _end_by_force(actor, _KILLED)
    return [Save(actor.actor_id), _stop(actor, force=True, reason=_KILLED)]


def _kill_waiting(actor: Actor, event: Kill) -> list[Action]:
    """What is about to start needs no new start."""
    if not event.no_restart:
        return []
    actor.killed = True
    return _end_by_force(actor, _KILLED)


def _release_alive(actor: Actor, _event: Release) -> list[Action]:
    if actor.detached or actor.out_of_scope:
        return []
    actor.out_of_scope = True
    return [Save(actor.actor_id), _stop(actor, force=False, reason=_OUT_OF_SCOPE)]


def _release_pending(actor: Actor, _event: Release) -> list[Action]:
    """It still runs, for the calls already made on it, and ends after them; what has no place yet may never get one
    and is then given up by the placement queue."""
    if actor.detached or actor.out_of_scope:
        return []
    actor.out_of_scope = True
    return [Save(actor.actor_id)]


def _owner_died(actor: Actor, event: OwnerDied) -> list[Action]:
    if actor.detached:
        return []
    actor.owner_died = True
    return _end_by_force(actor, event.reason)


def _named_job_over(actor: Actor, _event: NamedJobOver) -> list[Action]:
    return _end_by_force(actor, "its job is over") if actor.of_named_job else []


def _group_removed(actor: Actor, _event: GroupRemoved) -> list[Action]:
    actor.group_removed = actor.address is None
    return _end_by_force(actor, "its placement group was removed")


def _give_up(actor: Actor, event: GiveUp) -> list[Action]:
    if actor.node_id:
        return []
    if actor.out_of_scope:
        return _die(actor, _OUT_OF_SCOPE)
    actor.unschedulable = True
    return _die(actor, event.reason)


def _end_by_force(actor: Actor, reason: str) -> list[Action]:
    return [*_die(actor, reason), *_stop_by_force(actor, reason)]


def _stop_by_force(actor: Actor, reason: str) -> list[Action]:
    actions: list[Action] = []
    if actor.node_id:
        actions.append(_stop(actor, force=True, reason=reason))
    if actor.address is not None:
        actions.append(WorkerGone(actor.address.worker_id))
    return actions


def _forget_process(actor: Actor) -> list[Action]:
    worker_id = actor.address.worker_id if actor.address else b""
    actor.address = None
    actor.node_id = b""
    actor.pid = 0
    return [WorkerGone(worker_id)] if worker_id else []


def _die(actor: Actor, reason: str) -> list[Action]:
    actor.death_reason = reason
    return _move(actor, ActorState.DEAD)


def _move(actor: Actor, state: ActorState) -> list[Action]:
    actor.state = state
    actor.version += 1
    return [Save(actor.actor_id)]


def _stop(actor: Actor, *, force: bool, reason: str) -> StopProcess:
    worker_id = actor.address.worker_id if actor.address else b""
    return StopProcess(actor.actor_id, actor.node_id, worker_id, force, reason)


_Rule = Callable[[Any, Any], list[Action]]

#: What stands here twice is what PENDING_CREATION and RESTARTING have in common: both wait for a process.
_WAITING: dict[type, _Rule] = {
    Placed: _placed,
    Refuse: _refuse,
    Started: _started,
    ConstructorFailed: _constructor_failed,
    EnvironmentFailed: _environment_failed,
    StartFailed: _start_failed,
    WorkerDied: _worker_died,
    NodeDied: _node_died,
    Kill: _kill_waiting,
    Release: _release_pending,
    OwnerDied: _owner_died,
    NamedJobOver: _named_job_over,
    GroupRemoved: _group_removed,
    GiveUp: _give_up,
}

_RULES: dict[tuple[ActorState, type], _Rule] = {
    (ActorState.DEPENDENCIES_UNREADY, Create): _create,
    **{(ActorState.PENDING_CREATION, event): rule for event, rule in _WAITING.items()},
    **{(ActorState.RESTARTING, event): rule for event, rule in _WAITING.items()},
    (ActorState.ALIVE, Started): _started_again,
    (ActorState.ALIVE, WorkerDied): _worker_died,
    (ActorState.ALIVE, NodeDied): _node_died,
    (ActorState.ALIVE, Kill): _kill_alive,
    (ActorState.ALIVE, Release): _release_alive,
    (ActorState.ALIVE, OwnerDied): _owner_died,
    (ActorState.ALIVE, NamedJobOver): _named_job_over,
    (ActorState.ALIVE, GroupRemoved): _group_removed,
    (ActorState.DEAD, Started): _stop_stray,
    (ActorState.DEAD, WorkerDied): _confirm_end,
    (ActorState.DEAD, NodeDied): _confirm_end_with_node,
}
