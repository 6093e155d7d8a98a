"""Where a task or an actor runs when its options, or the running task, name a placement group."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from shoal import _context
from shoal._api.option_rules import PLACEMENT_GROUP_OF_PARENT
from shoal._api.options import ActorOptions, TaskOptions
from shoal._api.placement_groups import (
    PlacementGroup,
    PlacementGroupSchedulingStrategy,
    check_placement_group_index,
    get_current_placement_group,
)
from shoal._api.quota import check_quota
from shoal_common.placement.strategy import Strategy


def strategy_of_task(options: TaskOptions, name: str) -> str:
    """``options.strategy()``, in the group that they name or that the running task hands on.

    Raises: ValueError for a bundle that the group does not have, and for a request that is larger than every bundle.
    """
    return _in_group(options, name, options.resources(), {})


def strategy_of_actor(options: ActorOptions, name: str) -> str:
    """As ``strategy_of_task``."""
    return _in_group(options, name, options.held(), options.placement())


def captured() -> Strategy | None:
    """How the running task or actor was placed, when what it creates goes to the same group."""
    strategy = Strategy.decode(_context.process.strategy)
    return strategy if strategy.captures else None


def _in_group(
    options: TaskOptions | ActorOptions, name: str, needed: Mapping[str, float], at_first: Mapping[str, float]
) -> str:
    group, index, captures = _group_of(options)
    if group is None:
        group = PlacementGroup.empty()
    check_placement_group_index(group, index)
    if group.is_empty:
        check_quota(name, needed)
        return options.strategy()
    bundles = group.bundle_specs
    if not _fits_one(needed, bundles):
        raise ValueError(
            f"Cannot schedule {name} with the placement group because the resource request {dict(needed)} cannot fit "
            f"into any bundles for the placement group, {bundles}."
        )
    if not _fits_one(at_first, bundles):
        raise ValueError(
            f"Cannot schedule {name} with the placement group because the actor requires {at_first.get('CPU', 0)} CPU "
            f"for creation, but it cannot fit into any bundles for the placement group, {bundles}. Consider creating a "
            "placement group with CPU resources."
        )
    strategy = Strategy.decode(options.strategy())
    bundle = None if index == -1 else index
    return dataclasses.replace(strategy, group_id=group.id.binary(), bundle=bundle, captures=captures).encode()


def _group_of(options: TaskOptions | ActorOptions) -> tuple[PlacementGroup | None, int, bool]:
    """The group, the index of the bundle (-1 = any), and whether what is created there goes to the group too."""
    given: TaskOptions | ActorOptions | PlacementGroupSchedulingStrategy = options
    if options.scheduling_strategy is not None:
        if not isinstance(options.scheduling_strategy, PlacementGroupSchedulingStrategy):
            return None, -1, False
        given = options.scheduling_strategy
    captures = given.placement_group_capture_child_tasks
    if captures is None:
        captures = captured() is not None
    group = given.placement_group
    if group == PLACEMENT_GROUP_OF_PARENT:
        group = get_current_placement_group() if captures else None
    return group, given.placement_group_bundle_index, captures


def _fits_one(needed: Mapping[str, float], bundles: list[dict[str, float]]) -> bool:
    return any(all(amount <= bundle.get(name, 0) for name, amount in needed.items()) for bundle in bundles)
