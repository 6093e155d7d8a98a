"""What can be asked of placement groups and label selectors without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.util.placement_group import (
    NODE_ID_LABEL_KEY,
    VALID_PLACEMENT_GROUP_STRATEGIES,
    PlacementGroup,
    PlacementGroupID,
    check_placement_group_index,
    validate_label_selector,
    validate_placement_group,
)


def test_strategies_and_the_label_of_nodes() -> None:
    assert {"PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"} == VALID_PLACEMENT_GROUP_STRATEGIES
    assert NODE_ID_LABEL_KEY == "ray.io/node-id"


@pytest.mark.parametrize("strategy", sorted(VALID_PLACEMENT_GROUP_STRATEGIES))
def test_valid_groups(strategy: str) -> None:
    validate_placement_group([{"CPU": 1}], strategy, "detached", [{"zone": "a"}])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (([],), "empty list"),
        (([{"CPU": 0}],), "only 0 values"),
        (([{"CPU": 1}], "SCATTER"), "strategy SCATTER. Supported strategies are: PACK, SPREAD, STRICT_PACK"),
        (([{"CPU": 1}], "PACK", "eternal"), "'detached'. Got eternal"),
        (([{"CPU": 1}], "PACK", None, []), "length of `bundle_label_selector`"),
    ],
)
def test_invalid_groups(arguments: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        validate_placement_group(*arguments)


@pytest.mark.parametrize("index", [-1, 0, 1])
def test_bundles_that_are_there(index: int) -> None:
    check_placement_group_index(PlacementGroup(PlacementGroupID.from_random(), [{"CPU": 1}] * 2), index)


@pytest.mark.parametrize("index", [-2, 2])
def test_bundles_that_are_not_there(index: int) -> None:
    with pytest.raises(ValueError, match=f"index {index} is invalid.*0-1"):
        check_placement_group_index(PlacementGroup(PlacementGroupID.from_random(), [{"CPU": 1}] * 2), index)


def test_without_a_group_there_is_no_bundle() -> None:
    check_placement_group_index(PlacementGroup.empty(), -1)
    with pytest.raises(ValueError, match="must be -1"):
        check_placement_group_index(PlacementGroup.empty(), 0)


@pytest.mark.parametrize("selector", [None, {}, {"zone": "a"}, {"zone": "!in(a,b)"}, {"zone": None}])
def test_good_label_selectors(selector: Any) -> None:
    assert validate_label_selector(selector) is None


def test_a_bad_label_selector_says_what_is_wrong() -> None:
    problem = validate_label_selector({"zone": "in(a"})
    assert problem is not None
    assert "in(a" in problem
