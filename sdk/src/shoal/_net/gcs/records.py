"""What the GCS keeps, as the SDK speaks of it. No protobuf here: the modules beside this one translate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from shoal_common.channel.frames import WorkerAddress
from shoal_common.kinds import ExitKind
from shoal_common.placement.labels import Selector
from shoal_common.placement.resources import ResourceSet
from shoal_common.states import ActorState, GroupState, NodeState, PlacementStrategy


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a node that joins is told."""

    cluster_id: str
    session_name: str
    scheduler_addresses: tuple[str, ...]
    objectstore_addresses: tuple[str, ...]
    nats_address: str


@dataclass(frozen=True, slots=True)
class StartedJob:
    job_id: bytes
    namespace: str
    cluster_id: str
    session_name: str


class Scope(NamedTuple):
    """Whose named objects they are; without a job: those of the cache of results."""

    namespace: str
    job: str


@dataclass(frozen=True, slots=True)
class NamedObjectRecord:
    name: str
    #: Of its blobs.
    place: str
    size_bytes: int
    #: 0 = with its job.
    end_unix_ms: int


@dataclass(frozen=True, slots=True)
class NodeRecord:
    node_id: bytes
    state: NodeState
    host: str
    #: host:port of its gRPC server.
    raylet_address: str
    #: The Unix socket of its framed channel.
    raylet_path: str
    #: The TCP port of it; 0 = none.
    channel_port: int
    #: Of its metrics; 0 = none.
    metrics_port: int
    session_dir: str
    total: ResourceSet
    #: At its last heartbeat.
    available: ResourceSet
    labels: Mapping[str, str]
    start_unix_ms: int
    #: A draining node will have left by then; 0 = not known, or it stays.
    drain_deadline_unix_ms: int
    death_reason: str


@dataclass(slots=True)
class ActorSpec:
    """What an actor is made from, again after each crash."""

    actor_id: bytes
    job_id: bytes
    owner_id: bytes
    owner_node_id: bytes
    name: str
    namespace: str
    detached: bool
    #: -1 = no limit.
    max_restarts: int
    class_name: str
    #: Needed to place it.
    placement: ResourceSet
    #: Held for life.
    held: ResourceSet
    #: As in ``SchedulingClass``.
    strategy: str
    #: From which ``get_actor`` builds a handle.
    handle: bytes
    #: As in ``SchedulingClass``.
    runtime_env: str = ""
    #: Its process is killed when it grows beyond the memory in ``held``.
    enforce_memory: bool = False
    #: An encoded ``ActorCreation``; filled in when its arguments are ready.
    creation: bytes = b""
    #: It keeps checkpoints by itself.
    checkpoints: bool = False
    #: Detached, but it ends with the name that its job holds.
    of_named_job: bool = False


@dataclass(frozen=True, slots=True)
class ActorRecord:
    actor_id: bytes
    state: ActorState
    #: Grows with every transition.
    version: int
    incarnation: int
    #: Of its process; without a worker id while that is being started.
    address: WorkerAddress
    pid: int
    name: str
    namespace: str
    class_name: str
    #: The constructor's serialized exception; empty = none.
    creation_error: bytes
    death_reason: str
    #: How its last process ended; UNSPECIFIED = none has.
    exit_kind: ExitKind
    exit_detail: str
    killed: bool
    #: No node could ever hold it.
    unschedulable: bool
    runtime_env_failed: bool
    #: Its placement group was removed while it had no process.
    group_removed: bool
    #: It has no process, because its job holds all that it may hold.
    waits_for_quota: bool = False


@dataclass(frozen=True, slots=True)
class BundleRecord:
    resources: ResourceSet
    #: What the labels of its node must be.
    selector: Selector = ()
    #: Where it is reserved; empty = nowhere.
    node_id: bytes = b""


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A placement group that is wanted."""

    group_id: bytes
    job_id: bytes
    owner_id: bytes
    name: str
    namespace: str
    detached: bool
    strategy: PlacementStrategy
    bundles: tuple[BundleRecord, ...]


@dataclass(frozen=True, slots=True)
class GroupRecord:
    group_id: bytes
    name: str
    strategy: PlacementStrategy
    bundles: tuple[BundleRecord, ...]
    state: GroupState
    #: Grows with every transition.
    version: int
    #: Some bundles have no place, because its job holds all that it may hold.
    waits_for_quota: bool = False
