"""DEFAULT: shortest wait first; among equals pack nodes until they are half full, then spread over the emptiest."""

from __future__ import annotations

import random
from collections.abc import Sequence

from shoal_scheduler.cluster_view import NodeView
from shoal_scheduler.policies.request import Request, waiting_s

#: Up to this utilization nodes are filled one after the other: the rest stay free for large requests.
PACK_UNTIL = 0.5
#: Above it, the choice is random among the best share of the nodes, so that schedulers which do not
#: know of each other don't all choose the same one.
TOP_SHARE = 0.2
#: Waits that differ by less than this, in seconds, count as equal: the estimate is no better.
WAIT_STEP_S = 0.01


def pick_hybrid(request: Request, nodes: Sequence[NodeView], rng: random.Random) -> NodeView | None:
    """The choice among ``nodes``, all of which could take the request; None when there is none."""
    if not nodes:
        return None
    ranked = sorted(nodes, key=lambda node: _rank(request, node))
    best = _rank(request, ranked[0])
    if best[1] == 0.0:
        return ranked[0]
    top = [node for node in ranked[: max(1, round(len(nodes) * TOP_SHARE))] if _rank(request, node)[0] == best[0]]
    return rng.choice(top)


def _rank(request: Request, node: NodeView) -> tuple[int, float, bytes]:
    """Wait in steps; utilization, where all below the threshold are equal; the id, so that packing has an order."""
    utilization = node.utilization(request.resources)
    packed = 0.0 if utilization <= PACK_UNTIL else utilization
    return round(waiting_s(request, node) / WAIT_STEP_S), packed, node.node_id
