"""A loop that waits for each task before it submits the next one is told, once."""

from __future__ import annotations

from shoal._core.serial_gets import ENOUGH, SerialGets


def waits(gets: SerialGets, place: str, times: int) -> list[float | None]:
    return [gets.waited(place, 0.5) for _ in range(times)]


def test_enough_waits_in_a_row_are_told_once_with_their_sum() -> None:
    gets = SerialGets()
    assert waits(gets, "a.py:1", ENOUGH) == [None] * (ENOUGH - 1) + [0.5 * ENOUGH]
    assert waits(gets, "a.py:1", 3 * ENOUGH) == [None] * 3 * ENOUGH


def test_another_place_begins_anew() -> None:
    gets = SerialGets()
    assert waits(gets, "a.py:1", ENOUGH - 1) == [None] * (ENOUGH - 1)
    assert waits(gets, "a.py:2", ENOUGH - 1) == [None] * (ENOUGH - 1)
    assert waits(gets, "a.py:1", ENOUGH)[-1] == 0.5 * ENOUGH
    assert waits(gets, "a.py:2", ENOUGH)[-1] == 0.5 * ENOUGH


def test_a_wait_for_anything_else_ends_the_loop() -> None:
    gets = SerialGets()
    waits(gets, "a.py:1", ENOUGH - 1)
    assert gets.nearly_enough
    gets.ended()
    assert not gets.nearly_enough
    assert waits(gets, "a.py:1", ENOUGH - 1) == [None] * (ENOUGH - 1)
