"""How much work an actor of a pool is given ahead."""

from __future__ import annotations

from shoal.util.multiprocessing import _Ahead


def test_one_chunk_until_it_is_known_how_long_they_take() -> None:
    assert _Ahead().room == 1


def test_short_chunks_go_ahead_and_long_ones_do_not() -> None:
    ahead = _Ahead()
    ahead.ended(1, 0.001)
    assert ahead.room == 5
    ahead.ended(4, 0.0004)
    assert 5 < ahead.room < _Ahead.MOST
    for _ in range(10):
        ahead.ended(10, 0.0001)
    assert ahead.room == _Ahead.MOST
    ahead.ended(1, 10.0)
    assert ahead.room == 1


def test_a_clock_that_has_not_moved() -> None:
    ahead = _Ahead()
    ahead.ended(3, 0.0)
    assert ahead.room == _Ahead.MOST
