from __future__ import annotations

from shoal_raylet.objects.recent_frees import MAX_OBJECTS, REMEMBERED_S, RecentFrees

HOME, OTHER = b"home", b"other"


def test_what_a_home_was_told_is_remembered_until_it_is_dead() -> None:
    frees = RecentFrees()
    frees.told(HOME, [b"1", b"2"], 0.0)
    frees.told(OTHER, [b"3"], 0.0)
    assert frees.take(HOME, REMEMBERED_S) == {b"1", b"2"}
    assert frees.take(HOME, REMEMBERED_S) == set()
    assert frees.take(OTHER, 1.0) == {b"3"}


def test_what_was_told_long_ago_has_been_heard() -> None:
    frees = RecentFrees()
    frees.told(HOME, [b"1"], 0.0)
    frees.told(HOME, [b"2"], REMEMBERED_S + 1)
    assert frees.take(HOME, REMEMBERED_S + 1) == {b"2"}


def test_it_is_bounded() -> None:
    frees = RecentFrees()
    frees.told(HOME, [number.to_bytes(4, "big") for number in range(MAX_OBJECTS + 1)], 0.0)
    assert len(frees.take(HOME, 0.0)) == MAX_OBJECTS
