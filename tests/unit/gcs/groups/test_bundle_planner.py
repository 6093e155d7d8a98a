"""Which node takes which bundle."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_common.placement.labels import parse_selector
from shoal_common.placement.resources import ResourceSet
from shoal_gcs.groups.bundle_planner import Candidate, Need, PlacementStrategy, plan

PACK, SPREAD = PlacementStrategy.PACK, PlacementStrategy.SPREAD
STRICT_PACK, STRICT_SPREAD = PlacementStrategy.STRICT_PACK, PlacementStrategy.STRICT_SPREAD


def cpus(*amounts: float) -> dict[int, Need]:
    return {index: Need(ResourceSet.of({"CPU": amount})) for index, amount in enumerate(amounts)}


def nodes(**amounts: float) -> list[Candidate]:
    return [
        Candidate(name.encode(), ResourceSet.of({"CPU": amount}), {"name": name}) for name, amount in amounts.items()
    ]


@pytest.mark.parametrize("strategy", [PACK, STRICT_PACK])
def test_a_group_that_fits_one_node_goes_to_the_one_that_it_fills_best(strategy: PlacementStrategy) -> None:
    assert plan(strategy, cpus(1, 2), {}, nodes(a=8, b=3, c=2)) == {0: b"b", 1: b"b"}


def test_pack_takes_few_nodes_when_one_is_too_small_and_strict_pack_none() -> None:
    needs = cpus(1, 2, 2, 1)
    places = plan(PACK, needs, {}, nodes(a=4, b=2, c=2))
    assert places is not None
    assert len(set(places.values())) == 2
    assert plan(STRICT_PACK, needs, {}, nodes(a=4, b=2, c=2)) is None


def test_spread_takes_all_nodes_and_then_shares_them() -> None:
    places = plan(SPREAD, cpus(1, 1, 1, 1), {}, nodes(a=4, b=4))
    assert places is not None
    assert sorted(places.values()) == [b"a", b"a", b"b", b"b"]


def test_strict_spread_needs_a_node_for_each() -> None:
    assert plan(STRICT_SPREAD, cpus(1, 1, 1), {}, nodes(a=4, b=4)) is None
    assert plan(STRICT_SPREAD, cpus(1, 4), {}, nodes(a=4, b=1)) == {0: b"b", 1: b"a"}


def test_lost_bundles_come_back_to_where_the_strategy_allows_them() -> None:
    lost = {1: Need(ResourceSet.of({"CPU": 1}))}
    assert plan(STRICT_SPREAD, lost, {0: b"a"}, nodes(a=4, b=1)) == {1: b"b"}
    assert plan(STRICT_PACK, lost, {0: b"a"}, nodes(a=1, b=9)) == {1: b"a"}
    assert plan(STRICT_PACK, lost, {0: b"a"}, nodes(a=0.5, b=9)) is None
    assert plan(PACK, lost, {0: b"a"}, nodes(a=1, b=9)) == {1: b"a"}
    assert plan(PACK, lost, {0: b"a"}, nodes(a=0, b=9)) == {1: b"b"}
    assert plan(SPREAD, lost, {0: b"a"}, nodes(a=9, b=1)) == {1: b"b"}
    assert plan(SPREAD, lost, {0: b"a"}, nodes(a=9, b=0)) == {1: b"a"}


@pytest.mark.parametrize("strategy", list(PlacementStrategy))
def test_labels_bind_bundles_to_nodes(strategy: PlacementStrategy) -> None:
    one = Need(ResourceSet.of({"CPU": 1}), parse_selector({"name": "in(a, b)"}))
    assert plan(strategy, {0: one}, {}, nodes(c=9, b=1)) == {0: b"b"}
    assert plan(strategy, {0: one}, {}, nodes(c=9)) is None


def test_several_resources_must_be_on_the_same_node() -> None:
    need = {0: Need(ResourceSet.of({"CPU": 1, "disk": 1}))}
    apart = [Candidate(b"a", ResourceSet.of({"CPU": 4}), {}), Candidate(b"b", ResourceSet.of({"disk": 4}), {})]
    for strategy in PlacementStrategy:
        assert plan(strategy, need, {}, apart) is None


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.lists(st.integers(0, 6), max_size=5),
    st.sampled_from(PlacementStrategy),
)
def test_a_plan_holds_and_a_strict_one_is_found_when_there_is_one(
    amounts: list[int], rooms: list[int], strategy: PlacementStrategy
) -> None:
    names = "abcde"[: len(rooms)]
    places = plan(strategy, cpus(*amounts), {}, nodes(**dict(zip(names, rooms, strict=True))))
    if places is None:
        if strategy is STRICT_PACK:
            assert all(sum(amounts) > room for room in rooms)
        elif strategy is STRICT_SPREAD:
            matchings = permutations(rooms, len(amounts))
            assert not any(all(a <= room for a, room in zip(amounts, m, strict=True)) for m in matchings)
        return
    assert sorted(places) == list(range(len(amounts)))
    for name, room in zip(names, rooms, strict=True):
        assert sum(amounts[i] for i, node_id in places.items() if node_id == name.encode()) <= room
    if strategy is STRICT_PACK:
        assert len(set(places.values())) == 1
    if strategy is STRICT_SPREAD:
        assert len(set(places.values())) == len(amounts)
