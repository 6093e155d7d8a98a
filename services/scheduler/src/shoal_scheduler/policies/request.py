"""What is asked, and what is answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shoal_common.errors import InvalidRequest
from shoal_common.ids import NodeID
from shoal_common.placement.resources import ResourceSet
from shoal_scheduler.cluster_view import NodeView


@dataclass(frozen=True, slots=True)
class Request:
    """So many places alike, each of its own."""

    resources: ResourceSet
    #: See ``shoal_common.placement.strategy``.
    strategy: str = ""
    #: The raylet in whose queue they are; None when the GCS asks for an actor's place.
    asking: NodeID | None = None
    #: Bytes of the arguments, by the node that holds them.
    argument_bytes: Mapping[NodeID, int] = field(default_factory=dict)
    count: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """Places for some or all of what was asked; the rest stays where it queues, and may be asked for again later.

    ``infeasible``, with a ``reason``: there can never be a place as the cluster is. That is what the nodes heard so far
    allow; whoever asks gives the request up only after a grace, in which those of a scheduler that has just started
    are heard.
    """

    placements: Sequence[tuple[NodeView, int]] = ()
    infeasible: bool = False
    reason: str = ""


def node_id_of(text: str) -> NodeID:
    """Raises: InvalidRequest when ``text`` is not a node's id in hexadecimal."""
    try:
        return NodeID(bytes.fromhex(text))
    except ValueError:
        raise InvalidRequest(f"{text!r} is not the id of a node: it must be hexadecimal") from None
