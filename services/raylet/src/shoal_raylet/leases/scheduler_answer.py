"""What a scheduler answers to ``AskScheduler``. Pure."""

from __future__ import annotations

from dataclasses import dataclass


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
