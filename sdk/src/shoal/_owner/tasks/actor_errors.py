"""What callers of an actor get that is dead, restarting or cut off, by what the GCS says of it."""

from __future__ import annotations

import pickle

from shoal import exceptions
from shoal._core.actors import ActorClient
from shoal._net.gcs.records import ActorRecord
from shoal_common.kinds import ExitKind


def death_error(actor: ActorRecord) -> Exception:
    """What callers of a dead actor get."""
    actor_id = actor.actor_id.hex()
    if actor.creation_error:
        cause = pickle.loads(actor.creation_error)
        if isinstance(cause, exceptions.TaskError):
            return exceptions.ActorDiedError(cause, actor_id=actor_id, class_name=actor.class_name)
        return exceptions.ActorDiedError(actor_id=actor_id, class_name=actor.class_name, reason=str(cause))
    if actor.group_removed:
        return exceptions.ActorPlacementGroupRemoved()
    if actor.runtime_env_failed:
        return exceptions.RuntimeEnvSetupError(actor.death_reason)
    if actor.unschedulable:
        return exceptions.ActorUnschedulableError(actor.death_reason)
    if actor.exit_kind in (ExitKind.NODE_OUT_OF_MEMORY, ExitKind.MEMORY_LIMIT) and not actor.killed:
        return exceptions.OutOfMemoryError(f"Actor {actor.class_name} was killed: {actor.exit_detail}")
    return exceptions.ActorDiedError(
        actor_id=actor_id,
        class_name=actor.class_name,
        name=actor.name,
        namespace=actor.namespace,
        pid=actor.pid,
        ip=actor.address.host,
        reason=actor.death_reason,
        never_started=actor.incarnation == 0,
    )


def unavailable_error(actor: ActorRecord) -> Exception:
    """What callers get of calls that were under way when it died, and whose fate is unknown."""
    detail = f" ({actor.exit_detail})" if actor.exit_detail else ""
    return exceptions.ActorUnavailableError(
        f"The actor is restarting, as the worker of this {actor.class_name} died{detail}", actor.actor_id.hex()
    )


def disconnected_error(client: ActorClient, node_id: bytes) -> Exception:
    """As ``unavailable_error``, when nothing but the connection has ended."""
    return exceptions.ActorUnavailableError(
        f"the connection to this {client.class_name} on node {node_id.hex()} was lost, and it lives: "
        f"{client.disconnected_because}",
        client.actor_id.hex(),
    )
