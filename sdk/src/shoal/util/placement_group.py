"""``shoal.util.placement_group``, as Ray's ``ray.util.placement_group``."""

from __future__ import annotations

from shoal._api.placement_groups import (
    PlacementGroup,
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from shoal._core.public_ids import PlacementGroupID

__all__ = [
    "PlacementGroup",
    "PlacementGroupID",
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
]
