"""What is stored for an actor: from which checkpoint it goes on, what of the log belongs to that, what may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal._core.checkpoints import Due, LogPart, Stored, Version, incarnation_name, replaced


def names(*versions: tuple[int, int], log: tuple[tuple[int, int], ...] = (), begun: tuple[int, ...] = ()) -> list[str]:
    return [
        *(Version(*each).name for each in versions),
        *(Version(*each).log_name for each in log),
        *(incarnation_name(each) for each in begun),
    ]


def test_names_and_back() -> None:
    version = Version(3, 1000)
    assert version.name == "00000003-00000000000003e8"
    assert Version.parse(version.name) == version
    assert Version.parse("00000003-3e8") is None
    assert Version.parse(version.log_name) is None


def test_a_later_incarnation_is_newer_whatever_its_number() -> None:
    stored = Stored(names((2, 5), (1, 9), (1, 3)))
    assert stored.checkpoints == [(1, 3), (1, 9), (2, 5)]


def test_names_of_others_are_passed_over() -> None:
    stored = Stored(["README", "log/", "log/x", "incarnation/zz", "0000-1", *names((1, 1))])
    assert (stored.checkpoints, stored.log, stored.incarnations) == ([(1, 1)], [], [])


def test_log_after_the_newest_checkpoint() -> None:
    stored = Stored(names((1, 0), (1, 4), log=((1, 1), (1, 3), (1, 6))))
    # The part that begins at 3 may reach beyond 4.
    assert stored.log_after(Version(1, 4)) == [LogPart(Version(1, first), None) for first in (3, 6)]


@given(
    st.sets(st.integers(0, 30), min_size=1),
    st.sets(st.integers(1, 30)),
    st.integers(1, 3),
)
def test_what_an_incarnation_still_deletes_is_nothing_that_the_next_one_reads(
    checkpoints: set[int], log: set[int], incarnation: int
) -> None:
    """It has stored its last checkpoint and been killed; the deletion of what that made superfluous is under way."""
    stored = Stored(names(*((incarnation, each) for each in checkpoints), log=tuple((incarnation, e) for e in log)))
    for start in stored.checkpoints[-2:]:  # the newest, and the one that is taken if that is damaged
        read = {part.version.log_name for part in stored.log_after(start)}
        assert not read & set(stored.superfluous())


def test_log_of_an_earlier_incarnation_is_over_when_the_checkpoint_is_of_a_later_one() -> None:
    stored = Stored(names((1, 0), (2, 4), log=((1, 1), (1, 5), (2, 5))))
    assert stored.log_after(Version(2, 4)) == [LogPart(Version(2, 5), None)]


def test_what_an_incarnation_wrote_after_the_next_one_began_does_not_count() -> None:
    # The newest checkpoint is damaged; incarnation 2 began after call 4.
    stored = Stored(names((1, 0), (2, 4), log=((1, 1), (1, 5), (2, 5))))
    assert stored.log_after(Version(1, 0)) == [LogPart(Version(1, 1), 4), LogPart(Version(2, 5), None)]


def test_where_an_incarnation_began_shows_in_its_log_too() -> None:
    stored = Stored(names((1, 0), (3, 9), log=((1, 1), (1, 5), (2, 5))))
    assert stored.log_after(Version(1, 0)) == [LogPart(Version(1, 1), 4), LogPart(Version(2, 5), 9)]


def test_log_without_a_checkpoint() -> None:
    assert Stored(names(log=((1, 1),))).log_after(None) == [LogPart(Version(1, 1), None)]


def test_one_more_than_the_newest_is_kept() -> None:
    stored = Stored(names((1, 0), (1, 10), (1, 20)))
    assert stored.superfluous() == names((1, 0))
    assert Stored(names((1, 10), (1, 20))).superfluous() == []
    assert Stored([]).superfluous() == []


def test_damaged_ones_do_not_count() -> None:
    stored = Stored(names((1, 0), (2, 10), (3, 20)))
    assert stored.superfluous([Version(2, 10)]) == names((2, 10))


def test_log_is_kept_back_to_the_older_one() -> None:
    stored = Stored(names((1, 10), (1, 20), log=((1, 1), (1, 8), (1, 11), (1, 21))))
    # The part from 8 ends where the next begins: it is covered, as the one before it.
    assert stored.superfluous() == names(log=((1, 1), (1, 8)))
    # Parts do not begin where checkpoints are: this one reaches beyond the older one.
    assert Stored(names((1, 10), (1, 20), log=((1, 8), (1, 15)))).superfluous() == []


def test_log_and_marks_of_earlier_incarnations_go() -> None:
    stored = Stored(names((2, 10), (3, 20), log=((1, 1), (2, 5), (3, 21)), begun=(1, 2, 3)))
    assert stored.superfluous() == names(log=((1, 1),), begun=(1, 2))


def test_replaced_by_a_later_incarnation_only() -> None:
    assert not replaced(2, names((7, 7), log=((8, 8),), begun=(1, 2)))
    assert replaced(2, names(begun=(1, 2, 3)))


@pytest.mark.parametrize(
    ("every", "interval_s", "calls", "now", "due"),
    [
        (0, 0.0, 1_000_000, 1e9, False),
        (3, 0.0, 2, 1e9, False),
        (3, 0.0, 3, 0.0, True),
        (0, 5.0, 1, 4.9, False),
        (0, 5.0, 1, 5.0, True),
        (0, 5.0, 0, 1e9, False),
        (3, 5.0, 1, 5.0, True),
    ],
)
def test_due(every: int, interval_s: float, calls: int, now: float, due: bool) -> None:
    when = Due(every, interval_s, 0.0)
    for _ in range(calls if calls < 100 else 100):
        when.ran()
    assert when.is_due(now) is due
    when.taken(now)
    assert not when.is_due(now)
