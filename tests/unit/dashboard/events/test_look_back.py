"""Which segments of the archive a question needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from shoal_dashboard.events.archive import Segment
from shoal_dashboard.events.look_back import ALWAYS, LookBack, Window, may_have_ended
from shoal_dashboard.events.rows import Filter, Page, TaskRow

FLOOR_MS = 10_000
SEGMENTS = [Segment(first, first + 1_500, 7, f"{first:08x}") for first in (9_500, 8_000, 6_000, 4_000)]


def row(created_ms: int, task_id: str = "") -> TaskRow:
    blank = {field.name: "" for field in dataclasses.fields(TaskRow)}
    fixed = {"task_id": task_id or f"{created_ms:x}", "attempt_number": 0, "creation_time_ms": created_ms}
    return TaskRow(**{**blank, **fixed})  # type: ignore[arg-type]  # the rest does not matter


def look(created: Sequence[int], limit: int, during: Window = ALWAYS) -> LookBack:
    rows = [row(each) for each in created]
    return LookBack(Page(rows, "", len(rows), 50), limit, SEGMENTS, FLOOR_MS, during)


def created(page: Page) -> list[int]:
    return [each.creation_time_ms for each in page.rows]


def test_a_page_that_is_full_of_newer_ones_needs_none() -> None:
    back = look([12_000, 11_000], 2)
    assert back.wanted(8) == []
    assert created(back.page()) == [12_000, 11_000]
    assert "28 older tasks" in back.page().uncounted


def test_a_page_that_is_full_of_long_ones_needs_those_that_may_be_between() -> None:
    back = look([12_000, 8_500], 2)
    assert back.wanted(1) == SEGMENTS[:1]
    back.found([row(9_100)], 1, 7)
    assert back.wanted(1) == SEGMENTS[1:2], "9,300 may be in it"
    back.found([row(8_200)], 1, 7)
    assert back.wanted(1) == []
    page = back.page()
    assert (created(page), page.total, page.recorded) == ([12_000, 9_100], 4, 64)
    assert "14 older tasks" in page.uncounted and not page.unseen


def test_what_is_told_twice_is_one_row() -> None:
    back = look([], 5)
    assert back.wanted(8) == SEGMENTS
    back.found([row(9_100), row(9_100)], 2, 28)
    back.found([row(9_100)], 1, 7)
    assert created(back.page()) == [9_100]
    assert not back.page().uncounted


def test_a_look_that_is_cut_says_from_where_on() -> None:
    back = look([], 5)
    assert "1970-01-01 00:00:10 UTC" in back.page("the archive is away").unseen
    back.wanted(1)
    back.found([], 0, 7)
    back.wanted(1)
    assert "before 1970-01-01 00:00:09 UTC, were not looked at: it is late" in back.page("it is late").unseen


def test_only_what_may_be_of_that_time_is_wanted() -> None:
    assert look([], 5, Window(5_600, 7_000)).wanted(8) == [SEGMENTS[2]]
    assert look([], 5, Window(7_600)).wanted(8) == SEGMENTS[:2]


@pytest.mark.parametrize(
    ("operator", "state", "may"), [("=", "running", False), ("=", "FAILED", True), ("!=", "RUNNING", True)]
)
def test_segments_have_what_has_ended(operator: str, state: str, may: bool) -> None:
    assert may_have_ended([Filter("state", operator, state)]) is may  # type: ignore[arg-type]
