"""Cells of the timeline: their grid, and how busy each is with what."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shoal_dashboard.events.sheet import FAILED, KINDS, MAX_CELLS, Grid, Parts, cells, grid


@given(st.integers(0, 10**13), st.integers(0, 10**10), st.integers(1, 5_000), st.integers(0, 1_024))
def test_a_grid_covers_its_window_and_is_no_larger_than_wanted(start: int, span: int, columns: int, lanes: int) -> None:
    made = grid(start, start + span, columns, lanes)
    assert made.start_ms <= start and made.end_ms >= start + span
    assert made.columns <= columns and made.columns * lanes <= MAX_CELLS
    assert made.column_ms & (made.column_ms - 1) == 0 and made.start_ms % made.column_ms == 0


def test_a_window_that_has_moved_has_the_same_columns() -> None:
    one, two = grid(1_000_000, 1_100_000, 1_000, 8), grid(1_000_777, 1_100_777, 1_000, 8)
    assert one.column_ms == two.column_ms == 128
    assert (two.start_ms - one.start_ms) % one.column_ms == 0


def parts(tasks: list[tuple[int, int, int, int, bool]], grid: Grid) -> Parts:
    """``tasks``: lane, kind, begin and end in milliseconds behind the grid's, and whether they failed."""
    rows: list[tuple[Any, ...]] = []
    for lane, kind, begin, end, failed in tasks:
        first, last = begin // grid.column_ms, (end - 1) // grid.column_ms
        if first == last:
            rows.append((lane, kind, first, end - begin, 0, 0, failed))
        else:
            rows.append((lane, kind, first, (first + 1) * grid.column_ms - begin, 1, 0, False))
            rows.append((lane, kind, last, end - last * grid.column_ms, 0, 1, failed))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Parts(*columns[:3], columns[3].astype(float), *columns[4:6], columns[6].astype(bool))  # type: ignore[arg-type]


_TASKS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, KINDS - 1), st.integers(0, 62), st.integers(1, 64), st.booleans()).map(
        lambda each: (*each[:3], min(64, each[2] + each[3]), each[4])
    ),
    min_size=1,
    max_size=20,
)


@given(_TASKS)
def test_cells_are_as_busy_as_the_tasks_in_them(tasks: list[tuple[int, int, int, int, bool]]) -> None:
    made = Grid(0, 8, 8)
    shares, kinds = cells(parts(tasks, made), made, 3, one_at_a_time=True)
    for lane in range(3):
        for column in range(8):
            busy = dict.fromkeys(range(KINDS), 0)
            failed = False
            for at, kind, begin, end, bad in tasks:
                if at == lane:
                    busy[kind] += max(0, min(end, 8 * column + 8) - max(begin, 8 * column))
                    failed |= bad and (end - 1) // 8 == column
            share, shown = shares[8 * lane + column], kinds[8 * lane + column]
            assert share == min(255, -(-sum(busy.values()) * 255 // 8))
            assert bool(shown & FAILED) == failed
            if share:
                assert busy[shown & ~FAILED] == max(busy.values())


def test_a_lane_of_many_workers_is_full_when_it_is_as_busy_as_ever() -> None:
    made = Grid(0, 8, 2)
    shares, _ = cells(parts([(0, 0, 0, 8, False)] * 4 + [(0, 0, 8, 16, False)], made), made, 1, one_at_a_time=False)
    assert list(shares) == [255, 64]
