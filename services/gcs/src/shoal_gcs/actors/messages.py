"""Between protobuf and the types that the pure modules speak."""

from __future__ import annotations

from shoal_common.channel.frames import SchedulingClass
from shoal_common.placement.resources import ResourceSet
from shoal_common.placement.strategy import Strategy
from shoal_common.rpc.values import amounts, exit_kind, worker_address, worker_address_message, worker_exit_message
from shoal_common.states import ActorState
from shoal_gcs.actors.machine import NOTHING, Actor, Exit
from shoal_proto.v1 import common_pb2, gcs_pb2


def worker_exit(message: common_pb2.WorkerExit) -> Exit:
    return Exit(exit_kind(message), message.detail)


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
        of_named_job=spec.of_named_job,
        max_restarts=spec.max_restarts,
        scheduling_class=_scheduling_class(spec),
        held=ResourceSet(spec.held.grains),
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
        of_named_job=spec.of_named_job if spec else False,
        max_restarts=spec.max_restarts if spec else 0,
        scheduling_class=_scheduling_class(spec) if spec else NOTHING,
        held=ResourceSet(info.held.grains),
        group_id=info.group_id,
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
        runtime_env_failed=info.runtime_env_failed,
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
        runtime_env_failed=actor.runtime_env_failed,
        group_removed=actor.group_removed,
        sequence=actor.sequence,
        held=amounts(actor.held),
        group_id=actor.group_id,
    )
    if actor.address is not None:
        info.address.CopyFrom(worker_address_message(actor.address))
    elif actor.node_id:
        info.address.node_id = actor.node_id
    if actor.exit is not None:
        info.exit.CopyFrom(worker_exit_message(actor.exit.kind, actor.exit.detail))
    return info


def _scheduling_class(spec: gcs_pb2.ActorSpec) -> SchedulingClass:
    strategy = Strategy.decode(spec.strategy)
    needed = strategy.needed(ResourceSet(spec.placement.grains))
    return SchedulingClass("", tuple(sorted(needed.grains.items())), strategy.outside_group().encode())
