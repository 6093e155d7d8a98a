"""The verdicts of the benchmark's table."""

from __future__ import annotations

import pytest
from report import make_table, row_lines, start_up_lines
from rows import ROWS

TASKS = "one task at a time"
PUT = "put of 256 MiB arrays"


@pytest.mark.parametrize(("shoal", "passed"), [(1_000.0, True), (999.0, False)])
def test_a_rate_must_be_so_many_times_that_of_ray(shoal: float, passed: bool) -> None:
    (line,) = row_lines(ROWS, {TASKS: {"shoal": [shoal], "ray": [100.0], "Pool": [4_000.0]}})
    assert line.passed is passed
    assert line.ratio == shoal / 100
    assert line.beside == f"Pool 4,000 ({shoal / 4_000:.0%} of it)"


def test_the_median_of_the_rounds_counts() -> None:
    (line,) = row_lines(ROWS, {TASKS: {"shoal": [1.0, 3_000.0, 2_000.0], "ray": [100.0, 100.0, 1.0]}})
    assert (line.shoal, line.ray) == (2_000.0, 100.0)


@pytest.mark.parametrize(("memcpy", "passed"), [(10.0, True), (10.1, False)])
def test_large_puts_are_measured_against_memcpy_as_well(memcpy: float, passed: bool) -> None:
    (line,) = row_lines(ROWS, {PUT: {"shoal": [6.0], "ray": [1.0], "memcpy": [memcpy]}})
    assert line.passed is passed


def test_a_row_that_one_side_failed_is_not_passed() -> None:
    (line,) = row_lines(ROWS, {TASKS: {"ray": [100.0]}})
    assert not line.passed
    assert "| – | 100 | – | ≥ 10× | FAIL |" in make_table(
        "title", {"cpus": 2, "cpu_model": "x", "system": "", "python": "", "shoal": "", "ray": ""}, [line]
    )


def test_times_are_better_when_they_are_shorter() -> None:
    start_up = {
        "shoal": [{"import": 0.1, "init": 0.5, "first_task": 0.3}],
        "ray": [{"import": 0.2, "init": 5.0, "first_task": 0.3}],
    }
    lines = {line.title: line for line in start_up_lines(start_up)}
    assert (lines["init()"].ratio, lines["init()"].passed) == (10.0, True)
    assert not lines["first task after init()"].passed


def test_every_row_is_a_program_of_its_own() -> None:
    assert len({row.key for row in ROWS}) == len(ROWS)
