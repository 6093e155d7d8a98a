"""Calls to one actor: their order, when they are sent, and what becomes of them when the actor restarts or dies."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shoal._core.actors import (
    CONNECTED,
    DEAD,
    GATHER_S,
    MAX_DEATHS,
    PORTION_BYTES,
    RESOLVING,
    RESTARTING,
    WINDOW,
    ActorClient,
)
from shoal._core.deadlines import ARGUMENTS, BEHIND, PAUSING, RUNNING, UNSENT
from shoal._core.object_ref import ObjectEntry
from shoal._core.retries import FIRST_PAUSE_S
from shoal._core.task_record import Deadline, FunctionRecord, TaskRecord, TimeLimit
from shoal._wire.peer_frames import TaskPush
from shoal._wire.value_kinds import ERROR
from shoal_common.channel.frames import WorkerAddress

ACTOR = b"a" * 16


@dataclass(eq=False)
class RecordingPort:
    """Remembers what was sent (with the sequence numbers of that moment) and what failed."""

    batches: list[list[TaskRecord]] = field(default_factory=list)
    sequences: list[int] = field(default_factory=list)
    failed: list[tuple[TaskRecord, bool]] = field(default_factory=list)
    #: What the GCS was asked or told, and the other questions, by name.
    asked: list[str] = field(default_factory=list)
    stopped: list[TaskRecord] = field(default_factory=list)
    renewed: list[TaskRecord] = field(default_factory=list)
    paused: list[tuple[TaskRecord, float]] = field(default_factory=list)
    #: The actor's process reads what it is sent.
    reads: bool = True

    def resolve(self, client: ActorClient) -> None:
        self.asked.append("resolve")

    def watch_creator(self, client: ActorClient) -> None:
        self.asked.append("watch creator")

    def end_lifetime(self, client: ActorClient) -> None:
        self.asked.append("end lifetime")

    def tell_killed(self, client: ActorClient) -> None:
        self.asked.append("killed")

    def tell_released(self, client: ActorClient) -> None:
        self.asked.append("released")

    def stop_call(self, client: ActorClient, record: TaskRecord) -> None:
        assert client.state == CONNECTED
        self.stopped.append(record)

    def tell_cancelled(self, client: ActorClient, record: TaskRecord, recursive: bool) -> None:
        assert client.state == CONNECTED
        self.stopped.append(record)

    def renew(self, client: ActorClient, record: TaskRecord) -> None:
        assert record.deadline is not None
        self.renewed.append(record)
        record.deadline = Deadline(record.deadline.limit, 0.0)

    def pause(self, client: ActorClient, record: TaskRecord, pause_s: float) -> None:
        self.paused.append((record, pause_s))

    def tell_repeated(self, client: ActorClient, record: TaskRecord) -> None:
        pass  # told of in ``test_task_events``

    def has_room(self, client: ActorClient) -> bool:
        return self.reads

    def push_calls(self, client: ActorClient, records: list[TaskRecord]) -> None:
        assert client.state == CONNECTED
        self.batches.append(records)
        self.sequences.extend(record.push.sequence for record in records)

    def fail_call(self, client: ActorClient, record: TaskRecord) -> None:
        self.failed.append((record, client.state == DEAD))

    @property
    def sent(self) -> list[TaskRecord]:
        return [record for batch in self.batches for record in batch]


class Caller:
    def __init__(
        self,
        *,
        in_order: bool = True,
        window: int = 1,
        lifetime: ObjectEntry | None = None,
        durable: bool = False,
        submitted: int = 0,
    ) -> None:
        self.port = RecordingPort()
        self.client = ActorClient(
            ACTOR,
            "Thing",
            self.port,
            in_order=in_order,
            window=window,
            lifetime=lifetime,
            durable=durable,
            submitted=submitted,
            rng=random.Random(0),
        )
        self.calls = 0
        self.version = 0

    def alive(self, now: float = 0.0) -> None:
        self.version += 1
        self.client.on_alive(self.version, b"w" * 16, object(), now)

    def call(self, *, retries: int = 0, unready: bool = False, now: float = 0.0) -> TaskRecord:
        self.calls += 1
        push = TaskPush(self.calls.to_bytes(20, "big"), b"", "m", b"")
        record = TaskRecord(
            push, FunctionRecord(b"", "m"), [], retries_left=retries, unready=unready, size=len(push.args)
        )
        self.waits = self.client.submit(record, now)
        return record

    def reply(self, record: TaskRecord) -> None:
        assert self.client.on_reply(record.push.task_id, False) is record


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller()
    yield made
    made.client.validate()


@pytest.fixture
def connected(caller: Caller) -> Caller:
    caller.alive()
    return caller


# -- sending -----------------------------------------------------------------------------------------------------


def test_calls_wait_until_the_actor_is_found(caller: Caller) -> None:
    records = [caller.call() for _ in range(3)]
    assert caller.port.batches == []
    assert caller.client.pending_calls == 3
    caller.alive()
    assert caller.port.batches == [records]
    assert caller.port.sequences == [1, 2, 3]


def test_single_call_is_sent_at_once(connected: Caller) -> None:
    record = connected.call()
    assert connected.port.batches == [[record]]
    assert not connected.waits


def test_calls_in_quick_succession_are_gathered(connected: Caller) -> None:
    first = connected.call(now=1.0)
    second = connected.call(now=1.0 + GATHER_S / 4)
    assert connected.waits
    third = connected.call(now=1.0 + GATHER_S / 2)
    assert connected.port.batches == [[first]]
    connected.client.flush(1.0 + GATHER_S / 2)
    assert connected.port.batches == [[first], [second, third]]


def test_later_call_takes_the_gathered_ones_along(connected: Caller) -> None:
    first = connected.call(now=1.0)
    second = connected.call(now=1.0 + GATHER_S / 4)
    third = connected.call(now=1.0 + 2 * GATHER_S)
    assert not connected.waits
    assert connected.port.batches == [[first], [second, third]]


def test_call_after_all_answers_is_sent_at_once(connected: Caller) -> None:
    connected.reply(connected.call(now=1.0))
    connected.call(now=1.0)
    assert len(connected.port.batches) == 2


def test_window_bounds_the_calls_in_flight(connected: Caller) -> None:
    records = [connected.call() for _ in range(WINDOW + 10)]
    connected.client.flush(1.0)
    assert connected.port.sent == records[:WINDOW]
    for record in records[:4]:
        connected.reply(record)
    connected.client.flush(1.0)
    assert connected.port.sent == records[: WINDOW + 4]


def test_window_grows_with_the_concurrency() -> None:
    caller = Caller(window=3 * WINDOW)
    caller.alive()
    for _ in range(7 * WINDOW):
        caller.call()
    caller.client.flush(1.0)
    assert len(caller.port.sent) == 6 * WINDOW


def test_a_process_that_does_not_read_gets_no_more(connected: Caller) -> None:
    connected.port.reads = False
    waiting = [connected.call(now=1.0) for _ in range(3)]
    assert connected.port.batches == []
    connected.port.reads = True
    connected.client.flush(1.0)
    assert connected.port.batches == [waiting]


@pytest.mark.parametrize("in_order", [True, False])
def test_large_calls_go_in_portions_and_small_ones_together(in_order: bool) -> None:
    caller = Caller(in_order=in_order)
    records = [caller.call() for _ in range(5)]
    for record in records[:4]:
        record.push.args = b"x" * (PORTION_BYTES // 2)
        record.size = len(record.push.args)
    caller.alive()
    assert caller.port.batches == [records[:2], records[2:4], records[4:]]


def test_answer_nobody_waits_for_is_ignored(connected: Caller) -> None:
    assert connected.client.on_reply(b"unknown", False) is None


# -- order -----------------------------------------------------------------------------------------------------------


def test_call_waits_for_the_arguments_of_earlier_ones(connected: Caller) -> None:
    first = connected.call(unready=True)
    second = connected.call()
    assert connected.port.batches == []
    first.unready = False
    connected.client.flush(1.0)
    assert connected.port.sent == [first, second]


def test_out_of_order_actor_gets_what_is_ready() -> None:
    caller = Caller(in_order=False)
    caller.alive()
    first = caller.call(unready=True)
    second = caller.call(now=1.0)
    third = caller.call(unready=True, now=2.0)
    fourth = caller.call(now=3.0)
    assert caller.port.sent == [second, fourth]
    assert list(caller.client.queue) == [first, third]
    first.unready = third.unready = False
    caller.client.flush(4.0)
    assert caller.port.sent == [second, fourth, first, third]


def test_out_of_order_actor_keeps_the_rest_in_order() -> None:
    """What is behind the window stays behind what only waited for its arguments."""
    caller = Caller(in_order=False)
    caller.alive()
    slow = caller.call(unready=True)
    records = [caller.call() for _ in range(WINDOW + 5)]
    caller.client.flush(1.0)
    assert caller.port.sent == records[:WINDOW]
    assert list(caller.client.queue) == [slow, *records[WINDOW:]]


# -- restart ---------------------------------------------------------------------------------------------------------


def test_calls_in_flight_fail_when_the_actor_restarts(connected: Caller) -> None:
    record = connected.call()
    connected.client.on_disconnected()
    assert connected.client.state == RESOLVING
    assert connected.port.failed == [], "its fate is not known yet"
    connected.client.on_restarting(2, "cause")
    assert connected.port.failed == [(record, False)]
    assert connected.client.cause == "cause"
    assert connected.client.pending_calls == 0


def test_calls_never_sent_wait_for_the_restart(connected: Caller) -> None:
    connected.client.on_disconnected()
    record = connected.call()
    connected.client.on_restarting(2, "cause")
    assert connected.port.failed == []
    connected.alive()
    assert connected.port.sent == [record]


def test_retries_go_first_in_their_order(connected: Caller) -> None:
    records = [connected.call(retries=2, now=float(i)) for i in range(3)]
    connected.client.on_disconnected()
    later = connected.call(retries=2, now=9.0)
    connected.client.on_restarting(2, "cause")
    connected.alive()
    assert connected.port.failed == []
    assert connected.port.batches[-1] == [*records, later]
    assert connected.port.sequences[-4:] == [1, 2, 3, 4]
    assert [record.retries_left for record in records] == [1, 1, 1]
    assert [record.push.attempt for record in records] == [1, 1, 1]
    assert (later.retries_left, later.push.attempt) == (2, 0)


def test_retries_run_out(connected: Caller) -> None:
    record = connected.call(retries=1)
    connected.client.on_disconnected()
    connected.client.on_restarting(2, "first")
    connected.alive()
    connected.client.on_disconnected()
    connected.client.on_restarting(4, "second")
    assert connected.port.failed == [(record, False)]


def test_unlimited_retries_never_run_out(connected: Caller) -> None:
    record = connected.call(retries=-1)
    for version in range(2, 12):
        connected.client.on_disconnected()
        connected.client.on_restarting(version, "cause")
        connected.alive()
    assert connected.port.failed == []
    assert record.retries_left == -1
    assert record.push.attempt == 10


def test_call_during_a_restart_fails_or_waits_as_its_retries_say(connected: Caller) -> None:
    connected.client.on_disconnected()
    connected.client.on_restarting(2, "cause")
    at_most_once = connected.call()
    at_least_once = connected.call(retries=1)
    assert connected.port.failed == [(at_most_once, False)]
    connected.alive()
    assert connected.port.sent == [at_least_once]
    assert at_least_once.retries_left == 1, "it was never sent before"


def test_lost_connection_to_a_living_actor_leaves_an_unknown_fate(connected: Caller) -> None:
    """The answers may have been lost with the connection: at-most-once calls fail, others are repeated."""
    once = connected.call(now=0.0)
    again = connected.call(retries=1, now=1.0)
    connected.client.on_disconnected()
    connected.client.on_lost_connection_only()
    assert connected.port.failed == [(once, False)]
    connected.alive()
    assert connected.port.batches[-1] == [again]


def test_call_to_be_repeated_goes_before_later_ones_which_may_need_its_value(connected: Caller) -> None:
    first = connected.call(retries=1, now=0.0)
    second = connected.call(unready=True, now=1.0)
    assert connected.client.on_reply(first.push.task_id, True) is None
    assert list(connected.client.queue) == [first, second]
    connected.client.flush(2.0)
    assert connected.port.batches[-1] == [first]
    assert (first.retries_left, first.push.attempt) == (0, 1)
    assert connected.client.on_reply(first.push.task_id, True) is first, "its retries are used up"


def test_call_that_fails_again_pauses_and_later_ones_wait_for_it(connected: Caller) -> None:
    first, second = connected.call(retries=-1, now=0.0), connected.call(unready=True, now=1.0)
    for _ in range(2):
        assert connected.client.on_reply(first.push.task_id, True) is None
        second.unready = False
        connected.client.flush(2.0)
        connected.client.on_reply(second.push.task_id, False)
    assert connected.port.sent == [first, first, second], "the first retry comes at once"
    ((paused, pause_s),) = connected.port.paused
    assert paused is first and FIRST_PAUSE_S / 2 <= pause_s <= FIRST_PAUSE_S
    third = connected.call(now=3.0)
    connected.client.after_pause(first, 4.0)
    assert connected.port.sent == [first, first, second, first, third]


def test_call_that_pauses_when_its_deadline_passes(connected: Caller) -> None:
    record = connected.call(retries=-1)
    for _ in range(2):
        connected.client.on_reply(record.push.task_id, True)
        connected.client.flush(1.0)
    assert late(connected, record) == PAUSING
    connected.client.after_pause(record, 2.0)
    assert connected.port.sent == [record, record]


def test_calls_to_be_repeated_keep_their_order(connected: Caller) -> None:
    records = [connected.call(retries=1, now=float(i)) for i in range(3)]
    later = connected.call(unready=True, now=9.0)
    for record in records:
        assert connected.client.on_reply(record.push.task_id, True) is None
    assert list(connected.client.queue) == [*records, later]


def test_calls_that_never_arrived_go_back_between_the_others(connected: Caller) -> None:
    """One that is repeated has a lower number than those sent after it."""
    first, second = connected.call(retries=1, now=0.0), connected.call(retries=1, now=1.0)
    connected.client.on_reply(first.push.task_id, True)
    connected.client.flush(2.0)
    connected.client.on_unconnected()
    assert list(connected.client.queue) == [first, second]


# -- creation, by this process ---------------------------------------------------------------------------------------


def test_first_call_asks_where_the_actor_is_and_the_creators_do_not(caller: Caller) -> None:
    caller.call()
    caller.call()
    assert caller.port.asked == ["resolve"]
    creator = Caller()
    creator.client.create("arguments")
    creator.call()
    assert creator.port.asked == []
    creator.client.on_registered()
    assert creator.port.asked == ["resolve"]
    creator.client.validate()


def test_kill_before_the_registration_fails_calls_at_once_and_is_told_later(caller: Caller) -> None:
    caller.client.create("arguments")
    record = caller.call(retries=-1)
    assert not caller.client.kill("killed")
    assert caller.port.failed == [(record, True)]
    assert (caller.client.creation, caller.client.cause) == (None, "killed")
    assert "killed" not in caller.port.asked
    caller.client.on_registered()
    assert caller.port.asked == ["end lifetime", "killed"]
    assert caller.client.kill("again"), "from now on the GCS is told at once"


def test_handles_that_end_before_the_registration_are_told_of_with_it(caller: Caller) -> None:
    caller.client.create("arguments")
    assert caller.client.owned
    caller.client.release()
    assert (caller.client.owned, caller.client.creation, caller.port.asked) == (False, None, [])
    caller.client.on_registered()
    assert caller.port.asked == ["released", "resolve"]


def test_handles_that_end_after_a_kill_are_not_told_of(caller: Caller) -> None:
    caller.client.create("arguments")
    caller.client.kill("killed")
    caller.client.release()
    caller.client.on_registered()
    assert caller.port.asked == ["end lifetime", "killed"]


def test_handles_that_end_later_are_told_of_at_once(caller: Caller) -> None:
    caller.client.create("arguments")
    caller.client.on_registered()
    caller.alive()
    assert caller.client.creation == "arguments", "for its restarts"
    caller.client.release()
    assert caller.port.asked == ["resolve", "released"]


def test_creation_that_failed_is_the_cause_of_the_death(caller: Caller) -> None:
    caller.client.create("arguments")
    record = caller.call()
    caller.client.on_dead(0, "bad argument")
    caller.client.on_dead(0, "what is said later")
    assert (caller.client.cause, caller.port.failed) == ("bad argument", [(record, True)])


def borrowed_handle() -> Caller:
    creator = WorkerAddress(b"n" * 16, b"creator", "/sock")
    return Caller(lifetime=ObjectEntry(b"l" * 24, owner=creator))


def test_actor_that_is_not_known_yet_is_waited_for_as_long_as_its_creator_lives() -> None:
    caller = borrowed_handle()
    record = caller.call()
    assert caller.client.doubtful, "its creator may be dead already"
    caller.client.on_unknown("unknown")
    caller.client.on_unknown("unknown")
    assert caller.port.asked == ["resolve", "watch creator", "resolve", "resolve"]
    assert not caller.client.doubtful
    assert caller.client.lifetime is not None
    caller.client.lifetime.state = ERROR  # the creator is dead
    assert caller.client.doubtful, "it may have registered the actor just before"
    caller.client.on_unknown("unknown")
    assert caller.port.failed == [(record, True)]
    assert caller.client.cause == "unknown"


def test_actor_that_is_known_is_asked_for_with_patience() -> None:
    caller = borrowed_handle()
    caller.call()
    caller.alive()
    caller.client.on_disconnected()
    assert not caller.client.doubtful


def test_unknown_actor_whose_handles_do_not_count_is_dead(caller: Caller) -> None:
    caller.call()
    caller.client.on_unknown("unknown")
    assert caller.client.state == DEAD


# -- death -----------------------------------------------------------------------------------------------------------


def test_death_fails_all_calls_in_order(connected: Caller) -> None:
    sent = connected.call(retries=-1)
    waiting = connected.call(unready=True)
    connected.client.on_dead(2, "cause")
    assert connected.client.state == DEAD
    assert connected.port.failed == [(sent, True), (waiting, True)]
    assert connected.client.pending_calls == 0


def test_call_to_a_dead_actor_fails_at_once(caller: Caller) -> None:
    caller.client.on_dead(1, "cause")
    record = caller.call(retries=-1)
    assert caller.port.failed == [(record, True)]
    assert not caller.waits


def test_argument_that_becomes_ready_after_the_death_sends_nothing(connected: Caller) -> None:
    record = connected.call(unready=True)
    connected.client.on_dead(2, "cause")
    record.unready = False
    connected.client.flush(1.0)
    assert connected.port.batches == []


# -- deadlines -------------------------------------------------------------------------------------------------


def late(caller: Caller, record: TaskRecord, *, again: bool = False) -> str:
    """The deadline of this call passes."""
    record.deadline = Deadline(TimeLimit(1.0, again), 1.0, passed=True, again=again)
    where = caller.client.expire(record, 1.0)
    caller.client.validate()
    return where


def test_a_late_call_is_not_sent(caller: Caller) -> None:
    first, second = caller.call(), caller.call()
    assert late(caller, first) == UNSENT
    caller.alive()
    assert caller.port.sent == [second]


def test_a_late_call_whose_argument_is_missing_holds_up_nobody(connected: Caller) -> None:
    first, second = connected.call(unready=True), connected.call()
    assert connected.port.sent == []
    assert late(connected, first) == ARGUMENTS
    assert connected.port.sent == [second]


def test_a_late_call_that_was_sent_is_stopped_and_its_answer_expected(connected: Caller) -> None:
    records = [connected.call(now=1.0 + number) for number in range(2)]
    assert [late(connected, record) for record in records] == [RUNNING, BEHIND]
    assert connected.port.stopped == records
    assert connected.client.on_reply(records[0].push.task_id, True) is records[0]


def test_a_late_call_is_not_repeated_by_a_restart(connected: Caller) -> None:
    record = connected.call(retries=-1)
    late(connected, record)
    connected.client.on_disconnected()
    connected.client.on_restarting(2, "cause")
    assert connected.client.pending_calls == 0
    assert connected.port.failed == []


def test_a_late_call_that_retry_exceptions_cover_is_made_again_once_it_has_ended(connected: Caller) -> None:
    record = connected.call(retries=1)
    late(connected, record, again=True)
    assert connected.port.sent == [record]
    assert connected.client.on_reply(record.push.task_id, False) is record
    connected.client.repeat(record)
    connected.client.flush(2.0)
    assert connected.port.sent == [record, record]
    assert connected.port.renewed == [record]


# -- cancel -----------------------------------------------------------------------------------------------------


def cancel(caller: Caller, record: TaskRecord) -> bool:
    """Whether it is over."""
    record.cancel()
    over = caller.client.cancel(record, True, 1.0)
    caller.client.validate()
    return over


def test_a_cancelled_call_is_not_sent(caller: Caller) -> None:
    first, second = caller.call(), caller.call()
    assert cancel(caller, first)
    caller.alive()
    assert caller.port.sent == [second]


def test_a_cancelled_call_whose_argument_is_missing_holds_up_nobody(connected: Caller) -> None:
    first, second = connected.call(unready=True), connected.call()
    assert cancel(connected, first)
    assert connected.port.sent == [second]


def test_a_cancelled_call_that_was_sent_answers_and_is_not_repeated(connected: Caller) -> None:
    record = connected.call(retries=-1)
    assert not cancel(connected, record)
    assert connected.port.stopped == [record]
    assert connected.client.on_reply(record.push.task_id, True) is record


@pytest.mark.parametrize("durable", [False, True])
def test_a_cancelled_call_ends_with_its_actors_process(durable: bool) -> None:
    caller = Caller(durable=durable, window=2)
    caller.alive()
    cancelled_one, other = caller.call(retries=-1), caller.call(retries=-1, now=1.0)
    cancel(caller, cancelled_one)
    caller.client.on_disconnected()
    caller.client.on_restarting(2, "cause")
    caller.client.validate()
    assert [record for record, _ in caller.port.failed] == [cancelled_one]
    caller.alive(now=2.0)
    assert caller.port.sent[-1] is other


def test_a_cancelled_call_that_never_arrived_is_not_sent_again(connected: Caller) -> None:
    record = connected.call(retries=-1)
    cancel(connected, record)
    connected.client.on_unconnected()
    assert [failed for failed, _ in connected.port.failed] == [record]
    assert connected.client.pending_calls == 0


# -- any order of events -----------------------------------------------------------------------------------------------


class AnyOrder(RecordingPort, RuleBasedStateMachine):
    """Whatever happens: every call is answered or fails exactly once, and each incarnation sees the caller's order, but
    for what is repeated because it failed."""

    def __init__(self) -> None:
        RuleBasedStateMachine.__init__(self)
        RecordingPort.__init__(self)
        self.client = ActorClient(ACTOR, "Thing", self, in_order=True, window=1, rng=random.Random(0))
        self.client.window = 4
        self.now = 0.0
        self.version = 0
        self.submitted: list[TaskRecord] = []
        self.ended: set[bytes] = set()
        self.received: list[TaskRecord] = []
        self.runs: dict[bytes, int] = {}
        self.allowed: dict[bytes, int] = {}
        self.repeated: set[bytes] = set()

    def push_calls(self, client: ActorClient, records: list[TaskRecord]) -> None:
        for record in records:
            assert not record.unready
            if record.push.task_id not in self.repeated:
                self.received.append(record)
            self.runs[record.push.task_id] = self.runs.get(record.push.task_id, 0) + 1

    def fail_call(self, client: ActorClient, record: TaskRecord) -> None:
        if not record.late:  # which has failed already
            self._end(record)

    def _end(self, record: TaskRecord) -> None:
        assert record.push.task_id not in self.ended
        self.ended.add(record.push.task_id)

    @rule(retries=st.sampled_from([0, 0, 1, -1]), ready=st.booleans())
    def call(self, retries: int, ready: bool) -> None:
        task_id = len(self.submitted).to_bytes(20, "big")
        record = TaskRecord(
            TaskPush(task_id, b"", "m", b""), FunctionRecord(b"", "m"), [], retries_left=retries, unready=not ready
        )
        self.submitted.append(record)
        self.allowed[task_id] = 10**6 if retries < 0 else retries + 1
        if self.client.submit(record, self.now):
            self.client.flush(self.now)

    @precondition(lambda self: self.client.queue)
    @rule(number=st.integers(0, 5))
    def argument_is_ready(self, number: int) -> None:
        queue: Any = self.client.queue
        record = queue[number % len(queue)]
        record.unready = record.pausing
        self.client.flush(self.now)

    @precondition(lambda self: self.client.state == CONNECTED and self.client.in_flight)
    @rule(count=st.integers(1, 3))
    def answer(self, count: int) -> None:
        for task_id in list(self.client.in_flight)[:count]:
            record = self.client.on_reply(task_id, False)
            assert record is not None
            if not record.late:
                self._end(record)
        self.client.flush(self.now)

    @precondition(lambda self: self.client.state == CONNECTED and self.client.in_flight)
    @rule(number=st.integers(0, 3))
    def fails_and_may_be_repeated(self, number: int) -> None:
        in_flight = list(self.client.in_flight)
        task_id = in_flight[number % len(in_flight)]
        record = self.client.on_reply(task_id, True)
        if record is None:
            self.repeated.add(task_id)
        elif not record.late:
            self._end(record)
        self.client.flush(self.now)

    @precondition(lambda self: self.paused)
    @rule()
    def pause_ends(self) -> None:
        self.client.after_pause(self.paused.pop(0)[0], self.now)

    @precondition(lambda self: self.client.queue or self.client.in_flight)
    @rule(number=st.integers(0, 5))
    def runs_late(self, number: int) -> None:
        open_calls = [*self.client.queue, *self.client.in_flight.values()]
        record = open_calls[number % len(open_calls)]
        if record.push.task_id not in self.ended:
            record.deadline = Deadline(TimeLimit(1.0, False), self.now, passed=True)
            self.client.expire(record, self.now)
            self._end(record)

    @precondition(lambda self: self.client.state in (RESOLVING, RESTARTING))
    @rule()
    def comes_up(self) -> None:
        if self.client.in_flight:
            self.client.on_lost_connection_only()
        self.version += 1
        self.received = []
        self.client.on_alive(self.version, b"w", object(), self.now)

    @precondition(lambda self: self.client.state == CONNECTED)
    @rule(restarts=st.booleans())
    def goes_down(self, restarts: bool) -> None:
        self.client.on_disconnected()
        if restarts:
            self.version += 1
            self.client.on_restarting(self.version, "cause")

    @rule(seconds=st.sampled_from([GATHER_S / 3, GATHER_S * 2]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def every_call_is_somewhere(self) -> None:
        waiting = [record.push.task_id for record in self.client.queue]
        unanswered = [task_id for task_id, record in self.client.in_flight.items() if not record.late]
        places = [*waiting, *unanswered, *self.ended]
        assert len(places) == len(set(places)) == len(self.submitted)
        self.client.validate()

    @invariant()
    def each_incarnation_sees_the_order_of_submission(self) -> None:
        numbers = [int.from_bytes(record.push.task_id, "big") for record in self.received]
        assert numbers == sorted(numbers)

    @invariant()
    def no_call_runs_more_often_than_allowed(self) -> None:
        assert all(count <= self.allowed[task_id] for task_id, count in self.runs.items())

    def teardown(self) -> None:
        self.client.on_dead(self.version + 1, "cause")
        assert len(self.ended) == len(self.submitted)


AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestAnyOrder = AnyOrder.TestCase


# -- durable actors ---------------------------------------------------------------------------------------------------


@pytest.fixture
def durable() -> Iterator[Caller]:
    made = Caller(durable=True)
    made.alive()
    yield made
    made.client.validate()


def _crash(caller: Caller) -> None:
    caller.client.on_disconnected()
    caller.version += 1
    caller.client.on_restarting(caller.version, "killed")


def test_durable_actor_is_sent_again_what_it_has_not_answered(durable: Caller) -> None:
    answered, first, second = durable.call(), durable.call(), durable.call()
    durable.client.flush(1.0)
    durable.reply(answered)
    _crash(durable)
    third = durable.call()
    durable.alive()
    assert durable.port.batches[-1] == [first, second, third]
    assert durable.port.failed == []
    assert [record.push.attempt for record in (first, second)] == [0, 0], "it is the same run"


def test_durable_actor_is_sent_again_what_was_on_a_lost_connection(durable: Caller) -> None:
    record = durable.call()
    durable.client.on_disconnected()
    durable.client.on_lost_connection_only()
    durable.alive()
    assert durable.port.batches == [[record], [record]]


def test_call_that_a_durable_actor_does_not_survive_fails(durable: Caller) -> None:
    deadly, harmless = durable.call(), durable.call()
    durable.client.flush(1.0)
    for _ in range(MAX_DEATHS - 1):
        _crash(durable)
        assert durable.port.failed == []
        durable.alive()
    _crash(durable)
    assert durable.port.failed == [(deadly, False)]
    durable.alive()
    assert durable.port.batches[-1] == [harmless]


def test_deaths_between_answers_are_not_counted_together(durable: Caller) -> None:
    for _ in range(2 * MAX_DEATHS):
        record = durable.call(now=durable.calls + 1.0)
        _crash(durable)
        durable.alive()
        durable.reply(record)
    assert durable.port.failed == []


def test_what_has_been_answered(durable: Caller) -> None:
    assert durable.client.answered == 0
    first, second, third = durable.call(), durable.call(), durable.call()
    durable.client.flush(1.0)
    assert durable.client.answered == 0
    durable.reply(second)
    assert durable.client.answered == 0
    durable.reply(first)
    assert durable.client.answered == 2
    durable.reply(third)
    assert durable.client.answered == 3


def test_a_call_that_runs_again_is_not_answered(durable: Caller) -> None:
    first, second = durable.call(retries=1), durable.call()
    durable.client.flush(1.0)
    assert durable.client.on_reply(first.push.task_id, True) is None
    assert durable.client.answered == 0
    durable.client.flush(2.0)
    assert durable.client.answered == 0, "it is behind the second one now"
    durable.reply(first)
    assert durable.client.answered == 1
    durable.reply(second)
    assert durable.client.answered == 2


def test_calls_are_numbered_on_from_those_of_an_earlier_client() -> None:
    caller = Caller(durable=True, submitted=1000)
    assert caller.client.answered == 1000
    assert caller.call().push.sequence == 1001
