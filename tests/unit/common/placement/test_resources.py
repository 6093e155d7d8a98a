from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal_common.placement.resources import ResourceSet

amounts = st.dictionaries(st.sampled_from(["CPU", "GPU", "memory", "custom"]), st.integers(0, 10**9)).map(ResourceSet)


def test_a_tenth_ten_times_is_exactly_one() -> None:
    total = ResourceSet()
    for _ in range(10):
        total += ResourceSet.of({"CPU": 0.1})
    assert total == ResourceSet.of({"CPU": 1})


@given(st.lists(amounts))
def test_the_sum_is_that_of_all(sets: list[ResourceSet]) -> None:
    assert ResourceSet.sum(sets) == sum(sets, ResourceSet())


def test_an_absent_name_is_zero() -> None:
    assert ResourceSet.of({"CPU": 0}) == ResourceSet()
    assert ResourceSet()["CPU"] == 0
    assert not ResourceSet.of({"GPU": 0})


def test_what_is_missing_is_told_in_units() -> None:
    wanted, there = ResourceSet.of({"CPU": 2, "GPU": 1}), ResourceSet.of({"CPU": 1.5})
    assert wanted.missing_from(there) == {"CPU": 0.5, "GPU": 1.0}
    assert not wanted.fits_in(there)


@given(amounts, amounts)
def test_taking_and_giving_back_changes_nothing(total: ResourceSet, part: ResourceSet) -> None:
    assert total - part + part == total


@given(amounts, amounts)
def test_it_fits_exactly_when_nothing_is_missing(wanted: ResourceSet, there: ResourceSet) -> None:
    assert wanted.fits_in(there) == (not wanted.missing_from(there))


@given(amounts, amounts)
def test_a_set_fits_in_any_larger_one(wanted: ResourceSet, more: ResourceSet) -> None:
    assert wanted.fits_in(wanted + more)
