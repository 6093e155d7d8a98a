"""What the GCS knows of the cluster, in Ray's shapes."""

from __future__ import annotations

from typing import Any

from shoal import _current
from shoal._values.flags import flag
from shoal_common.states import NodeState


def nodes() -> list[dict[str, Any]]:
    """One dictionary per node that ever joined, dead ones too.

    ``State`` is "ALIVE", "DRAINING" (it is about to leave, nothing new is placed there) or "DEAD"; ``DrainDeadline`` is
    when a draining node will have left at the latest (seconds since 1970), or None. ``Available`` is as of the last
    heartbeat, ``object_store_memory`` in it the bytes that are free in its store.
    """
    return [
        {
            "NodeID": node.node_id.hex(),
            "Alive": node.state is not NodeState.DEAD,
            "alive": node.state is not NodeState.DEAD,
            "State": node.state.name,
            "DrainDeadline": node.drain_deadline_unix_ms / 1000 or None,
            "NodeManagerAddress": node.host,
            "NodeManagerHostname": node.host,
            "NodeName": node.host,
            "MetricsExportPort": node.metrics_port,
            "RayletSocketName": node.raylet_path,
            "Resources": node.total.to_units(),
            "Available": node.available.to_units(),
            "Labels": dict(node.labels),
            "DeathReasonMessage": node.death_reason,
        }
        for node in _current.connected().gcs.nodes.list()
    ]


def cluster_resources() -> dict[str, float]:
    """Total resources of all living nodes, in units."""
    return _sum("Resources")


def available_resources() -> dict[str, float]:
    """What is free on all living nodes, in units, as of their last heartbeats (at most some 20 ms old)."""
    return {name: amount for name, amount in _sum("Available").items() if amount > 0}


def _sum(column: str) -> dict[str, float]:
    total: dict[str, float] = {}
    for node in nodes():
        if node["Alive"]:
            for name, amount in node[column].items():
                total[name] = total.get(name, 0.0) + amount
    return total


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """Names of the living named actors of this namespace, or of all as ``{"namespace", "name"}``.

    Raises: TypeError (``all_namespaces`` is no bool).
    """
    flag(all_namespaces, "all_namespaces")
    core = _current.connected()
    actors = core.gcs.actors.list(named_only=True, namespace="" if all_namespaces else core.namespace)
    if all_namespaces:
        return [{"name": actor.name, "namespace": actor.namespace} for actor in actors]
    return [actor.name for actor in actors]
