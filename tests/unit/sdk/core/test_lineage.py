"""What is kept of tasks so that their objects can be made again: as long as need be, and no longer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.walks import walks

from shoal._core.lineage import RECORD_BYTES, Lineage, Unrepeatable
from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._core.objects import ObjectTable
from shoal._core.task_record import FunctionRecord, TaskRecord
from shoal._wire.peer_frames import TaskPush
from shoal._wire.value_kinds import ERROR, INLINE, PENDING, STORED
from shoal_common.channel.frames import WorkerAddress
from shoal_common.ids import object_of_task

FUNCTION = FunctionRecord(b"f" * 20, "f")
HOME = b"n" * 16
OWNER = WorkerAddress(HOME, b"w" * 16, "/sock")


class Process:
    """The tables of one, and its tasks' ways from record to value; in place of the rest of a core worker."""

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.table = ObjectTable()
        self.lineage = Lineage(max_bytes)
        self._tasks = 0

    def submit(
        self, *arguments: ObjectRef[Any], nested: tuple[ObjectRef[Any], ...] = (), returns: int = 1, retries: int = 3
    ) -> tuple[TaskRecord, list[ObjectRef[Any]]]:
        self._tasks += 1
        push = TaskPush(self._tasks.to_bytes(20, "big"), FUNCTION.function_id, "f", b"", num_returns=returns)
        record = TaskRecord(push, FUNCTION, [], retries_left=retries)
        record.holds = [*nested, *arguments] or None
        record.references = [(i, "", ref) for i, ref in enumerate(arguments)] or None
        refs = []
        for index in range(returns):
            entry, ref = self.table.create(object_of_task(push.task_id, index))
            record.entries.append(entry)
            refs.append(ref)
        return record, refs

    def end(self, record: TaskRecord, state: int = STORED) -> None:
        """All of its pending objects get such a value, as ``Calls.finish`` has it."""
        for entry in record.entries:
            if entry.state == PENDING:
                entry.state, entry.node_id, entry.lost = state, HOME, ""
                self.table.settled(entry)
        entries = self.table.entries
        stored = [e.object_id for e in record.entries if e.state == STORED and entries.get(e.object_id) is e]
        self.lineage.ended(record, stored)
        record.holds = record.references = None

    def stored(self, *arguments: ObjectRef[Any], **options: Any) -> ObjectRef[Any]:
        """The result of a task that has ended."""
        record, (ref,) = self.submit(*arguments, **options)
        self.end(record)
        return ref

    def put(self) -> ObjectRef[Any]:
        self._tasks += 1
        return self.table.add(ObjectEntry(object_of_task(self._tasks.to_bytes(20, "big"), 0), STORED, node_id=HOME))

    def lose(self, ref: ObjectRef[Any]) -> bytes:
        """As ``Recovery.lost``; its id."""
        entry = ref._entry
        entry.state, entry.lost = PENDING, "its node died"
        return entry.object_id

    def want(self, object_id: bytes) -> TaskRecord | Unrepeatable | None:
        """As ``Recovery.wanted``."""
        self.table.entries[object_id].lost = ""
        record = self.lineage.again(object_id, self.table.revive)
        if isinstance(record, TaskRecord):
            for index, entry in enumerate(record.entries):
                now = self.table.entries.get(entry.object_id)
                if now is not None:
                    record.entries[index] = now
                    now.lost = ""
        return record

    def collect(self) -> set[bytes]:
        """Free what nobody holds; ids of what lives."""
        self.release()
        self.validate()
        return set(self.table.entries)

    def release(self) -> None:
        """As ``Borrowing.release``."""
        while self.table.dropped:
            for entry in self.table.collect():
                self.free(entry)

    def free(self, entry: ObjectEntry | None) -> None:
        if entry is not None and entry.owner is None and (entry.state == STORED or entry.lost):
            self.lineage.freed(entry.object_id)

    def validate(self) -> None:
        self.table.validate()
        self.lineage.validate()


@pytest.fixture
def process() -> Iterator[Process]:
    made = Process()
    yield made
    made.collect()
    assert not made.lineage.bytes, "something is kept for nobody"


def test_a_task_with_small_results_is_not_kept(process: Process) -> None:
    record, _refs = process.submit()
    process.end(record, INLINE)
    assert process.lineage.bytes == 0


def test_a_lost_object_is_made_by_its_task_which_uses_up_a_retry(process: Process) -> None:
    ref = process.stored(retries=2)
    record = process.want(process.lose(ref))
    assert isinstance(record, TaskRecord)
    assert (record.retries_left, record.push.attempt) == (1, 1)
    process.end(record)
    assert ref._entry.state == STORED


def test_a_task_runs_again_once_for_all_that_want_its_objects(process: Process) -> None:
    record, refs = process.submit(returns=3)
    process.end(record)
    process.lose(refs[1])
    assert process.want(process.lose(refs[0])) is record
    assert not refs[1]._entry.lost, "it is on its way, too"
    assert process.want(process.lose(refs[2])) is None
    process.end(record)
    assert all(ref._entry.state == STORED for ref in refs)
    assert process.want(process.lose(refs[1])) is record
    process.end(record)


def test_why_an_object_cannot_be_made_again(process: Process) -> None:
    put = process.put()
    assert process.want(process.lose(put)) is Unrepeatable.PUT
    never = process.stored(retries=0)
    assert process.want(process.lose(never)) is Unrepeatable.RETRIES_DISABLED
    never._entry.state = ERROR
    process.lineage.freed(never._entry.object_id)
    once = process.stored(retries=1)
    record = process.want(process.lose(once))
    assert isinstance(record, TaskRecord)
    process.end(record)
    assert process.want(process.lose(once)) is Unrepeatable.MAX_ATTEMPTS_EXCEEDED


def test_a_task_is_kept_as_long_as_something_made_of_its_object_lives(process: Process) -> None:
    a = process.stored()
    a_id = a._entry.object_id
    b = process.stored(a)
    del a
    assert process.collect() == {b._entry.object_id}, "the value is not kept, what made it is"
    record = process.want(process.lose(b))
    assert isinstance(record, TaskRecord) and record.references is not None
    ((_, _, again),) = record.references
    assert again._entry.object_id == a_id and again._entry.lost
    first = process.want(a_id)
    assert isinstance(first, TaskRecord)
    process.end(first)
    process.end(record)
    del again
    assert process.collect() == {b._entry.object_id}
    assert process.lineage.bytes == 2 * RECORD_BYTES
    del b
    assert process.collect() == set()


def test_a_long_chain_goes_at_once(process: Process) -> None:
    ref = process.stored()
    for _ in range(5_000):
        ref = process.stored(ref)
        process.release()
    assert process.lineage.bytes > 5_000 * RECORD_BYTES
    del ref
    process.collect()


def test_what_no_task_can_make_again_is_held(process: Process) -> None:
    record, (small,) = process.submit()
    process.end(record, INLINE)
    borrowed, _ = process.table.borrow(b"x" * 24, OWNER)
    put = process.put()
    ref = process.stored(small, put, nested=(borrowed,))
    held = {small._entry.object_id, borrowed._entry.object_id}
    put_id = put._entry.object_id
    del small, borrowed, put
    assert process.collect() == held | {ref._entry.object_id}, "a put is the user's to hold"
    again = process.want(process.lose(ref))
    assert isinstance(again, TaskRecord)
    assert process.want(put_id) is Unrepeatable.PUT
    process.table.entries[put_id].state = ERROR
    process.end(again, ERROR)


def test_the_object_of_large_arguments_is_held(process: Process) -> None:
    packed = process.put()
    record, (ref,) = process.submit(nested=(packed,))
    record.push.args_object = packed._entry.object_id
    process.end(record)
    both = {packed._entry.object_id, ref._entry.object_id}
    del packed
    assert process.collect() == both


def test_a_result_that_is_an_error_or_small_now_is_not_kept(process: Process) -> None:
    for state in (ERROR, INLINE):
        ref = process.stored()
        record = process.want(process.lose(ref))
        assert isinstance(record, TaskRecord)
        process.end(record, state)
        assert process.lineage.bytes == 0


def test_a_reference_that_goes_while_the_task_runs_again_goes_with_its_end(process: Process) -> None:
    ref = process.stored()
    record = process.want(process.lose(ref))
    assert isinstance(record, TaskRecord)
    del ref
    process.collect()
    process.end(record)
    assert process.collect() == set()


def test_a_lost_object_that_nobody_wants_goes_with_its_reference(process: Process) -> None:
    ref = process.stored()
    process.lose(ref)
    del ref
    assert process.collect() == set()


def test_those_that_ended_first_are_forgotten_beyond_the_limit() -> None:
    process = Process(max_bytes=2 * RECORD_BYTES)
    first = process.stored()
    second, third = process.stored(first), process.stored()
    assert process.want(process.lose(first)) is Unrepeatable.LINEAGE_EVICTED
    assert isinstance(process.want(process.lose(third)), TaskRecord)
    fourth = process.stored()
    assert process.want(process.lose(second)) is Unrepeatable.LINEAGE_EVICTED
    process.validate()
    del fourth


class AnyOrder:
    """Objects made, lost, wanted, made again, borrowed and let go in any order.

    What is expected is worked out anew each time from all that was ever submitted.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.process = Process()
        self.held: dict[bytes, ObjectRef[Any]] = {}
        self.borrowed: dict[bytes, int] = {}
        #: Under way, by task id.
        self.running: dict[bytes, TaskRecord] = {}
        #: Of every task: the objects that its record needs and does not hold, once it has had a stored result.
        self.needs: dict[bytes, set[bytes]] = {}

    def ids(self, state: int, lost: bool = False) -> list[bytes]:
        """Of the objects in such a state."""
        entries = self.process.table.entries.values()
        return [entry.object_id for entry in entries if entry.state == state and bool(entry.lost) == lost]

    # -- what users do --

    def put(self) -> None:
        ref = self.process.put()
        self.held[ref._entry.object_id] = ref

    def submit(self) -> None:
        """Often it has ended already, if its arguments are there."""
        returns, retries, at_once = (
            self.rng.choice([1, 2]),
            self.rng.choice([-1, -1, -1, 0, 1]),
            self.rng.random() < 0.6,
        )
        some = [self.rng.sample(sorted(self.held), min(len(self.held), self.rng.choice([0, 1, 2]))) for _ in range(2)]
        arguments, nested = some
        record, refs = self.process.submit(
            *(self.held[each] for each in arguments),
            nested=tuple(self.held[each] for each in nested),
            returns=returns,
            retries=retries,
        )
        self.running[record.push.task_id] = record
        for ref in refs:
            self.held[ref._entry.object_id] = ref
        if at_once and self.is_ready(record):
            self.end_one(record, STORED)

    def let_go(self) -> None:
        del self.held[self.rng.choice(sorted(self.held))]
        self.process.release()

    def want(self) -> None:
        object_id = self.rng.choice(self.ids(PENDING, lost=True))
        entry, task_id = self.process.table.entries[object_id], object_id[:20]
        decision = self.process.want(object_id)
        if isinstance(decision, TaskRecord):
            assert task_id not in self.running, "it runs twice"
            self.running[task_id] = decision
        elif decision is None:
            assert task_id in self.running
        else:
            assert task_id not in self.needs or decision in (
                Unrepeatable.RETRIES_DISABLED,
                Unrepeatable.MAX_ATTEMPTS_EXCEEDED,
            )
            entry.state = ERROR
            self.process.lineage.freed(object_id)
            self.process.table.settled(entry)

    # -- what others do --

    def is_ready(self, record: TaskRecord) -> bool:
        return all(ref._entry.state != PENDING for _, _, ref in record.references or ())

    def end(self) -> None:
        ready = sorted(id_ for id_, record in self.running.items() if self.is_ready(record))
        self.end_one(self.running[self.rng.choice(ready)], self.rng.choice([STORED, STORED, STORED, INLINE, ERROR]))
        self.process.release()

    def end_one(self, record: TaskRecord, state: int) -> None:
        task_id = record.push.task_id
        del self.running[task_id]
        weak = {
            ref._entry.object_id
            for ref in record.holds or ()
            if ref._entry.state == STORED or ref._entry.object_id[:20] in self.process.lineage._tasks
        }
        self.process.end(record, state)
        if state == STORED or task_id in self.needs:
            self.needs[task_id] = weak if record.retries_left else set()

    def lose(self) -> None:
        there = self.ids(STORED)
        for object_id in there if self.rng.random() < 0.3 else [self.rng.choice(there)]:
            entry = self.process.table.entries[object_id]
            entry.state, entry.lost = PENDING, "its node died"

    def lend(self) -> None:
        object_id = self.rng.choice(sorted(self.held))
        self.process.table.add_borrower(object_id, b"w")
        self.borrowed[object_id] = self.borrowed.get(object_id, 0) + 1

    def give_back(self) -> None:
        object_id = self.rng.choice(sorted(self.borrowed))
        self.process.free(self.process.table.remove_borrower(object_id, b"w", self.borrowed.pop(object_id)))

    def borrower_dies(self) -> None:
        self.borrowed.clear()
        for entry in self.process.table.borrower_died(b"w"):
            self.process.free(entry)

    # -- what must hold --

    def nothing_is_freed_that_somebody_needs(self) -> None:
        entries = self.process.table.entries
        assert self.held.keys() <= entries.keys()
        assert self.borrowed.keys() <= entries.keys()
        for record in self.running.values():
            assert {ref._entry.object_id for ref in record.holds or ()} <= entries.keys()

    def all_and_only_what_may_be_needed_is_kept(self) -> None:
        kept = self.process.lineage._tasks
        again = {id_ for id_, task in kept.items() if id_ in self.running}
        alive = {
            object_id[:20]
            for object_id, entry in self.process.table.entries.items()
            if object_id[:20] in self.needs and (entry.state == STORED or entry.lost or object_id[:20] in again)
        }
        needed, look_at = set(alive), list(alive)
        while look_at:
            for need in self.needs.get(look_at.pop(), ()):
                if need[:20] in self.needs and need[:20] not in needed:
                    needed.add(need[:20])
                    look_at.append(need[:20])
        assert kept.keys() == needed

    def tables_are_whole(self) -> None:
        self.process.validate()

    def teardown(self) -> None:
        """Everybody lets go, and what is under way fails."""
        self.held.clear()
        self.borrower_dies()
        for record in self.running.values():
            self.process.end(record, ERROR)
        self.running.clear()
        self.process.release()
        self.process.validate()
        assert not self.process.table.entries
        assert not self.process.lineage._tasks, "something is kept for nobody"


@walks(40)
def test_any_order(seed: int) -> None:
    machine = AnyOrder(random.Random(seed))
    for _ in range(60):
        possible: list[Callable[[], None]] = [machine.put, machine.submit, machine.submit, machine.submit]
        if machine.held:
            possible += [machine.let_go, machine.let_go, machine.lend]
        if machine.ids(PENDING, lost=True):
            possible += [machine.want, machine.want]
        if any(map(machine.is_ready, machine.running.values())):
            possible += [machine.end, machine.end]
        if machine.ids(STORED):
            possible.append(machine.lose)
        if machine.borrowed:
            possible += [machine.give_back, machine.borrower_dies]
        machine.rng.choice(possible)()
        machine.nothing_is_freed_that_somebody_needs()
        machine.all_and_only_what_may_be_needed_is_kept()
        machine.tables_are_whole()
    machine.teardown()


def test_what_a_running_task_has_stored_is_not_made_again_by_another_run(process: Process) -> None:
    record, _ = process.submit()
    items = [object_of_task(record.push.task_id, index) for index in (1, 2, 3)]
    refs = [process.table.add(ObjectEntry(item, STORED, node_id=HOME)) for item in items]
    for item in items:
        process.lineage.made(item)
    assert process.lineage.again(items[0], process.table.revive) is None, "it runs"
    del refs[2]
    process.lineage.freed(items[2])
    process.lineage.freed(items[1])
    process.lineage.freed(items[0])
    process.lineage.validate()
    process.lineage.made(items[1])
    assert process.lineage.objects_of(record.push.task_id) == [items[1]]
    process.lineage.ended(record, process.lineage.objects_of(record.push.task_id))
    assert process.lineage.again(items[1], process.table.revive) is record
    process.lineage.validate()
    process.lineage.ended(record, [])
