"""Which reports have come: each counts once, in any order, and what never comes is known to be lost."""

from __future__ import annotations

import random

import pytest

from shoal_common.events.node_events import NodeReport
from shoal_dashboard.events.rows import QueryError
from shoal_dashboard.events.seen import Mark, Seen

NODE = b"n" * 16


def report(number: int, oldest: int = 1, incarnation: int = 1) -> NodeReport:
    return NodeReport(NODE, incarnation, number, oldest, 0)


def upto(seen: Seen) -> tuple[int, int]:
    return seen.listening().seen[NODE]


def test_each_counts_once() -> None:
    seen = Seen()
    assert [seen.take(report(number)) for number in (1, 2, 2, 1, 3)] == [True, True, False, False, True]
    assert upto(seen) == (1, 3)


def test_what_is_missing_is_asked_for_until_it_comes() -> None:
    seen = Seen()
    assert all(seen.take(report(number)) for number in (1, 3, 4))
    assert upto(seen) == (1, 1)
    assert seen.take(report(2))
    assert upto(seen) == (1, 4)


def test_what_the_node_does_not_have_any_more_is_lost() -> None:
    seen = Seen()
    for each in (report(1), report(3), report(9, oldest=8)):
        assert seen.take(each)
    assert seen.lost == 5, "2 and 4 to 7"
    assert upto(seen) == (1, 7)


def test_what_was_before_anybody_listened_is_not_lost() -> None:
    seen = Seen()
    assert seen.take(report(40, oldest=40))
    assert seen.lost == 0
    assert upto(seen) == (1, 40)


def test_a_node_that_begins_anew_counts_from_the_beginning() -> None:
    seen = Seen()
    seen.take(report(7, oldest=7))
    assert seen.take(report(1, incarnation=2))
    assert not seen.take(report(8, incarnation=1)), "of the life that is over"
    assert upto(seen) == (2, 1)
    seen.forget(NODE)
    assert seen.listening().seen == {}


def test_it_goes_on_where_an_earlier_life_was() -> None:
    seen = Seen({NODE: (1, 5)})
    assert not seen.take(report(5))
    assert seen.take(report(6))


def test_a_mark_is_reached_when_nothing_before_it_is_missing() -> None:
    seen, mark = Seen(), Mark.of(f"{NODE.hex()}:1:3")
    assert not seen.reached(mark)
    reached = []
    for number in (1, 3, 2):
        seen.take(report(number))
        reached.append(seen.reached(mark))
    assert reached == [False, False, True]
    assert not seen.reached(Mark(NODE, 2, 1)), "the node has begun anew"
    seen.take(report(1, incarnation=2))
    assert seen.reached(mark) and seen.reached(Mark(NODE, 2, 1))
    assert Seen().reached(Mark(NODE, 1, 0)), "there is no report yet"


@pytest.mark.parametrize("text", ["", "yesterday", "00:1", "00:1:x", "xy:1:2"])
def test_what_is_no_mark_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match="is not a report"):
        Mark.of(text)


@pytest.mark.parametrize("seed", range(3))
def test_any_order_and_any_loss(seed: int) -> None:
    rng = random.Random(seed)
    seen, taken, kept = Seen(), 0, 30
    sent: list[NodeReport] = []
    for number in range(1, 500):
        sent.append(report(number, max(1, number - kept)))
        rng.shuffle(sent)
        for each in [sent.pop() for _ in range(rng.randrange(min(3, len(sent)) + 1))]:
            if rng.random() < 0.9:
                taken += seen.take(each)
            seen.validate()
    for number in range(470, 501):  # the last ones come again
        taken += seen.take(report(number, 470))
    assert upto(seen) == (1, 500)
    assert taken + seen.lost == 500
