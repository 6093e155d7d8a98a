"""``shoal.util.placement_group``, as Ray's ``ray.util.placement_group``."""

from __future__ import annotations

from collections.abc import Mapping

from shoal._api.placement_groups import STRATEGIES as VALID_PLACEMENT_GROUP_STRATEGIES
from shoal._api.placement_groups import (
    PlacementGroup,
    check_placement_group_index,
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
    validate_placement_group,
)
from shoal._core.public_ids import PlacementGroupID
from shoal_common.placement.labels import NODE_ID as NODE_ID_LABEL_KEY
from shoal_common.placement.labels import parse_selector


def validate_label_selector(label_selector: Mapping[str, str | None] | None) -> str | None:
    """What is wrong with a ``label_selector``; None = nothing."""
    try:
        parse_selector(label_selector)
    except ValueError as error:
        return str(error)
    return None


__all__ = [
    "NODE_ID_LABEL_KEY",
    "VALID_PLACEMENT_GROUP_STRATEGIES",
    "PlacementGroup",
    "PlacementGroupID",
    "check_placement_group_index",
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
    "validate_label_selector",
    "validate_placement_group",
]
