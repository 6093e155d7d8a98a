"""Which node takes a request, or why none can."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from shoal_common.errors import InvalidRequest
from shoal_common.ids import NodeID
from shoal_common.resources import ResourceSet
from shoal_scheduler.cluster_view import ClusterView, NodeView
from shoal_scheduler.policies.hybrid import pick_hybrid
from shoal_scheduler.policies.request import Choice, Request, node_id_of, waiting_s
from shoal_scheduler.policies.spread import pick_spread

#: A queued request moves to another busy node only for at least this gain in waiting time, in seconds: moving costs
#: round trips, and with a smaller one two busy nodes would hand a request to and fro.
MOVE_GAIN_S = 0.2

_SPREAD = "SPREAD"
_HARD = "node:"
_SOFT = "node?:"


def pick(request: Request, view: ClusterView, now: float, rng: random.Random) -> Choice:
    """Choose a node and charge the placement to it. A choice without node or ``infeasible`` means: ask again later.

    ``infeasible`` is what the nodes heard so far allow: whoever asks gives a request up only after a grace, in which
    those of a scheduler that has just started are heard.

    Raises: InvalidRequest for an unknown strategy.
    """
    choice = _choose(request, view, now, rng)
    if choice.node is not None:
        view.place(choice.node, request.resources, spread=request.strategy == _SPREAD)
    return choice


def _choose(request: Request, view: ClusterView, now: float, rng: random.Random) -> Choice:
    nodes = view.nodes(now)
    strategy = request.strategy
    if strategy.startswith((_HARD, _SOFT)):
        node_id = node_id_of(strategy.partition(":")[2])
        wanted = next((node for node in nodes if node.node_id == node_id), None)
        if wanted is not None and wanted.feasible(request.resources):
            return _stay_or_go(request, wanted)
        if strategy.startswith(_HARD):
            return Choice(infeasible=True, reason=_why_not_there(node_id, wanted, request.resources))
    elif strategy not in ("", "DEFAULT", _SPREAD):
        raise InvalidRequest(
            f"unknown scheduling strategy {strategy!r}: use DEFAULT, SPREAD, node:<hex> or node?:<hex>"
        )
    feasible = [node for node in nodes if node.feasible(request.resources)]
    if not feasible:
        return Choice(infeasible=True, reason=_closest(nodes, request.resources)) if nodes else Choice()
    ready = [node for node in feasible if node.fits_now(request.resources)]
    if strategy == _SPREAD:
        chosen = pick_spread(ready)
    else:
        # A raylet asks when it cannot grant the request, and knows that better than its last heartbeat.
        chosen = pick_hybrid(request, [node for node in ready if node.node_id != request.asking], rng)
    return Choice(chosen if chosen is not None else _shorter_queue(request, view, feasible, now))


def _stay_or_go(request: Request, wanted: NodeView) -> Choice:
    """A request bound to a node queues there; when that node itself asks, it does already."""
    if wanted.fits_now(request.resources) or wanted.node_id != request.asking:
        return Choice(wanted)
    return Choice()


def _shorter_queue(request: Request, view: ClusterView, feasible: Sequence[NodeView], now: float) -> NodeView | None:
    """All nodes are busy: one where the wait is shorter by enough than where the request queues now.

    An actor queues nowhere. Its creation is sent to the shortest queue all the same: the raylet there refuses it,
    but sets aside what it needs and asks tasks for it.
    """
    asking = view.node(request.asking, now) if request.asking is not None else None
    here_s = waiting_s(request, asking) if asking is not None else math.inf
    best = min(feasible, key=lambda node: (waiting_s(request, node), node.node_id))
    return best if waiting_s(request, best) + MOVE_GAIN_S <= here_s else None


def _why_not_there(node_id: NodeID, node: NodeView | None, resources: ResourceSet) -> str:
    if node is None:
        return f"node {node_id.hex()}, to which the request is bound, is not in the cluster, or is dead or draining"
    return f"node {node_id.hex()}, to which the request is bound, lacks {_lack(node, resources)}"


def _closest(nodes: Sequence[NodeView], resources: ResourceSet) -> str:
    """The node that lacks the fewest kinds of resources and, among those, the smallest share of what is asked."""

    def distance(node: NodeView) -> tuple[int, float]:
        asked, missing = resources.to_units(), resources.missing_from(node.report.total)
        return len(missing), sum(amount / asked[name] for name, amount in missing.items())

    node = min(nodes, key=distance)
    return (
        f"no node can hold {_amounts(resources.to_units())}, even when idle: the closest of {len(nodes)}, "
        f"node {node.node_id.hex()}, lacks {_lack(node, resources)}"
    )


def _lack(node: NodeView, resources: ResourceSet) -> str:
    missing, total = resources.missing_from(node.report.total), node.report.total.to_units()
    return ", ".join(f"{amount:g} {name} (it has {total.get(name, 0):g})" for name, amount in sorted(missing.items()))


def _amounts(units: dict[str, float]) -> str:
    return "{" + ", ".join(f"{name}: {amount:g}" for name, amount in sorted(units.items())) + "}"
