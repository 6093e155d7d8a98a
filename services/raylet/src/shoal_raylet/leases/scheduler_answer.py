"""What a scheduler answers to ``AskScheduler``. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from shoal_common.ids import NodeID
from shoal_raylet.leases.demand import Demand


@dataclass(frozen=True, slots=True)
class LeasesPlaced:
    """So many of the leases go to this node."""

    node_id: bytes
    #: TCP address of that raylet's framed channel; of no use where the node is the asking one.
    host: str
    port: int
    count: int


@dataclass(frozen=True, slots=True)
class SchedulerAnswer:
    """``infeasible``: no node can ever hold the request, or its placement group is removed; ``reason`` says why.
    Neither that nor nodes: it waits."""

    placed: tuple[LeasesPlaced, ...] = ()
    infeasible: bool = False
    reason: str = ""


def own_answer(demand: Demand, node_id: NodeID, draining: bool) -> SchedulerAnswer:
    """Nobody answers: this node decides by what it knows, which is itself."""
    if demand.strategy.group_id:
        return SchedulerAnswer()
    if demand.impossible:
        # While this one drains, others may be able to, as far as it knows.
        return SchedulerAnswer(infeasible=not draining)
    return SchedulerAnswer((LeasesPlaced(node_id, "", 0, demand.owed),))
