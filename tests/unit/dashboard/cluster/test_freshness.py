"""When rows are read again."""

from __future__ import annotations

from shoal_dashboard.cluster.freshness import LEAST_S, Freshness


def test_nothing_is_fresh_before_it_was_read() -> None:
    assert not Freshness().fresh(now=0.0)


def test_what_is_cheap_is_read_again_soon() -> None:
    freshness = Freshness()
    freshness.read(began=10.0, ended=10.001)
    assert freshness.fresh(10.0 + LEAST_S / 2)
    assert not freshness.fresh(10.0 + LEAST_S * 2)


def test_what_takes_long_is_kept_ten_times_as_long() -> None:
    freshness = Freshness()
    freshness.read(began=10.0, ended=10.5)
    assert freshness.fresh(14.9)
    assert not freshness.fresh(15.1)
