"""Between protobuf and the types that the pure modules speak."""

from __future__ import annotations

from shoal_common.ids import JobID
from shoal_common.placement.resources import ResourceSet
from shoal_common.placement.strategy import Strategy
from shoal_gcs.actors.machine import Actor, ActorState, Demand, Exit, ExitKind, WorkerAddress
from shoal_gcs.jobs.table import Job
from shoal_proto.v1 import common_pb2, gcs_pb2


def worker_address(message: common_pb2.WorkerAddress) -> WorkerAddress:
    return WorkerAddress(message.node_id, message.worker_id, message.path, message.host, message.port)


def worker_exit(message: common_pb2.WorkerExit) -> Exit:
    return Exit(ExitKind(message.kind), message.detail)


def actor_of_spec(spec: gcs_pb2.ActorSpec) -> Actor:
    return Actor(
        actor_id=spec.actor_id,
        job_id=spec.job_id,
        owner_id=spec.owner_id,
        owner_node_id=spec.owner_node_id,
        name=spec.name,
        namespace=spec.namespace,
        class_name=spec.class_name,
        detached=spec.detached,
        max_restarts=spec.max_restarts,
        demand=_demand(spec),
        group_id=Strategy.decode(spec.strategy).group_id,
    )


def actor_of_row(info: gcs_pb2.ActorInfo, spec: gcs_pb2.ActorSpec | None) -> Actor:
    """``spec`` None: the actor is dead, and nothing that only its spec tells matters any more."""
    address = info.address
    return Actor(
        actor_id=info.actor_id,
        job_id=info.job_id,
        owner_id=info.owner_id,
        owner_node_id=spec.owner_node_id if spec else b"",
        name=info.name,
        namespace=info.namespace,
        class_name=info.class_name,
        detached=info.detached,
        max_restarts=spec.max_restarts if spec else 0,
        demand=_demand(spec) if spec else Demand(),
        group_id=Strategy.decode(spec.strategy).group_id if spec else b"",
        state=ActorState(info.state),
        version=info.version,
        incarnation=info.incarnation,
        restarts=info.restarts,
        node_id=address.node_id,
        address=worker_address(address) if address.worker_id else None,
        pid=info.pid,
        creation_error=info.creation_error,
        death_reason=info.death_reason,
        exit=worker_exit(info.exit) if info.HasField("exit") else None,
        killed=info.killed,
        out_of_scope=info.out_of_scope,
        owner_died=info.owner_died,
        unschedulable=info.unschedulable,
        group_removed=info.group_removed,
        sequence=info.sequence,
    )


def actor_info(actor: Actor) -> gcs_pb2.ActorInfo:
    """The public state of an actor, which is also its row. While its process is being started, the address names the
    node only."""
    info = gcs_pb2.ActorInfo(
        actor_id=actor.actor_id,
        state=gcs_pb2.ActorState.ValueType(actor.state),
        version=actor.version,
        incarnation=actor.incarnation,
        restarts=actor.restarts,
        pid=actor.pid,
        creation_error=actor.creation_error,
        death_reason=actor.death_reason,
        name=actor.name,
        namespace=actor.namespace,
        class_name=actor.class_name,
        job_id=actor.job_id,
        detached=actor.detached,
        owner_id=actor.owner_id,
        killed=actor.killed,
        out_of_scope=actor.out_of_scope,
        owner_died=actor.owner_died,
        unschedulable=actor.unschedulable,
        group_removed=actor.group_removed,
        sequence=actor.sequence,
    )
    at = actor.address
    if at is not None:
        info.address.CopyFrom(
            common_pb2.WorkerAddress(
                node_id=at.node_id, worker_id=at.worker_id, path=at.path, host=at.host, port=at.port
            )
        )
    elif actor.node_id:
        info.address.node_id = actor.node_id
    if actor.exit is not None:
        info.exit.kind = common_pb2.ExitKind.ValueType(actor.exit.kind)
        info.exit.detail = actor.exit.detail
    return info


def job_of_row(info: gcs_pb2.JobInfo) -> Job:
    return Job(
        job_id=JobID(info.job_id),
        driver_id=info.driver_id,
        namespace=info.namespace,
        pid=info.pid,
        entrypoint=info.entrypoint,
        start_unix_ms=info.start_unix_ms,
        end_unix_ms=info.end_unix_ms,
        metadata=dict(info.metadata),
        node_id=info.node_id,
    )


def job_info(job: Job) -> gcs_pb2.JobInfo:
    return gcs_pb2.JobInfo(
        job_id=job.job_id,
        driver_id=job.driver_id,
        namespace=job.namespace,
        pid=job.pid,
        entrypoint=job.entrypoint,
        start_unix_ms=job.start_unix_ms,
        end_unix_ms=job.end_unix_ms,
        metadata=job.metadata,
        node_id=job.node_id,
    )


def _demand(spec: gcs_pb2.ActorSpec) -> Demand:
    strategy = Strategy.decode(spec.strategy)
    needed = strategy.needed(ResourceSet(spec.placement.grains))
    return Demand(tuple(sorted(needed.grains.items())), strategy.outside_group().encode())
