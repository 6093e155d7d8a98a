"""SPREAD: each request to another node, whatever they already hold."""

from __future__ import annotations

from collections.abc import Sequence

from shoal_scheduler.cluster_view import NodeView


def pick_spread(nodes: Sequence[NodeView]) -> NodeView | None:
    """Round robin over ``nodes``, which fit the request now; None when there is none.

    Round robin and not the least utilized: requests that need nothing, or whose tasks are short, leave no trace in the
    utilization, and would all go to one node.
    """
    return min(nodes, key=lambda node: (node.last_spread, node.node_id), default=None)
