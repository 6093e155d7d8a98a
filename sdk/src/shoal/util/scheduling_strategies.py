"""Values of the option ``scheduling_strategy`` that are objects; as Ray's ``ray.util.scheduling_strategies``."""

from __future__ import annotations

from shoal._api.placement_groups import PlacementGroupSchedulingStrategy
from shoal._api.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
)

__all__ = [
    "DoesNotExist",
    "Exists",
    "In",
    "NodeAffinitySchedulingStrategy",
    "NodeLabelSchedulingStrategy",
    "NotIn",
    "PlacementGroupSchedulingStrategy",
]
