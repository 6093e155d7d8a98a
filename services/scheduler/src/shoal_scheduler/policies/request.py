"""What is asked, what is answered, and the estimate by which nodes are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from shoal_common.errors import InvalidRequest
from shoal_common.ids import NodeID
from shoal_common.resources import ResourceSet
from shoal_scheduler.cluster_view import NodeView

#: Assumed rate at which a node fetches arguments from others, in bytes a second.
BANDWIDTH_BYTES_PER_S = 500e6


@dataclass(frozen=True, slots=True)
class Request:
    resources: ResourceSet
    #: See ``frames.SchedulingClass.strategy``.
    strategy: str = ""
    #: The raylet that asks because it is overloaded; None when the GCS asks for an actor's place.
    asking: NodeID | None = None
    #: Bytes of the arguments, by the node that holds them.
    argument_bytes: Mapping[NodeID, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """A node, or None with ``infeasible`` and ``reason`` when there can never be one as the cluster is."""

    node: NodeView | None = None
    infeasible: bool = False
    reason: str = ""


def node_id_of(text: str) -> NodeID:
    """Raises: InvalidRequest when ``text`` is not a node's id in hexadecimal."""
    try:
        return NodeID(bytes.fromhex(text))
    except ValueError:
        raise InvalidRequest(f"{text!r} is not the id of a node: it must be hexadecimal") from None


def waiting_s(request: Request, node: NodeView) -> float:
    """Estimated waiting time on this node, in seconds (Ray paper, section 4.2.2); infinite when it can never hold it.

    Queue length × mean task duration (nothing where it fits now) + bytes of missing arguments ÷ bandwidth.
    """
    if not node.feasible(request.resources):
        return math.inf
    missing = sum(request.argument_bytes.values()) - request.argument_bytes.get(node.node_id, 0)
    queue_s = 0.0 if node.fits_now(request.resources) else node.queue_s()
    return queue_s + missing / BANDWIDTH_BYTES_PER_S
