"""The nodes that can hold one kind of request, best first, kept sorted while nodes change.

Ranking all nodes at each request would take milliseconds where there are a thousand. But requests come in few kinds,
and between two of one kind few nodes have changed: those alone are ranked anew and moved to their place. The order is
exactly that of sorting them all.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Mapping
from typing import NamedTuple

from shoal_common.ids import NodeID
from shoal_common.placement.labels import Selector, unmet
from shoal_common.placement.resources import ResourceSet
from shoal_scheduler.cluster_view import ClusterView, NodeView

#: DEFAULT: up to this utilization nodes are filled one after the other: the rest stay free for large requests.
PACK_UNTIL = 0.5
#: Above it, the choice is random among the best share of the nodes, so that schedulers which do not know of each
#: other don't all choose the same one.
TOP_SHARE = 0.2
#: Waits that differ by less than this, in seconds, count as equal: the estimate is no better.
WAIT_STEP_S = 0.01
#: Assumed rate at which a node fetches arguments from others, in bytes a second.
BANDWIDTH_BYTES_PER_S = 500e6


class Kind(NamedTuple):
    """Requests that see the nodes in the same order."""

    resources: ResourceSet
    selector: Selector
    #: SPREAD: round robin over the nodes, and not the least utilized first, because requests that need nothing, or
    #: whose tasks are short, leave no trace in the utilization and would all go to one node.
    spread: bool


class Rank(NamedTuple):
    """The smallest is the best."""

    #: Estimated wait in steps of WAIT_STEP_S; 0: it fits now.
    wait: int
    #: DEFAULT: utilization, where all below PACK_UNTIL are 0; SPREAD: number of the last placement.
    load: float
    #: So that packing has an order.
    node_id: NodeID


def fetch_steps(argument_bytes: Mapping[NodeID, int], node_id: NodeID | None = None) -> int:
    """Wait for the arguments that are not on this node (None: for all of them)."""
    missing = sum(argument_bytes.values()) - (argument_bytes.get(node_id, 0) if node_id is not None else 0)
    return round(missing / BANDWIDTH_BYTES_PER_S / WAIT_STEP_S)


class Ranking:
    def __init__(self, view: ClusterView, kind: Kind) -> None:
        self._view = view
        self._kind = kind
        self._ranks: dict[NodeID, Rank] = {}
        self._order: list[Rank] = []
        self._seen = -1

    def __contains__(self, node_id: NodeID | None) -> bool:
        return node_id in self._ranks

    def __bool__(self) -> bool:
        return bool(self._order)

    def refresh(self) -> None:
        """Take in what has changed in the view."""
        view = self._view
        if self._seen == view.changes:
            return
        changed = view.changed_since(self._seen)
        if changed is None:
            self._ranks = {node.node_id: rank for node in view.nodes() if (rank := self._rank(node)) is not None}
            self._order = sorted(self._ranks.values())
        else:
            for node_id in changed:
                self._move(node_id)
        self._seen = view.changes

    def fits_now(self, node_id: NodeID) -> bool:
        return self._ranks[node_id].wait == 0

    def first(self, skip: NodeID | None) -> Rank | None:
        """The first in order but ``skip``; None when there is no other."""
        return next((rank for rank in self._order[:2] if rank.node_id != skip), None)

    def best(self, skip: NodeID | None, argument_bytes: Mapping[NodeID, int], rng: random.Random) -> Rank:
        """The node to choose, which is not ``skip``; its wait is with that for arguments. There must be one."""
        rank = self._best_anywhere(skip, rng)
        if not argument_bytes:
            return rank
        # All nodes without any of the arguments wait alike for them: only those that have some can be better.
        candidates = [rank._replace(wait=rank.wait + fetch_steps(argument_bytes))]
        for node_id in argument_bytes.keys() & self._ranks.keys() - {skip}:
            holder = self._ranks[node_id]
            candidates.append(holder._replace(wait=holder.wait + fetch_steps(argument_bytes, node_id)))
        return min(candidates)

    def validate(self) -> None:
        """For tests: what is always true of it."""
        assert self._order == sorted(self._ranks.values())
        assert all(rank.node_id == node_id for node_id, rank in self._ranks.items())
        if self._seen == self._view.changes:
            anew = {node.node_id: rank for node in self._view.nodes() if (rank := self._rank(node)) is not None}
            assert self._ranks == anew, "moving those that changed is as good as sorting all"

    def _best_anywhere(self, skip: NodeID | None, rng: random.Random) -> Rank:
        order = self._order
        first = self.first(skip)
        assert first is not None
        if self._kind.spread or first.wait or not first.load:
            return first
        skipped = self._ranks.get(skip) if skip is not None else None
        ready = bisect_left(order, (1,)) - (skipped is not None and skipped.wait == 0)
        at = rng.randrange(max(1, round(ready * TOP_SHARE)))
        return order[at + (skipped is not None and bisect_left(order, skipped) <= at)]

    def _rank(self, node: NodeView) -> Rank | None:
        resources, selector, spread = self._kind
        if node.silent or node.draining or not resources.fits_in(node.report.total):
            return None
        if selector and unmet(selector, node.report.labels):
            return None
        load = node.load_with(resources)
        wait = 0 if load is not None else max(1, round(node.queue_s(resources) / WAIT_STEP_S))
        if spread:
            return Rank(wait, node.last_spread, node.report.node_id)
        return Rank(wait, load if load is not None and load > PACK_UNTIL else 0.0, node.report.node_id)

    def _move(self, node_id: NodeID) -> None:
        node = self._view.node(node_id)
        old, new = self._ranks.get(node_id), self._rank(node) if node is not None else None
        if old == new:
            return
        if old is not None:
            del self._order[bisect_left(self._order, old)]
        if new is not None:
            insort(self._order, new)
            self._ranks[node_id] = new
        else:
            del self._ranks[node_id]
