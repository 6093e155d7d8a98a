"""What the deciding modules ask the node's shell (``node.py``) to do. A peer is named by its worker id."""

from __future__ import annotations

from dataclasses import dataclass

from shoal_common.channel import frames
from shoal_common.kinds import ExitKind
from shoal_common.placement.resources import ResourceSet
from shoal_common.placement.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Send:
    peer: bytes
    message: frames.Message


@dataclass(frozen=True, slots=True)
class StartWorker:
    worker_id: bytes
    #: Key of the runtime environment that it starts in; "" = the node's own.
    environment: str = ""


@dataclass(frozen=True, slots=True)
class PrepareEnvironment:
    """Make a runtime environment; answered with ``WorkerPool.environment_prepared`` or ``environment_failed``."""

    key: str
    document: str


@dataclass(frozen=True, slots=True)
class ReleaseEnvironment:
    """No worker needs it any more."""

    key: str


@dataclass(frozen=True, slots=True)
class KillWorker:
    """SIGKILL; ``kind`` and ``detail`` become the reason of its death."""

    worker_id: bytes
    kind: ExitKind
    detail: str


@dataclass(frozen=True, slots=True)
class AskWorkerToExit:
    """Let it finish what has arrived; nobody forces it."""

    worker_id: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class WorkersUnstartable:
    """Several processes in a row died or hung before they registered."""

    reason: str
    #: Those of one runtime environment; "" = the node's own.
    environment: str = ""


@dataclass(frozen=True, slots=True)
class ManyWorkers:
    """So many worker processes are alive, ``actors`` of them for actors: worth a warning to the drivers."""

    count: int
    actors: int


@dataclass(frozen=True, slots=True)
class AskScheduler:
    """Where shall ``count`` leases of a class go, each of its own? Answered with ``WorkerLeases.answered``."""

    owner: bytes
    class_key: int
    resources: ResourceSet
    strategy: Strategy
    count: int
    #: By the node that holds them.
    argument_bytes: dict[bytes, int]


@dataclass(frozen=True, slots=True)
class AskAllowance:
    """A job with a quota ``keeps`` so much of this node's allowance, and ``wants`` each of these besides. Answered with
    ``WorkerLeases.allowance_answered``."""

    job_id: bytes
    number: int
    keeps: ResourceSet
    wants: tuple[ResourceSet, ...]


@dataclass(frozen=True, slots=True)
class ReportActorStarted:
    """``failure`` empty: it runs, or its constructor raised ``creation_error``."""

    actor_id: bytes
    incarnation: int
    worker_id: bytes
    creation_error: bytes = b""
    failure: str = ""
    #: The failure is that of its runtime environment.
    environment_failed: bool = False


@dataclass(frozen=True, slots=True)
class CollectGarbage:
    """Something waits for what only actors hold: have the cluster's drivers and workers let go of those that nobody can
    reach any more."""


Action = (
    Send
    | StartWorker
    | PrepareEnvironment
    | ReleaseEnvironment
    | KillWorker
    | AskWorkerToExit
    | WorkersUnstartable
    | ManyWorkers
    | AskScheduler
    | AskAllowance
    | ReportActorStarted
    | CollectGarbage
)
