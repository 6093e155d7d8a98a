"""``log_once`` and what switches it, in virtual time."""

from __future__ import annotations

import pytest

from shoal import util
from shoal.util import debug


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(debug, "_once", debug.OnceLog(clock))
    return clock


def test_only_the_first_call_with_a_key_is_true() -> None:
    assert [util.log_once(key) for key in "aaba"] == [True, False, True, False]


def test_disabled_it_is_never_true() -> None:
    util.disable_log_once_globally()
    assert not util.log_once("a")


def test_reset_forgets_one_key_or_all() -> None:
    for key in "ab":
        util.log_once(key)
    debug.reset_log_once("a")
    debug.reset_log_once("unknown")
    assert [util.log_once("a"), util.log_once("b")] == [True, False]
    debug.reset_log_once()
    assert [util.log_once("a"), util.log_once("b")] == [True, True]


def test_periodic_it_forgets_after_a_minute_without_a_new_key(clock: Clock) -> None:
    util.log_once("a")
    clock.now += 61
    assert not util.log_once("a")  # not asked for
    util.enable_periodic_logging()
    assert not util.log_once("a")  # this call has it forgotten
    assert util.log_once("a")
    clock.now += 59
    assert not util.log_once("a")
    assert not util.log_once("a")
