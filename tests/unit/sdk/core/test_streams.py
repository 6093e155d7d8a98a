"""The items of a generator as its owner counts them: each is read once, in order, whatever runs again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._core.streams import Arrival, Stream


def item(number: int) -> ObjectRef[Any]:
    return ObjectRef(ObjectEntry(b"item %d" % number))


def number_of(ref: ObjectRef[Any]) -> int:
    return int(ref.binary().split()[1])


def arrive(stream: Stream, *numbers: int) -> list[Arrival]:
    arrivals = []
    for number in numbers:
        arrival = stream.arrive(number)
        arrivals.append(arrival)
        if arrival is Arrival.NEW:
            stream.add(stream.take_ahead() or item(number))
    stream.validate()
    return arrivals


def read(stream: Stream) -> list[int]:
    numbers = []
    while (ref := stream.take()) is not None:
        numbers.append(number_of(ref))
    stream.validate()
    return numbers


def test_items_are_read_in_order_and_then_it_is_finished():
    stream = Stream()
    arrive(stream, 0, 1)
    assert read(stream) == [0, 1]
    assert not stream.finished
    arrive(stream, 2)
    assert stream.complete(3)
    assert not stream.finished
    assert read(stream) == [2]
    assert stream.finished


def test_another_run_gives_only_what_had_not_come():
    stream = Stream()
    arrive(stream, 0, 1)
    assert read(stream) == [0, 1]
    assert arrive(stream, 0, 1, 2) == [Arrival.AGAIN, Arrival.AGAIN, Arrival.NEW]
    assert read(stream) == [2]
    assert stream.complete(3)


def test_a_run_that_ends_sooner_is_another_one():
    stream = Stream()
    arrive(stream, 0, 1, 2)
    assert not stream.complete(2)
    assert stream.fail() == 3
    stream.add(item(3))  # the error


def test_a_run_that_goes_on_after_the_end_is_another_one():
    stream = Stream()
    arrive(stream, 0)
    assert stream.complete(1)
    assert arrive(stream, 0, 1) == [Arrival.AGAIN, Arrival.SURPLUS]
    assert not stream.complete(2)
    assert stream.fail() is None, "it had its end"


def test_an_error_comes_behind_all_that_has_come():
    stream = Stream()
    arrive(stream, 0, 1)
    arrive(stream, 0)
    assert stream.fail() == 2
    stream.add(item(2))
    assert read(stream) == [0, 1, 2]
    assert stream.finished


def test_nothing_is_kept_for_a_reader_that_is_gone():
    stream = Stream()
    arrive(stream, 0, 1)
    stream.take()
    stream.drop()
    arrive(stream, 2)
    assert read(stream) == []
    assert stream.complete(3)


def test_items_that_are_missing_are_a_defect():
    with pytest.raises(AssertionError, match="in order"):
        Stream().arrive(1)


class AnyOrder(RuleBasedStateMachine):
    """A generator that is run again and again, also at another length, and a reader that comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = Stream()
        #: Of the run that is under way: its length, and what it has yielded.
        self.length = 5
        self.yielded = 0
        self.told: list[int] = []
        self.read: list[int] = []
        self.error_at: int | None = None

    @rule()
    def yield_item(self) -> None:
        if self.yielded < self.length:
            if self.stream.arrive(self.yielded) is Arrival.NEW:
                self.told.append(self.yielded)
                self.stream.add(self.stream.take_ahead() or item(self.yielded))
            self.yielded += 1

    @rule(length=st.sampled_from([5, 5, 5, 4, 6]))
    def worker_dies(self, length: int) -> None:
        self.length, self.yielded = length, 0

    @precondition(lambda self: self.yielded == self.length)
    @rule()
    def end(self) -> None:
        if self.stream.complete(self.length):
            self._told_end()
        else:
            assert self.length != len(self.told)
            self._fail()
        self.length, self.yielded = 5, 0

    @rule()
    def fails(self) -> None:
        self._fail()
        self.length, self.yielded = 5, 0

    def _fail(self) -> None:
        index = self.stream.fail()
        if index is not None:
            assert index == len(self.told), "behind all that has come"
            self.error_at = index
            self.stream.add(self.stream.take_ahead() or item(index))
        self._told_end()

    def _told_end(self) -> None:
        self.stream.take_ahead()

    @precondition(lambda self: self.stream.wanted)
    @rule()
    def take(self) -> None:
        ref = self.stream.take()
        if ref is not None:
            self.read.append(number_of(ref))

    @precondition(lambda self: self.stream.wanted and not self.stream.ready and self.stream.end is None)
    @rule()
    def wait(self) -> None:
        if self.stream.ahead is None:
            self.stream.ahead = item(self.stream.read)

    @rule(really=st.sampled_from([True, False, False, False, False, False]))
    def drop(self, really: bool) -> None:
        if really:
            self.stream.drop()

    @invariant()
    def each_is_read_once_and_in_order(self) -> None:
        self.stream.validate()
        assert self.read == list(range(len(self.read)))
        if self.stream.finished and self.stream.wanted:
            assert len(self.read) == len(self.told) + (self.error_at is not None)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
