"""What a user sees when a process fails at a bad moment: every victim, fault and moment, as data.

The one home of the failure model: `docs/failure-model.md` is written out of it, and `test_matrix.py` carries it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Victim(StrEnum):
    WORKER = "worker"
    ACTOR_WORKER = "actor worker"
    RAYLET = "raylet"
    DRIVER = "driver"
    GCS_ACTIVE = "gcs active"
    GCS_BOTH = "gcs both"
    SCHEDULER = "scheduler"
    OBJECTSTORE = "objectstore"
    ETCD = "etcd"
    NATS = "NATS"
    MINIO = "MinIO"


class Fault(StrEnum):
    KILL = "SIGKILL"
    STOP = "SIGSTOP"
    TERM = "SIGTERM"
    CUT = "cut off"


class Moment(StrEnum):
    BEFORE_LEASE = "before the lease"
    RUNNING = "task running"
    REPLY = "reply on its way"
    TRANSFER = "object in transfer"
    SPILLING = "spilling"
    RESTORING = "restoring"
    CHECKPOINTING = "checkpointing"
    CREATING = "actor being created"
    HALF_PREPARED = "placement group half prepared"


@dataclass(frozen=True)
class Sees:
    """What the user gets of work that may be repeated (retries, restarts), and of work that may not.

    Each a list of which any may come: "result", which is the right one, or the name of an error and words that its text
    has to contain.
    """

    again: tuple[str, ...]
    once: tuple[str, ...]


@dataclass(frozen=True)
class Ends:
    """The driver has ended, and its job with it."""


@dataclass(frozen=True)
class Impossible:
    why: str


Outcome = Sees | Ends | Impossible


class Row(NamedTuple):
    """A victim at a moment, by fault."""

    kill: Outcome
    stop: Outcome
    term: Outcome
    cut: Outcome


@dataclass(frozen=True)
class Cell:
    victim: Victim
    fault: Fault
    moment: Moment
    outcome: Outcome
    #: One of those that CI runs.
    chosen: bool

    def __str__(self) -> str:
        return f"{self.victim}-{self.fault}-{self.moment}".replace(" ", "_")


# --- what can happen ---

RESULT = Sees(("result",), ("result",))
ENDS = Ends()


def once(*allowed: str) -> Sees:
    """What may be repeated gives its result; of the other any of these is seen."""
    return Sees(("result",), allowed)


def throughout(outcome: Outcome) -> Row:
    return Row(outcome, outcome, outcome, outcome)


_CRASHED = once("WorkerCrashedError SIGKILL")
_TERMINATED = once("WorkerCrashedError SIGTERM")
_ACTOR_DIED = once("ActorDiedError SIGKILL")
_ACTOR_TERMINATED = once("ActorDiedError SIGTERM")
_NODE_DIED = once("NodeDiedError")
_ACTORS_NODE_DIED = once("ActorDiedError node")
#: What may be made again is; of the rest what was spilled in time is there, and what had not been made yet is not.
_LOST = once("ObjectReconstructionFailedError", "ObjectLostError")
_SOME_LOST = once("result", "ObjectReconstructionFailedError", "ObjectLostError", "NodeDiedError")

#: May be called again: where one is durable, each call has counted once.
_UNAVAILABLE = once("ActorUnavailableError")

_NO_PART = throughout(Impossible("takes no part in it"))
_SAME_NETWORK = Impossible("a worker has its node's network: see raylet")


def _any_of(seen: Sees) -> Sees:
    """Whether the fault comes before the result or after it is left to chance."""
    return Sees(seen.again, ("result", *seen.once))


# --- the table ---

#: A replica takes over, or what runs needs it not, or waits until it is back.
_GOES_ON = {moment: throughout(RESULT) for moment in Moment}

TABLE: dict[Victim, dict[Moment, Row]] = {
    Victim.WORKER: {
        Moment.BEFORE_LEASE: Row(RESULT, RESULT, RESULT, _SAME_NETWORK),
        Moment.RUNNING: Row(_CRASHED, RESULT, _TERMINATED, _SAME_NETWORK),
        Moment.REPLY: Row(_any_of(_CRASHED), RESULT, _any_of(_TERMINATED), _SAME_NETWORK),
        Moment.TRANSFER: Row(RESULT, RESULT, RESULT, _SAME_NETWORK),
        Moment.SPILLING: Row(_any_of(_CRASHED), RESULT, _any_of(_TERMINATED), _SAME_NETWORK),
        Moment.RESTORING: Row(RESULT, RESULT, RESULT, _SAME_NETWORK),
        Moment.CHECKPOINTING: throughout(Impossible("a task has no checkpoints")),
        Moment.CREATING: throughout(Impossible("the worker of a constructor is the actor's: see there")),
        Moment.HALF_PREPARED: _NO_PART,
    },
    Victim.ACTOR_WORKER: {
        Moment.BEFORE_LEASE: throughout(Impossible("calls of an actor need no lease")),
        Moment.RUNNING: Row(_ACTOR_DIED, RESULT, _ACTOR_TERMINATED, _SAME_NETWORK),
        Moment.REPLY: Row(_any_of(_ACTOR_DIED), RESULT, _any_of(_ACTOR_TERMINATED), _SAME_NETWORK),
        Moment.TRANSFER: Row(RESULT, RESULT, RESULT, _SAME_NETWORK),
        Moment.SPILLING: Row(_any_of(_ACTOR_DIED), RESULT, _any_of(_ACTOR_TERMINATED), _SAME_NETWORK),
        Moment.RESTORING: Row(RESULT, RESULT, RESULT, _SAME_NETWORK),
        Moment.CHECKPOINTING: Row(_UNAVAILABLE, RESULT, _UNAVAILABLE, _SAME_NETWORK),
        Moment.CREATING: Row(_ACTOR_DIED, RESULT, _ACTOR_TERMINATED, _SAME_NETWORK),
        Moment.HALF_PREPARED: _NO_PART,
    },
    Victim.RAYLET: {
        Moment.BEFORE_LEASE: throughout(RESULT),
        Moment.RUNNING: Row(_NODE_DIED, _any_of(_NODE_DIED), RESULT, _NODE_DIED),
        Moment.REPLY: Row(_any_of(_NODE_DIED), _any_of(_NODE_DIED), RESULT, _any_of(_NODE_DIED)),
        Moment.TRANSFER: Row(_LOST, _LOST, RESULT, _LOST),
        Moment.SPILLING: Row(_SOME_LOST, _SOME_LOST, RESULT, _SOME_LOST),
        Moment.RESTORING: Row(_SOME_LOST, _SOME_LOST, RESULT, _SOME_LOST),
        # A node that leaves lets calls end, if they do before their actor is moved.
        Moment.CHECKPOINTING: Row(_UNAVAILABLE, _UNAVAILABLE, _any_of(_UNAVAILABLE), _UNAVAILABLE),
        Moment.CREATING: Row(_ACTORS_NODE_DIED, _ACTORS_NODE_DIED, _any_of(_ACTORS_NODE_DIED), _ACTORS_NODE_DIED),
        Moment.HALF_PREPARED: throughout(RESULT),
    },
    Victim.DRIVER: {moment: Row(ENDS, RESULT, ENDS, RESULT) for moment in Moment},
    Victim.GCS_ACTIVE: _GOES_ON,
    Victim.GCS_BOTH: _GOES_ON,
    Victim.SCHEDULER: _GOES_ON,
    Victim.OBJECTSTORE: _GOES_ON,
    Victim.ETCD: _GOES_ON,
    Victim.NATS: _GOES_ON,
    Victim.MINIO: _GOES_ON,
}


#: What CI runs: a tenth, with every victim, fault and moment.
CHOSEN: dict[Victim, tuple[tuple[Fault, Moment], ...]] = {
    Victim.WORKER: (
        (Fault.KILL, Moment.SPILLING),
        (Fault.STOP, Moment.REPLY),
        (Fault.TERM, Moment.RUNNING),
    ),
    Victim.ACTOR_WORKER: (
        (Fault.KILL, Moment.CREATING),
        (Fault.KILL, Moment.RESTORING),
        (Fault.KILL, Moment.CHECKPOINTING),
        (Fault.TERM, Moment.REPLY),
    ),
    Victim.RAYLET: (
        (Fault.KILL, Moment.TRANSFER),
        (Fault.KILL, Moment.CHECKPOINTING),
        (Fault.STOP, Moment.HALF_PREPARED),
        (Fault.TERM, Moment.RUNNING),
        (Fault.CUT, Moment.BEFORE_LEASE),
    ),
    Victim.DRIVER: (
        (Fault.KILL, Moment.SPILLING),
        (Fault.KILL, Moment.HALF_PREPARED),
        (Fault.TERM, Moment.CREATING),
        (Fault.CUT, Moment.TRANSFER),
    ),
    Victim.GCS_ACTIVE: (
        (Fault.KILL, Moment.CREATING),
        (Fault.STOP, Moment.HALF_PREPARED),
        (Fault.TERM, Moment.BEFORE_LEASE),
    ),
    Victim.GCS_BOTH: (
        (Fault.KILL, Moment.HALF_PREPARED),
        (Fault.KILL, Moment.SPILLING),
        (Fault.TERM, Moment.RUNNING),
    ),
    Victim.SCHEDULER: (
        (Fault.KILL, Moment.BEFORE_LEASE),
        (Fault.TERM, Moment.HALF_PREPARED),
        (Fault.CUT, Moment.CREATING),
    ),
    Victim.OBJECTSTORE: (
        (Fault.KILL, Moment.SPILLING),
        (Fault.KILL, Moment.CHECKPOINTING),
        (Fault.TERM, Moment.RESTORING),
    ),
    Victim.ETCD: (
        (Fault.KILL, Moment.CREATING),
        (Fault.STOP, Moment.TRANSFER),
        (Fault.TERM, Moment.HALF_PREPARED),
    ),
    Victim.NATS: (
        (Fault.KILL, Moment.REPLY),
        (Fault.KILL, Moment.CREATING),
        (Fault.TERM, Moment.BEFORE_LEASE),
    ),
    Victim.MINIO: (
        (Fault.KILL, Moment.SPILLING),
        (Fault.TERM, Moment.CHECKPOINTING),
        (Fault.CUT, Moment.SPILLING),
    ),
}


def cells() -> Iterator[Cell]:
    for victim, rows in TABLE.items():
        for moment, row in rows.items():
            for fault, outcome in zip(Fault, row, strict=True):
                yield Cell(victim, fault, moment, outcome, (fault, moment) in CHOSEN[victim])


def allows(allowed: tuple[str, ...], seen: str) -> bool:
    """Whether what was seen, "result" or "NameOfError: its text", is one of these."""
    name, _, text = seen.partition(": ")
    return any(name == words[0] and all(word in text for word in words[1:]) for words in map(str.split, allowed))
