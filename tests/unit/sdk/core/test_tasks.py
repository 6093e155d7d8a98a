"""Worker leases as their owner uses them: what is pushed, recalled, given back and asked for, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from shoal._core.batches import AHEAD_BYTES
from shoal._core.deadlines import ARGUMENTS, BEHIND, PAUSING, RUNNING, UNPLACED
from shoal._core.leases import LeasedWorker, Source
from shoal._core.task_record import Deadline, FunctionRecord, TaskRecord, TimeLimit
from shoal._core.tasks import AHEAD_US, MAX_DEMAND, MAX_IN_FLIGHT, QUANTUM_S, TaskQueue
from shoal._wire.peer_frames import TaskPush
from shoal_common.channel.frames import SchedulingClass

HOME, OTHER, THIRD = b"home", b"other", b"third"
SPEC = SchedulingClass(name="", resources=(("CPU", 10_000),))


@dataclass
class RecordingPort:
    """Remembers what the queue did, and in which order."""

    pushed: list[tuple[LeasedWorker, list[TaskRecord]]] = field(default_factory=list)
    recalled: list[tuple[LeasedWorker, int]] = field(default_factory=list)
    demands: list[int] = field(default_factory=list)
    #: (node, total, placed) of each demand.
    told: list[tuple[bytes, int, bool]] = field(default_factory=list)
    given_back: list[LeasedWorker] = field(default_factory=list)
    told_to_stop: list[TaskRecord] = field(default_factory=list)
    have_stopped: list[TaskRecord] = field(default_factory=list)
    killed: list[LeasedWorker] = field(default_factory=list)
    told_cancelled: list[tuple[TaskRecord, bool]] = field(default_factory=list)

    def push(self, worker: LeasedWorker, records: list[TaskRecord]) -> None:
        self.pushed.append((worker, records))

    def recall(self, worker: LeasedWorker, count: int) -> None:
        self.recalled.append((worker, count))

    def demand(self, queue: TaskQueue, source: Source, placed: bool) -> None:
        self.told.append((source.node_id, source.demanded, placed))
        if source is queue.home:
            self.demands.append(source.demanded)

    def give_back(self, worker: LeasedWorker) -> None:
        self.given_back.append(worker)

    def stop(self, worker: LeasedWorker, record: TaskRecord) -> None:
        self.told_to_stop.append(record)

    def tell_cancelled(self, worker: LeasedWorker, record: TaskRecord, force: bool, recursive: bool) -> None:
        self.told_cancelled.append((record, force))

    def stopped(self, record: TaskRecord) -> None:
        self.have_stopped.append(record)

    def kill(self, worker: LeasedWorker, record: TaskRecord) -> None:
        self.killed.append(worker)

    def batches_of(self, worker: LeasedWorker) -> list[int]:
        """Sizes of the batches pushed to a worker."""
        return [len(records) for target, records in self.pushed if target is worker]


class Owner:
    """One queue, and short ways to make tasks and leases."""

    def __init__(self, spec: SchedulingClass = SPEC) -> None:
        self.port = RecordingPort()
        self.queue = TaskQueue(0, spec, HOME, self.port)
        self.tasks = 0
        self.leases = 0

    def submit(self, function: FunctionRecord, count: int = 1, argument_bytes: int = 0) -> list[TaskRecord]:
        records = []
        for _ in range(count):
            self.tasks += 1
            push = TaskPush(self.tasks.to_bytes(20, "big"), b"", function.name, bytes(argument_bytes))
            record = TaskRecord(push, function, [], retries_left=3, size=len(push.args))
            records.append(record)
            self.queue.add(record)
        self.queue.validate()
        return records

    def grant(self, now: float = 0.0, node_id: bytes = HOME) -> LeasedWorker:
        self.leases += 1
        lease = self.leases.to_bytes(8, "big")
        worker = LeasedWorker(lease, self.queue.source(node_id), b"worker" + lease, 1000 + self.leases, None, now)
        self.queue.on_granted(worker, now)
        self.queue.validate()
        return worker

    def reply(self, worker: LeasedWorker, count: int = 1, now: float = 0.0, duration_us: int = 10) -> None:
        """The worker answers its oldest tasks, in one message."""
        for task_id in list(worker.in_flight)[:count]:
            assert self.queue.on_replied(worker, task_id, duration_us) is not None
        self.queue.after_replies(worker, now)
        self.queue.validate()

    def hand_back(self, worker: LeasedWorker, count: int, **state: bool) -> None:
        """The worker hands back its newest tasks."""
        task_ids = list(worker.in_flight)[len(worker.in_flight) - count :]
        self.queue.on_recalled(worker, task_ids, 0.0, **state)
        self.queue.validate()


@pytest.fixture
def owner() -> Owner:
    return Owner()


def timed(mean_us: float) -> FunctionRecord:
    return FunctionRecord(b"timed", "timed", mean_us)


# -- deadlines --------------------------------------------------------------------------------------------------


def late(owner: Owner, record: TaskRecord) -> str:
    """The deadline of this task passes."""
    record.deadline = Deadline(TimeLimit(1.0, False), 1.0, passed=True)
    where = owner.queue.expire(record, 1.0)
    owner.queue.validate()
    return where


def test_a_late_task_that_waits_for_a_worker_never_starts(owner: Owner) -> None:
    first, second = owner.submit(timed(0), 2)
    assert late(owner, first) == UNPLACED
    owner.grant()
    assert [records for _, records in owner.port.pushed] == [[second]]


def test_leases_for_late_tasks_are_not_wanted_any_more(owner: Owner) -> None:
    (record,) = owner.submit(timed(0))
    late(owner, record)
    assert owner.queue.outstanding == 0


def test_a_late_task_that_waits_for_its_arguments(owner: Owner) -> None:
    record = TaskRecord(TaskPush(b"t" * 20, b"", "f", b""), timed(0), [], unready=True)
    assert late(owner, record) == ARGUMENTS
    record.pausing = True
    assert late(owner, record) == PAUSING


def test_a_late_task_that_runs_is_stopped_and_in_the_end_its_worker_killed(owner: Owner) -> None:
    (record,) = owner.submit(timed(0))
    worker = owner.grant()
    assert late(owner, record) == RUNNING
    assert owner.port.told_to_stop == [record]
    owner.queue.not_stopped(worker.lease_id, record)
    assert owner.port.killed == [worker]


def test_a_worker_that_has_answered_is_not_killed(owner: Owner) -> None:
    (record,) = owner.submit(timed(0))
    worker = owner.grant()
    late(owner, record)
    owner.reply(worker)
    owner.queue.not_stopped(worker.lease_id, record)
    assert owner.port.killed == []
    assert record.function.mean_us == 0.0, "how long it ran until it was stopped says nothing"


def test_a_late_task_behind_another_one_does_not_cost_that_its_worker(owner: Owner) -> None:
    records = owner.submit(timed(10), 2)
    worker = owner.grant()
    assert late(owner, records[1]) == BEHIND
    owner.queue.not_stopped(worker.lease_id, records[1])
    assert owner.port.killed == []
    assert owner.port.told_to_stop == [records[1], records[1]]


def test_a_late_task_that_is_handed_back_does_not_wait_again(owner: Owner) -> None:
    records = owner.submit(timed(10), 3)
    worker = owner.grant()
    late(owner, records[2])
    owner.hand_back(worker, 2)
    assert list(owner.queue.pending) == [records[1]]
    assert owner.port.have_stopped == [records[2]]


# -- cancel -----------------------------------------------------------------------------------------------------


def cancel(owner: Owner, record: TaskRecord, force: bool = False) -> bool:
    """Whether it is over."""
    record.cancel()
    over = owner.queue.cancel(record, force, recursive=True)
    owner.queue.validate()
    return over


def test_a_cancelled_task_that_waits_for_a_worker_never_starts(owner: Owner) -> None:
    first, second = owner.submit(timed(0), 2)
    assert cancel(owner, first)
    owner.grant()
    assert [records for _, records in owner.port.pushed] == [[second]]


def test_leases_for_cancelled_tasks_are_not_wanted_any_more(owner: Owner) -> None:
    (record,) = owner.submit(timed(0))
    cancel(owner, record)
    assert owner.queue.outstanding == 0


def test_a_cancelled_task_that_was_sent_answers_and_is_not_repeated(owner: Owner) -> None:
    (record,) = owner.submit(timed(0))
    worker = owner.grant()
    assert not cancel(owner, record)
    assert owner.port.told_cancelled == [(record, False)]
    assert not record.retry()
    owner.reply(worker)
    assert record.function.mean_us == 0.0, "how long it ran until it was interrupted says nothing"


@pytest.mark.parametrize("place", [0, 1])
def test_with_force_the_worker_that_still_runs_it_is_killed(owner: Owner, place: int) -> None:
    records = owner.submit(timed(10), 2)
    worker = owner.grant()
    cancel(owner, records[place], force=True)
    owner.queue.not_stopped(worker.lease_id, records[place])
    assert owner.port.killed == [worker] * (place == 0), "but not while it runs another one"


def test_a_cancelled_task_that_is_handed_back_is_over(owner: Owner) -> None:
    records = owner.submit(timed(10), 3)
    worker = owner.grant()
    cancel(owner, records[2])
    owner.hand_back(worker, 2)
    assert list(owner.queue.pending) == [records[1]]
    assert owner.port.have_stopped == [records[2]]


# -- SPREAD ---------------------------------------------------------------------------------------------------


def test_a_task_to_spread_finds_its_place_anew_after_a_pause() -> None:
    owner = Owner(SchedulingClass(name="", resources=(("CPU", 10_000),), strategy="SPREAD"))
    owner.submit(timed(10), 2)
    first, second = owner.grant(node_id=OTHER), owner.grant(node_id=THIRD)
    owner.reply(first)
    owner.reply(second)
    assert owner.port.given_back == [first, second]
    owner.submit(timed(10))
    assert owner.queue.outstanding == 1


def test_a_burst_to_spread_keeps_its_leases_while_something_waits() -> None:
    owner = Owner(SchedulingClass(name="", resources=(("CPU", 10_000),), strategy="SPREAD"))
    owner.submit(timed(2 * AHEAD_US), 3)
    worker = owner.grant()
    owner.reply(worker, duration_us=2 * AHEAD_US)
    assert owner.port.batches_of(worker) == [1, 1] and not owner.port.given_back


# -- pushing ---------------------------------------------------------------------------------------------------


def test_idle_worker_gets_its_first_task_at_once(owner: Owner) -> None:
    worker = owner.grant()
    (record,) = owner.submit(timed(10))
    assert owner.port.pushed == [(worker, [record])]
    assert not owner.queue.pending


def test_what_arrives_while_busy_goes_out_as_one_batch(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(10), 101)
    assert owner.port.batches_of(worker) == [1]
    owner.reply(worker)
    assert owner.port.batches_of(worker) == [1, 100]


def test_function_never_timed_goes_out_one_at_a_time(owner: Owner) -> None:
    worker = owner.grant()
    function = timed(0)
    owner.submit(function, 50)
    assert owner.port.batches_of(worker) == [1]
    owner.reply(worker, duration_us=10)
    assert function.mean_us == pytest.approx(11)
    assert owner.port.batches_of(worker) == [1, 49]


def test_worker_never_has_more_than_the_limit_of_work_ahead(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(AHEAD_US / 10), 100)
    owner.reply(worker, duration_us=AHEAD_US // 10)
    assert owner.port.batches_of(worker) == [1, 10]


def test_worker_never_has_more_than_the_limit_of_arguments_ahead(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(10), 100, argument_bytes=AHEAD_BYTES // 10)
    owner.reply(worker)
    assert owner.port.batches_of(worker) == [1, 10]
    owner.reply(worker, 4)
    assert owner.port.batches_of(worker) == [1, 10]
    owner.reply(worker)
    assert owner.port.batches_of(worker) == [1, 10, 5]


def test_arguments_over_the_limit_go_alone(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(10), 3, argument_bytes=2 * AHEAD_BYTES)
    owner.reply(worker)
    assert owner.port.batches_of(worker) == [1, 1]


def test_handed_back_arguments_make_room_for_others(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(10), 21, argument_bytes=AHEAD_BYTES // 10)
    owner.reply(worker)
    owner.hand_back(worker, 9)
    owner.reply(worker)
    assert owner.port.batches_of(worker) == [1, 10, 10]


def test_long_tasks_go_one_at_a_time(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(2 * AHEAD_US), 3)
    owner.reply(worker, duration_us=2 * AHEAD_US)
    assert owner.port.batches_of(worker) == [1, 1]


def test_worker_gets_more_when_it_has_run_half_of_what_it_had(owner: Owner) -> None:
    worker = owner.grant()
    function = timed(AHEAD_US / 10)
    owner.submit(function, 100)
    owner.reply(worker, duration_us=AHEAD_US // 10)
    sizes = []
    for _ in range(5):
        owner.reply(worker, duration_us=AHEAD_US // 10)
        sizes.append(len(worker.in_flight))
    assert sizes == [9, 8, 7, 6, 10]


def test_number_in_flight_is_limited(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(1), 3 * MAX_IN_FLIGHT)
    owner.reply(worker, duration_us=1)
    assert len(worker.in_flight) == MAX_IN_FLIGHT


def test_limit_of_work_ahead_holds_when_a_function_turns_slow(owner: Owner) -> None:
    """What was pushed on the old estimate must not count as more than it did."""
    worker = owner.grant()
    function = timed(1)
    owner.submit(function, 10 * MAX_IN_FLIGHT)
    owner.reply(worker, duration_us=1)
    for _ in range(len(worker.in_flight)):
        owner.reply(worker, duration_us=AHEAD_US // 2)
    assert len(worker.in_flight) <= 3


def test_last_tasks_are_shared_out(owner: Owner) -> None:
    first, second = owner.grant(), owner.grant()
    function = timed(10)
    owner.submit(function, 2)  # one each
    owner.submit(function, 10)
    owner.reply(first)
    assert owner.port.batches_of(first) == [1, 5]
    owner.reply(second)
    assert owner.port.batches_of(second)[:2] == [1, 2]


def test_order_of_submission_is_kept(owner: Owner) -> None:
    worker = owner.grant()
    records = owner.submit(timed(10), 20)
    owner.reply(worker)
    assert [record for _, batch in owner.port.pushed for record in batch] == records


def test_run_time_is_an_exponential_mean(owner: Owner) -> None:
    worker = owner.grant()
    function = timed(100)
    owner.submit(function)
    owner.reply(worker, duration_us=200)
    assert function.mean_us == pytest.approx(120)


def test_unknown_answer_is_ignored(owner: Owner) -> None:
    worker = owner.grant()
    assert owner.queue.on_replied(worker, b"never pushed", 5) is None


# -- recalling ------------------------------------------------------------------------------------------------


def test_idle_worker_has_half_of_the_longest_queue_recalled(owner: Owner) -> None:
    busy = owner.grant()
    owner.submit(timed(10), 11)
    owner.reply(busy)  # 10 go out together
    idle = owner.grant()
    assert owner.port.recalled == [(busy, 5)]
    owner.hand_back(busy, 5)
    assert len(busy.in_flight) == 5
    assert len(idle.in_flight) >= 1
    assert len(busy.in_flight) + len(idle.in_flight) + len(owner.queue.pending) == 10


def test_worker_is_asked_once_until_it_has_answered(owner: Owner) -> None:
    busy = owner.grant()
    owner.submit(timed(10), 11)
    owner.reply(busy)
    owner.grant()
    owner.grant()
    assert owner.port.recalled == [(busy, 5)]
    owner.hand_back(busy, 0)
    owner.grant()
    assert owner.port.recalled == [(busy, 5), (busy, 5)]


def test_single_running_task_is_not_recalled(owner: Owner) -> None:
    owner.grant()
    owner.submit(timed(10))
    owner.grant()
    assert owner.port.recalled == []


def test_recall_that_comes_too_late_changes_nothing(owner: Owner) -> None:
    busy = owner.grant()
    owner.submit(timed(10), 11)
    owner.reply(busy)
    idle = owner.grant()
    owner.reply(busy, 10)  # all done before the recall arrived
    owner.queue.on_recalled(busy, [], 0.0)
    assert set(owner.queue.idle.values()) == {busy, idle}
    assert not busy.recalling


def test_handed_back_tasks_keep_their_place(owner: Owner) -> None:
    worker = owner.grant()
    records = owner.submit(timed(AHEAD_US / 4), 8)
    owner.reply(worker, duration_us=AHEAD_US // 4)
    assert list(worker.in_flight.values()) == records[1:5]
    owner.hand_back(worker, 3, blocked=True)
    assert list(owner.queue.pending) == records[2:]


# -- workers that block or leave --------------------------------------------------------------------------------


def test_blocked_worker_gets_nothing_until_it_answers(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(10), 5)
    owner.reply(worker)
    owner.hand_back(worker, 3, blocked=True)
    owner.submit(timed(10), 5)
    assert len(worker.in_flight) == 1
    assert len(owner.queue.pending) == 8
    owner.reply(worker)
    assert not worker.blocked
    assert len(worker.in_flight) == 8


def test_tasks_of_a_blocked_worker_raise_the_demand(owner: Owner) -> None:
    """A nested task behind its own parent must find another worker: no deadlock."""
    worker = owner.grant()
    owner.submit(timed(10), 5)
    owner.reply(worker)
    owner.hand_back(worker, 3, blocked=True)
    assert owner.queue.home.demanded >= owner.queue.home.granted + 3
    other = owner.grant()
    assert other.in_flight


def test_tasks_of_a_blocked_worker_go_to_an_idle_one_at_once(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(10), 3)
    owner.reply(worker)
    idle = owner.grant()
    owner.hand_back(worker, 1, blocked=True)
    assert idle.in_flight


def test_leaving_worker_is_given_back_after_its_last_answer(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(10), 5)
    owner.reply(worker)
    owner.hand_back(worker, 3, leaving=True)
    assert owner.port.given_back == []
    owner.reply(worker)
    assert owner.port.given_back == [worker]
    assert len(owner.queue.pending) == 3
    assert owner.queue.home.demanded >= owner.queue.home.granted + 3


def test_leaving_worker_with_nothing_left_is_given_back_at_once(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(10))
    owner.hand_back(worker, 1, leaving=True)
    assert owner.port.given_back == [worker]
    assert len(owner.queue.pending) == 1


# -- leases ---------------------------------------------------------------------------------------------------------


def test_idle_lease_is_returned_after_its_time(owner: Owner) -> None:
    worker = owner.grant(now=1.0)
    owner.queue.on_tick(1.1, idle_s=0.2)
    assert owner.port.given_back == []
    owner.queue.on_tick(1.25, idle_s=0.2)
    assert owner.port.given_back == [worker]
    assert not owner.queue.workers


def test_busy_lease_is_not_returned_by_the_clock(owner: Owner) -> None:
    owner.grant()
    owner.submit(timed(10))
    owner.queue.on_tick(1e9, idle_s=0.2)
    assert owner.port.given_back == []


def test_idle_time_counts_from_the_last_answer(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(10))
    owner.reply(worker, now=5.0)
    owner.queue.on_tick(5.1, idle_s=0.2)
    assert owner.port.given_back == []


def test_other_classes_get_all_idle_leases(owner: Owner) -> None:
    idle, busy = owner.grant(), owner.grant()
    owner.submit(timed(10))
    (busy,) = (w for w in (idle, busy) if w.in_flight)
    owner.queue.return_idle()
    assert busy not in owner.port.given_back
    assert len(owner.port.given_back) == 1


def test_reclaimed_idle_lease_is_returned_at_once(owner: Owner) -> None:
    worker = owner.grant()
    owner.queue.on_reclaim(worker.lease_id, False, 0.0)
    assert owner.port.given_back == [worker]


def test_reclaimed_busy_lease_works_for_its_quantum_and_no_longer(owner: Owner) -> None:
    worker = owner.grant(now=0.0)
    owner.submit(timed(2 * AHEAD_US), 3)
    owner.queue.on_reclaim(worker.lease_id, False, 0.0)
    owner.reply(worker, now=QUANTUM_S / 2, duration_us=2 * AHEAD_US)
    assert len(worker.in_flight) == 1
    owner.reply(worker, now=QUANTUM_S, duration_us=2 * AHEAD_US)
    assert owner.port.given_back == [worker]
    assert len(owner.queue.pending) == 1
    assert owner.queue.home.demanded > owner.queue.home.granted


def test_reclaimed_lease_is_returned_when_its_work_ends_within_the_quantum(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(10))
    owner.queue.on_reclaim(worker.lease_id, False, 0.0)
    owner.reply(worker, now=0.001)
    assert owner.port.given_back == [worker]


def test_reclaim_of_a_lease_that_is_gone_is_ignored(owner: Owner) -> None:
    owner.queue.on_reclaim(b"unknown", False, 0.0)
    assert owner.port.given_back == []


def test_lost_worker_yields_its_tasks_oldest_first(owner: Owner) -> None:
    worker = owner.grant()
    records = owner.submit(timed(10), 5)
    owner.reply(worker)
    assert owner.queue.on_lost(worker.lease_id) == records[1:]
    assert owner.queue.on_lost(worker.lease_id) == []
    assert not owner.queue.workers


def test_lost_idle_worker_gets_nothing_more(owner: Owner) -> None:
    worker = owner.grant()
    owner.queue.on_lost(worker.lease_id)
    owner.submit(timed(10))
    assert owner.port.pushed == []


# -- demand -----------------------------------------------------------------------------------------------------------


def test_demand_grows_in_doubling_steps(owner: Owner) -> None:
    owner.submit(timed(10), 100)
    assert owner.port.demands == [1, 2, 4, 8, 16, 32, 64]


def test_each_grant_evens_the_demand_out(owner: Owner) -> None:
    owner.submit(timed(2 * AHEAD_US), 100)
    owner.grant()
    assert owner.queue.home.demanded == 1 + 99


def test_demand_is_limited(owner: Owner) -> None:
    owner.submit(timed(10), 3 * MAX_DEMAND)
    assert owner.queue.home.demanded <= MAX_DEMAND
    owner.grant()
    assert owner.queue.home.demanded == 1 + MAX_DEMAND


def test_demand_is_cancelled_when_nothing_is_left(owner: Owner) -> None:
    owner.submit(timed(10), 8)
    worker = owner.grant()  # takes them all
    owner.reply(worker, 8)
    assert owner.port.demands[-1] == owner.queue.home.granted == 1


def test_grant_that_crosses_the_cancellation_is_used_or_idles(owner: Owner) -> None:
    owner.submit(timed(10), 8)
    busy = owner.grant()
    late = owner.grant()
    assert owner.queue.home.granted == 2
    assert owner.queue.idle == {late.lease_id: late}
    assert owner.port.recalled == [(busy, 4)]
    owner.hand_back(busy, 4)
    assert late.in_flight


# -- several raylets ------------------------------------------------------------------------------------------


def test_spilled_leases_are_asked_of_the_other_node(owner: Owner) -> None:
    owner.submit(timed(10), 10)
    owner.queue.on_spillback(owner.queue.home, 4, owner.queue.source(OTHER))
    assert owner.port.told[-1] == (OTHER, 4, True)
    assert owner.queue.home.outstanding == 10 - 4 or owner.queue.outstanding == owner.queue.home.outstanding + 4
    worker = owner.grant(node_id=OTHER)
    assert worker.in_flight and owner.queue.source(OTHER).granted == 1


def test_a_spillback_that_comes_too_late_is_dropped(owner: Owner) -> None:
    worker = owner.grant()
    owner.submit(timed(10), 2)
    owner.reply(worker, 2)
    owner.reply(worker, 1)
    told = len(owner.port.told)
    owner.queue.on_spillback(owner.queue.home, 1, owner.queue.source(OTHER))
    assert len(owner.port.told) == told
    owner.submit(timed(10), 3)
    assert owner.queue.outstanding >= 1 and owner.queue.source(OTHER).demanded == 0


def test_without_tasks_the_demand_is_cancelled_everywhere(owner: Owner) -> None:
    owner.submit(timed(10), 4)
    owner.queue.on_spillback(owner.queue.home, 1, owner.queue.source(OTHER))
    owner.queue.on_spillback(owner.queue.home, 1, owner.queue.source(THIRD))
    owner.queue.take_pending()
    assert owner.queue.outstanding == 0
    assert {(node, total) for node, total, _ in owner.port.told[-3:]} >= {(OTHER, 0), (THIRD, 0)}


def test_what_was_asked_of_a_lost_node_is_asked_at_home(owner: Owner) -> None:
    owner.submit(timed(10), 8)
    outstanding = owner.queue.outstanding
    owner.queue.on_spillback(owner.queue.home, 6, owner.queue.source(OTHER))
    worker = owner.grant(node_id=OTHER)
    (lost,) = owner.queue.on_raylet_lost(owner.queue.source(OTHER))
    assert lost is worker
    owner.queue.add_front(owner.queue.on_lost(worker.lease_id), 0.0)
    assert owner.queue.outstanding >= min(outstanding, 8) and owner.queue.home.outstanding == owner.queue.outstanding
    assert len(owner.queue.pending) == 8


def test_refused_tasks_can_be_demanded_again(owner: Owner) -> None:
    owner.submit(timed(10), 4)
    owner.queue.refused(owner.queue.home)
    assert len(owner.queue.take_pending()) == 4
    assert not owner.queue.pending
    owner.submit(timed(10))
    assert owner.queue.home.demanded == owner.queue.home.granted + 1


def test_failed_tasks_withdraw_their_demand(owner: Owner) -> None:
    owner.submit(timed(10), 4)
    owner.queue.take_pending()
    assert owner.port.demands[-1] == 0


def test_what_is_asked_back_at_once_ends_with_the_task_that_runs(owner: Owner) -> None:
    owner.submit(timed(10), 5)
    worker = owner.grant()
    assert len(worker.in_flight) == 5
    owner.queue.on_reclaim(worker.lease_id, True, 0.0)
    assert owner.port.recalled == [(worker, 4)]
    owner.hand_back(worker, 4)
    owner.reply(worker)
    assert owner.port.given_back == [worker]
    assert len(owner.queue.pending) == 4


def test_an_idle_lease_that_is_asked_back_at_once_is_returned(owner: Owner) -> None:
    worker = owner.grant()
    owner.queue.on_reclaim(worker.lease_id, True, 0.0)
    assert owner.port.given_back == [worker]
