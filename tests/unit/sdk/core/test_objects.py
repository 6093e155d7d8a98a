"""The table of objects: one reference per object, and nothing is kept or freed but for a reason."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._core.objects import ObjectTable
from shoal._wire.value_kinds import INLINE, PENDING, STORED
from shoal_common.channel.frames import WorkerAddress

OBJECT = b"o" * 24
OWNER = WorkerAddress(b"n" * 16, b"owner", "/sock")


class Table:
    """A table whose dead references are collected on request, as the core does it."""

    def __init__(self) -> None:
        self.objects = ObjectTable()

    def collect(self) -> list[ObjectEntry]:
        """The entries freed because nobody holds them any more."""
        before = dict(self.objects.entries)
        told = self.objects.collect()
        freed = [entry for object_id, entry in before.items() if object_id not in self.objects.entries]
        assert set(map(id, told)) <= set(map(id, freed))
        assert not self.objects.dropped
        return freed


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table()
    yield made
    made.objects.validate()


def owned(table: Table, *, ready: bool = True) -> tuple[ObjectEntry, ObjectRef[Any]]:
    entry, ref = table.objects.create(OBJECT)
    if ready:
        entry.state = INLINE
    return entry, ref


# -- references in this process ------------------------------------------------------------------------------------


def test_owned_object_is_freed_with_its_reference(table: Table) -> None:
    entry, ref = owned(table)
    assert table.collect() == []
    del ref
    assert table.collect() == [entry]
    assert table.objects.entries == {}


def test_nothing_is_left_of_a_reference_whose_making_is_interrupted(table: Table) -> None:
    """By the exception of a signal's handler, between any two byte codes."""

    class Late(Exception):
        pass

    passed = strike_at = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal passed
        frame.f_trace_opcodes = True
        if event == "opcode":
            passed += 1
            if passed == strike_at:
                raise Late
        return trace

    strikes = 0
    while strikes == strike_at:
        passed, strike_at = 0, strike_at + 1
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for one such frame when tracing begins
        sys.settrace(trace)
        try:
            table.objects.add(ObjectEntry(OBJECT, INLINE))
        except Late:
            strikes += 1
        finally:
            sys.settrace(None)
        table.collect()
        assert not table.objects.entries
    assert strikes > 20


def test_there_is_one_reference_per_object(table: Table) -> None:
    entry, ref = owned(table)
    assert table.objects.ref_of(entry) is ref
    borrowed, _ = table.objects.borrow(b"p" * 24, OWNER)
    assert table.objects.borrow(b"p" * 24, OWNER) == (borrowed, False)


def test_reference_made_again_before_its_end_was_noticed_keeps_the_object(table: Table) -> None:
    entry, ref = owned(table)
    del ref
    again = table.objects.ref_of(entry)
    assert table.collect() == []
    assert table.objects.entries == {OBJECT: entry}
    del again
    assert table.collect() == [entry]


def test_reference_dies_without_the_garbage_collector(table: Table) -> None:
    gc.disable()
    try:
        entry, ref = owned(table)
        del ref
        assert table.collect() == [entry]
    finally:
        gc.enable()


def test_pending_object_stays_for_its_task(table: Table) -> None:
    entry, ref = owned(table, ready=False)
    del ref
    assert table.collect() == []
    entry.state = INLINE
    table.objects.settled(entry)
    assert table.collect() == [entry]
    assert table.objects.entries == {}


def test_settled_object_stays_for_its_reference(table: Table) -> None:
    entry, ref = owned(table, ready=False)
    entry.state = INLINE
    table.objects.settled(entry)
    assert table.collect() == []
    assert table.objects.entries == {OBJECT: entry}
    assert ref._entry is entry


def test_object_without_a_task_is_freed_while_pending(table: Table) -> None:
    """The lifetime of an actor: its object never gets a value."""
    entry, ref = owned(table, ready=False)
    entry.on_free = lambda: None
    del ref
    assert table.collect() == [entry]


def test_only_what_somebody_is_to_be_told_of_is_returned(table: Table) -> None:
    """An inline object of our own is nowhere else; a stored one lies on a node, with what is inside of it."""
    inner, inner_ref = table.objects.create(b"i" * 24)
    inner.state = INLINE
    entry, ref = owned(table)
    entry.state, entry.contained = STORED, [inner_ref]
    del ref, inner_ref
    assert table.objects.collect() == [entry]
    assert table.objects.entries == {}


# -- objects of others -------------------------------------------------------------------------------------------------


def test_borrowed_object_is_forgotten_with_its_reference(table: Table) -> None:
    ref, new = table.objects.borrow(OBJECT, OWNER)
    entry = ref._entry
    assert new
    assert (entry.owner, entry.state) == (OWNER, PENDING)
    del ref
    assert table.collect() == [entry]
    assert table.objects.entries == {}


def test_borrowing_again_after_the_end_is_new(table: Table) -> None:
    """The owner may have been told of the end: it must be told of the new beginning."""
    ref, _ = table.objects.borrow(OBJECT, OWNER)
    del ref
    _again, new = table.objects.borrow(OBJECT, OWNER)
    assert new
    assert table.collect() == []
    assert OBJECT in table.objects.entries


# -- borrowers of ours -----------------------------------------------------------------------------------------------


def test_borrower_keeps_an_object(table: Table) -> None:
    entry, ref = owned(table)
    table.objects.add_borrower(OBJECT, b"w1")
    del ref
    assert table.collect() == []
    assert table.objects.lends()
    assert table.objects.remove_borrower(OBJECT, b"w1", 1) is entry
    assert table.objects.entries == {}
    assert not table.objects.lends()


def test_reference_keeps_an_object_after_its_borrower(table: Table) -> None:
    entry, _ref = owned(table)
    table.objects.add_borrower(OBJECT, b"w1")
    assert table.objects.remove_borrower(OBJECT, b"w1", 1) is None
    assert table.objects.entries == {OBJECT: entry}


def test_removal_takes_back_only_what_it_counts(table: Table) -> None:
    """A removal that crosses an addition on somebody else's word must not undo it."""
    entry, ref = owned(table)
    table.objects.add_borrower(OBJECT, b"w1")
    table.objects.add_borrower(OBJECT, b"w1")
    del ref
    table.collect()
    assert table.objects.remove_borrower(OBJECT, b"w1", 1) is None
    assert table.objects.remove_borrower(OBJECT, b"w1", 1) is entry


def test_each_borrower_counts(table: Table) -> None:
    entry, ref = owned(table)
    table.objects.add_borrower(OBJECT, b"w1")
    table.objects.add_borrower(OBJECT, b"w2")
    del ref
    table.collect()
    assert table.objects.remove_borrower(OBJECT, b"w1", 1) is None
    assert table.objects.remove_borrower(OBJECT, b"w2", 1) is entry


def test_death_of_a_borrower_removes_all_its_additions(table: Table) -> None:
    entry, ref = owned(table)
    for worker in (b"w1", b"w1", b"w2"):
        table.objects.add_borrower(OBJECT, worker)
    del ref
    table.collect()
    assert table.objects.borrower_died(b"w1") == []
    assert table.objects.borrower_died(b"w2") == [entry]
    assert table.objects.entries == {}


def test_pending_object_survives_its_borrowers_death(table: Table) -> None:
    entry, ref = owned(table, ready=False)
    table.objects.add_borrower(OBJECT, b"w1")
    del ref
    table.collect()
    assert table.objects.borrower_died(b"w1") == []
    assert table.objects.entries == {OBJECT: entry}


def test_unknown_objects_and_borrowers_are_ignored(table: Table) -> None:
    table.objects.add_borrower(b"unknown", b"w1")
    assert table.objects.remove_borrower(b"unknown", b"w1", 1) is None
    owned(table)
    assert table.objects.remove_borrower(OBJECT, b"w1", 1) is None


# -- any order of events ------------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Against a plain count: an object is in the table exactly as long as somebody holds it or is to fill it."""

    names = st.integers(0, 3).map(lambda number: bytes([number]) * 24)
    workers = st.sampled_from([b"w1", b"w2"])

    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.refs: dict[bytes, ObjectRef[Any]] = {}
        self.counts: dict[tuple[bytes, bytes], int] = {}
        self.pending: set[bytes] = set()
        self.mine: set[bytes] = set()

    def known(self, name: bytes) -> bool:
        return name in self.table.objects.entries

    @rule(name=names)
    def create(self, name: bytes) -> None:
        if name not in self.mine:
            self.mine.add(name)
            self.pending.add(name)
            _, self.refs[name] = self.table.objects.create(name)

    @rule(name=names)
    def drop(self, name: bytes) -> None:
        self.refs.pop(name, None)

    @rule(name=names)
    def find_again(self, name: bytes) -> None:
        if self.known(name):
            self.refs[name] = self.table.objects.ref_of(self.table.objects.entries[name])

    @rule(name=names)
    def finish(self, name: bytes) -> None:
        if name in self.pending:
            self.pending.discard(name)
            entry = self.table.objects.entries[name]
            entry.state = INLINE
            self.table.objects.settled(entry)

    @rule(name=names, worker=workers)
    def lend(self, name: bytes, worker: bytes) -> None:
        if self.known(name):
            self.table.objects.add_borrower(name, worker)
            self.counts[name, worker] = self.counts.get((name, worker), 0) + 1

    @rule(name=names, worker=workers)
    def take_back(self, name: bytes, worker: bytes) -> None:
        if self.counts.get((name, worker)):
            self.counts[name, worker] -= 1
            self.table.objects.remove_borrower(name, worker, 1)

    @rule(worker=workers)
    def worker_dies(self, worker: bytes) -> None:
        self.table.objects.borrower_died(worker)
        self.counts = {key: count for key, count in self.counts.items() if key[1] != worker}

    @precondition(lambda self: self.table.objects.dropped)
    @rule()
    def collect(self) -> None:
        for entry in self.table.collect():
            assert entry.object_id not in self.refs

    @invariant()
    def what_is_held_is_known(self) -> None:
        held = set(self.refs) | self.pending | {name for (name, _), count in self.counts.items() if count}
        assert held <= set(self.table.objects.entries)
        if not self.table.objects.dropped:
            assert held == set(self.table.objects.entries)
        for name, ref in self.refs.items():
            assert self.table.objects.ref_of(self.table.objects.entries[name]) is ref
        self.mine = set(self.table.objects.entries)  # a freed name may be used again
        self.table.objects.validate()


AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
