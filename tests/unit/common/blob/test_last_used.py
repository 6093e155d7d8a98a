from __future__ import annotations

from shoal_common.blob.last_used import Found, day, find, mark


def test_what_was_used_long_ago_is_old() -> None:
    keys = ["package/a/0", mark("package/a", 10), mark("package/a", 12), "package/a/size"]
    assert find(keys, today=19, keep_days=7) == Found()
    assert find(keys, today=20, keep_days=7) == Found(old=["package/a"])


def test_what_nobody_has_marked_is_told_apart() -> None:
    keys = ["package/a/0", "package/b/used/x", "package/c/used/3/1", mark("package/d", 3)]
    found = find(keys, today=11, keep_days=7)
    assert found == Found(old=["package/d"], unmarked=["package/a", "package/b", "package/c"])


def test_days_are_those_of_utc() -> None:
    assert (day(86_399.9), day(86_400.0)) == (0, 1)
