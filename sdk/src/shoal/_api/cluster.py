"""What the GCS knows of the cluster, in Ray's shapes."""

from __future__ import annotations

from typing import Any

from shoal import _current
from shoal_common.placement.labels import with_ray_names
from shoal_common.placement.resources import GRAINS


def nodes() -> list[dict[str, Any]]:
    """One dictionary per node that ever joined, dead ones too."""
    from shoal_proto.v1 import gcs_pb2

    core = _current.connected()
    response = core.gcs.call("Node", "ListNodes", gcs_pb2.ListNodesRequest())
    return [
        {
            "NodeID": node.node_id.hex(),
            "Alive": node.state in (gcs_pb2.NODE_STATE_ALIVE, gcs_pb2.NODE_STATE_DRAINING),
            "alive": node.state in (gcs_pb2.NODE_STATE_ALIVE, gcs_pb2.NODE_STATE_DRAINING),
            "NodeManagerAddress": node.host,
            "NodeManagerHostname": node.host,
            "NodeName": node.host,
            "RayletSocketName": node.raylet_path,
            "Resources": _units(node.total.grains),
            "Available": _units(node.available.grains),
            "Labels": with_ray_names(node.labels),
            "DeathReasonMessage": node.death_reason,
        }
        for node in response.nodes
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


def _units(grains: Any) -> dict[str, float]:
    return {name: amount / GRAINS for name, amount in grains.items()}


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """Names of the living named actors of this namespace, or of all as ``{"namespace", "name"}``."""
    from shoal_proto.v1 import gcs_pb2

    core = _current.connected()
    request = gcs_pb2.ListActorsRequest(named_only=True, namespace="" if all_namespaces else core.namespace)
    actors = core.gcs.call("Actor", "ListActors", request).actors
    if all_namespaces:
        return [{"name": actor.name, "namespace": actor.namespace} for actor in actors]
    return [actor.name for actor in actors]
