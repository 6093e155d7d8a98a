"""Why a demand has not been granted what it is owed, for humans. Pure."""

from __future__ import annotations

from shoal_common.ids import NodeID
from shoal_common.placement.resources import GRAINS
from shoal_raylet.leases.demand import Demand
from shoal_raylet.leases.resource_ledger import ResourceLedger


def why_not_here(demand: Demand, node_id: NodeID, draining: bool, ledger: ResourceLedger) -> str:
    """This node can never grant it."""
    here = f"node {node_id.hex()}"
    if draining:
        return f"{here} is draining: it takes nothing new"
    lacks = demand.resources.missing_from(ledger.total)
    if not lacks:
        return f"no node is known that {demand.spec.strategy!r} allows: {here} is not one"
    return (
        f"no node is known that can hold {amounts(demand.resources.to_units())}, even when idle: "
        f"{here} lacks {amounts(lacks)}"
    )


def why_not_yet(demand: Demand, holds_up: bool, ledger: ResourceLedger, held: str, starting: int) -> str:
    """This node may grant it. ``holds_up``: the quota of its job does. ``held``: who has
    what it needs, as ``holders_told`` says. ``starting``: worker processes that are not up yet."""
    if holds_up:
        quota = amounts({name: grains / GRAINS for name, grains in demand.spec.quota})
        return f"its job may hold {quota} at once (JobConfig(max_resources=)), and has so much already"
    if lacking := demand.resources.missing_from(ledger.available):
        return f"{amounts(lacking)} more must become free here{f' (held: {held})' if held else ''}"
    if starting:
        return f"there is room, and {starting} worker processes are starting"
    return "there is room, and others are before it"


def amounts(units: dict[str, float]) -> str:
    return ", ".join(f"{value:g} {name}" for name, value in sorted(units.items())) or "nothing"
