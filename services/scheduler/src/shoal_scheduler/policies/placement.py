"""Which nodes take a request.

A place is where the request waits the shortest time (Ray paper, section 4.2.2): queue × mean task duration, nothing
where it fits now, and the bytes of missing arguments ÷ bandwidth.
"""

from __future__ import annotations

import random
from collections import OrderedDict

from shoal_common.ids import NodeID
from shoal_common.placement.resources import ResourceSet
from shoal_common.placement.strategy import Strategy
from shoal_scheduler.cluster_view import ClusterView, NodeView
from shoal_scheduler.policies import infeasible
from shoal_scheduler.policies.ranking import WAIT_STEP_S, Kind, Ranking, fetch_steps
from shoal_scheduler.policies.request import Answer, Request

#: A queued request moves to another busy node only for at least this gain in waiting time, in seconds: moving costs
#: round trips, and with a smaller one two busy nodes would hand a request to and fro.
MOVE_GAIN_S = 0.2
#: Of one request so many are placed at most, so that no other waits for more than some milliseconds.
MOST_AT_ONCE = 1000
#: Rankings kept, those used last; each takes a few hundred bytes a node.
RANKINGS = 32

_MOVE_GAIN = round(MOVE_GAIN_S / WAIT_STEP_S)


class Placer:
    """Chooses nodes of ``view`` and charges the placements to them at once."""

    def __init__(self, view: ClusterView, rng: random.Random) -> None:
        self._view = view
        self._rng = rng
        self._rankings: OrderedDict[Kind, Ranking] = OrderedDict()

    def place(self, request: Request, now: float) -> Answer:
        """Raises: InvalidRequest for an unknown strategy."""
        view, resources = self._view, request.resources
        strategy = Strategy.decode(request.strategy)
        view.settle(now)
        if strategy.node_id is not None:
            wanted = view.node(strategy.node_id)
            if wanted is not None and _can_hold(wanted, resources, strategy):
                for _ in range(min(request.count, MOST_AT_ONCE)):
                    view.place(wanted, resources, now)
                return Answer([(wanted, min(request.count, MOST_AT_ONCE))])
            if not strategy.soft:
                return Answer(infeasible=True, reason=infeasible.not_there(strategy, wanted, resources))
        rankings = [
            self._ranking(Kind(resources, selector, strategy.spread)) for selector in strategy.selectors or ((),)
        ]
        if not any(rankings):
            nodes = view.nodes() or view.leaving()  # none: there is nothing to say yet
            return Answer(infeasible=bool(nodes), reason=infeasible.anywhere(nodes, resources, strategy))
        return self._place(request, rankings, strategy.spread, now)

    def _place(self, request: Request, rankings: list[Ranking], spread: bool, now: float) -> Answer:
        asking = self._view.node(request.asking)
        if asking is not None:
            # They are counted where they go; what stays comes back into the queue below.
            self._view.requeue(asking, -request.count)
        placements: dict[NodeView, int] = {}
        left = request.count
        while left and request.count - left < MOST_AT_ONCE:
            for ranking in rankings:
                ranking.refresh()
            node = self._view.node(self._next(request, rankings, spread, asking, left))
            if node is None:
                break
            self._view.place(node, request.resources, now, spread=spread)
            placements[node] = placements.get(node, 0) + 1
            left -= 1
        if asking is not None:
            self._view.requeue(asking, left)
        return Answer(list(placements.items()))

    def _next(
        self, request: Request, rankings: list[Ranking], spread: bool, asking: NodeView | None, left: int
    ) -> NodeID | None:
        """Where the next one of ``left`` goes; None: nowhere, it stays.

        Of several rankings, one for each alternative of the strategy, the first with a node that fits now counts, else
        the first with any node.
        """
        # A raylet grants by itself what it may; so it has no room for these, and knows that better than its last
        # heartbeat. With SPREAD, or where it only meets a later alternative, it asks first, and may be chosen itself.
        stays = asking is not None and not spread and asking.node_id in rankings[0]
        skip = request.asking if stays else None
        able = [(ranking, first) for ranking in rankings if (first := ranking.first(skip)) is not None]
        if not able:
            return None
        ranking = next((ranking for ranking, first in able if first.wait == 0), able[0][0])
        rank = ranking.best(skip, request.argument_bytes, self._rng)
        fits_now = ranking.fits_now(rank.node_id)
        if request.asking is not None and (asking is None or asking.silent):
            # Its queue is not known; nor are, when this scheduler has just started, most of the other nodes.
            return rank.node_id if fits_now else None
        if stays:
            assert asking is not None
            here_s = asking.queue_s(request.resources, ahead=left - 1)
            here = round(here_s / WAIT_STEP_S) + fetch_steps(request.argument_bytes, asking.node_id)
            if rank.wait + (0 if fits_now else _MOVE_GAIN) > here:
                return None
        return rank.node_id

    def _ranking(self, kind: Kind) -> Ranking:
        ranking = self._rankings.get(kind)
        if ranking is None:
            ranking = self._rankings[kind] = Ranking(self._view, kind)
            if len(self._rankings) > RANKINGS:
                self._rankings.popitem(last=False)
        self._rankings.move_to_end(kind)
        ranking.refresh()
        return ranking


def _can_hold(node: NodeView, resources: ResourceSet, strategy: Strategy) -> bool:
    return node.usable and node.feasible(resources) and strategy.alternative(node.report.labels) is not None
