from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_raylet.objects.allocator import ALIGNMENT, LARGE_BYTES, PAGE, Allocator


def test_the_lowest_fitting_extent_is_reused_first() -> None:
    arena = Allocator(1024)
    first, second, third = (arena.allocate(128) for _ in range(3))
    assert (first, second, third) == (0, 128, 256)
    arena.free(0, 128)
    assert arena.allocate(256) == 384
    assert arena.allocate(100) == 0


def test_neighbours_merge_whatever_the_order() -> None:
    for order in ((0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2)):
        arena = Allocator(3 * 64)
        for _ in range(3):
            arena.allocate(64)
        for i in order:
            arena.free(i * 64, 64)
        assert arena.extents() == [(0, 192)]


def test_large_objects_start_on_a_page() -> None:
    arena = Allocator(4 * LARGE_BYTES)
    arena.allocate(1)
    large = arena.allocate(LARGE_BYTES)
    assert large == PAGE
    # The gap before it is not lost.
    assert arena.allocate(64) == ALIGNMENT


def test_what_does_not_fit_changes_nothing() -> None:
    arena = Allocator(1024)
    assert arena.allocate(1025) is None
    assert arena.extents() == [(0, 1024)]


def test_an_empty_object_has_a_place_of_its_own() -> None:
    arena = Allocator(1024)
    assert arena.allocate(0) != arena.allocate(0)


def test_a_second_free_is_an_error() -> None:
    arena = Allocator(1024)
    arena.allocate(256)
    arena.free(0, 256)
    with pytest.raises(ValueError, match="free already"):
        arena.free(0, 256)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3 * LARGE_BYTES)), max_size=60))
def test_allocations_never_overlap_and_nothing_is_lost(steps: list[tuple[bool, int]]) -> None:
    capacity = 8 * LARGE_BYTES
    arena = Allocator(capacity)
    held: list[tuple[int, int]] = []
    for is_free, number in steps:
        if is_free and held:
            arena.free(*held.pop(number % len(held)))
        elif not is_free:
            offset = arena.allocate(number)
            if offset is not None:
                assert offset % (PAGE if number >= LARGE_BYTES else ALIGNMENT) == 0
                held.append((offset, number))
        taken = sorted((offset, offset + Allocator.rounded(size)) for offset, size in held)
        spans = sorted(taken + arena.extents())
        assert spans[0][0] == 0 and spans[-1][1] == capacity
        assert all(end == start for (_, end), (start, _) in pairwise(spans))
        assert arena.used == sum(end - start for start, end in taken)
        free = arena.extents()
        assert all(end < start for (_, end), (start, _) in pairwise(free))
