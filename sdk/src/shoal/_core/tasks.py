"""Tasks on their way: the queue of one scheduling class with its leased workers.

A ``TaskQueue`` holds the tasks of one scheduling class that wait for a worker, and the workers leased for it.
How much is pushed to a worker ahead of its answers adapts to how long the functions take:

- an idle worker gets its first task at once, alone;
- while it is busy, what arrives is kept, and goes out as one batch when the worker has run half of what it
  had (so the batch size follows the load by itself);
- a worker never gets more than about ``AHEAD_US`` of work or ``AHEAD_BYTES`` of arguments ahead; of a function never
  timed, one task.

Running ahead must not hold work back: when a worker has nothing to do while another one still has tasks that have
not begun, these are recalled; a worker that blocks in ``get`` hands its own back.

Leases are asked of the node's own raylet. It grants what it can, and may send the owner on to others for the rest, each
of which is a ``Source`` of leases then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from shoal._core.batches import AHEAD_BYTES
from shoal._core.deadlines import ARGUMENTS, BEHIND, PAUSING, RUNNING, UNPLACED
from shoal._core.leases import LeasedWorker, Source
from shoal._core.task_record import TaskRecord, find_record
from shoal_common.channel.frames import SchedulingClass
from shoal_common.placement.strategy import Strategy
from shoal_common.service.story import Story, noted

#: Work pushed to one worker ahead of its answers, in microseconds of estimated run time.
AHEAD_US = 8_000
#: Tasks in flight to one worker at most.
MAX_IN_FLIGHT = 512
#: Leases asked for at once per class at most; a node grants only what it has.
MAX_DEMAND = 1_000
#: A lease that others wait for is returned after so many seconds at most (when its pushed tasks are done).
QUANTUM_S = 0.1


class Port(Protocol):
    """What a queue can do to the world."""

    def push(self, worker: LeasedWorker, records: list[TaskRecord]) -> None: ...

    def recall(self, worker: LeasedWorker, count: int) -> None: ...

    def demand(self, queue: TaskQueue, source: Source, placed: bool) -> None:
        """Tell ``source.demanded``; ``placed``: what is new was sent there by another raylet."""

    def give_back(self, worker: LeasedWorker) -> None: ...

    def stop(self, worker: LeasedWorker, record: TaskRecord) -> None:
        """It is past its deadline: tell the worker. ``TaskQueue.not_stopped`` follows in a while."""

    def tell_cancelled(self, worker: LeasedWorker, record: TaskRecord, force: bool, recursive: bool) -> None:
        """Tell the worker. With ``force``, ``TaskQueue.not_stopped`` follows in a while."""

    def stopped(self, record: TaskRecord) -> None:
        """No worker has it any more, which was past its deadline or cancelled."""

    def kill(self, worker: LeasedWorker, record: TaskRecord) -> None:
        """This task runs on and on; ``on_lost`` follows."""


class TaskQueue:
    """Tasks and leases of one scheduling class. Not thread-safe: the core's lock protects it."""

    def __init__(self, key: int, spec: SchedulingClass, node_id: bytes, port: Port) -> None:
        """``node_id``: the owner's node."""
        self.key = key
        self.spec = spec
        #: What comes after a pause is to find its place anew: an idle lease would pin it to the node it is on.
        self._spreads = Strategy.decode(spec.strategy).spread
        #: When memory is enforced, the one whose worker is killed must be known.
        self._singly = spec.enforce_memory
        self._port = port
        self._story = Story(f"task queue {key}")
        self.pending: deque[TaskRecord] = deque()
        self.workers: dict[bytes, LeasedWorker] = {}
        #: All and only workers with nothing in flight to which something may be pushed.
        self.idle: dict[bytes, LeasedWorker] = {}
        self.home = Source(node_id)
        #: Other nodes, as far as leases were or are asked there.
        self.elsewhere: dict[bytes, Source] = {}

    @property
    def outstanding(self) -> int:
        """Leases asked for and not granted, wherever."""
        if not self.elsewhere:
            return self.home.outstanding
        return self.home.outstanding + sum(source.outstanding for source in self.elsewhere.values())

    def source(self, node_id: bytes) -> Source:
        if node_id == self.home.node_id:
            return self.home
        source = self.elsewhere.get(node_id)
        if source is None:
            source = self.elsewhere[node_id] = Source(node_id)
        return source

    # -- events -------------------------------------------------------------------------------------

    def add(self, record: TaskRecord) -> None:
        """A task whose arguments are ready."""
        if self.idle and not self.pending:
            _, worker = self.idle.popitem()
            self._start(worker, [record])
            return
        self.pending.append(record)
        # Each change of the demand is a message: here it grows in doubling steps, each grant evens it out.
        outstanding = self.outstanding
        if outstanding < MAX_DEMAND and len(self.pending) >= 2 * outstanding:
            self._adjust_demand()

    def add_front(self, records: list[TaskRecord], now: float) -> None:
        """Tasks that were handed back keep their place."""
        unwanted = [record for record in records if record.late or record.cancelled]
        if unwanted:
            records = [record for record in records if not (record.late or record.cancelled)]
        self.pending.extendleft(reversed(records))
        self._pump_idle(now)
        self._adjust_demand()
        for record in unwanted:
            self._port.stopped(record)

    def on_granted(self, worker: LeasedWorker, now: float) -> None:
        self._story.note("on_granted", worker.lease_id)
        worker.source.granted += 1
        self.workers[worker.lease_id] = worker
        if self.pending:
            self._refill(worker, now)
            self._adjust_demand()
        else:
            self._rest(worker, now)

    def on_spillback(self, source: Source, count: int, to: Source) -> None:
        """A raylet sends the owner on to another one for so many leases."""
        self._story.note("on_spillback", to.node_id)
        source.granted += count
        if self.backlog:
            to.ask_for(count)
            self._port.demand(self, to, True)

    def on_raylet_lost(self, source: Source) -> list[LeasedWorker]:
        """A node is gone, and so are its leases, each to be ended with ``on_lost``; what was asked there is asked
        elsewhere then."""
        self._story.note("on_raylet_lost", source.node_id)
        self.elsewhere.pop(source.node_id, None)
        return [worker for worker in self.workers.values() if worker.source is source]

    def on_replied(self, worker: LeasedWorker, task_id: bytes, duration_us: int) -> TaskRecord | None:
        """One answer; call ``after_replies`` when all of a message are in. None if it was not expected."""
        record = worker.in_flight.pop(task_id, None)
        if record is None:
            return None
        function = record.function
        mean = function.mean_us
        worker.ahead_us -= record.estimate_us
        worker.ahead_bytes -= record.size
        if record.late or record.cancelled:
            return record  # it was stopped, or never begun
        function.mean_us = duration_us + 1.0 if mean == 0.0 else mean + 0.2 * (duration_us - mean)
        return record

    def after_replies(self, worker: LeasedWorker, now: float) -> None:
        worker.blocked = False
        if not worker.in_flight:
            worker.ahead_us = 0.0
        if self.pending:
            self._refill(worker, now)
        if not worker.in_flight:
            self._rest(worker, now)

    def on_recalled(
        self, worker: LeasedWorker, task_ids: list[bytes], now: float, *, blocked: bool = False, leaving: bool = False
    ) -> None:
        self._story.note("on_recalled", worker.lease_id)
        worker.recalling = False
        worker.leaving = worker.leaving or leaving
        records = []
        for task_id in task_ids:
            record = worker.in_flight.pop(task_id, None)
            if record is not None:
                worker.ahead_us -= record.estimate_us
                worker.ahead_bytes -= record.size
                records.append(record)
        if blocked:
            worker.blocked = True
        if records:
            self.add_front(records, now)
        if not worker.in_flight and worker.lease_id in self.workers:
            worker.blocked = False
            self.after_replies(worker, now)

    @noted
    def on_lost(self, lease_id: bytes) -> list[TaskRecord]:
        """A leased worker is gone; its unanswered tasks, oldest (the only one that can have begun) first."""
        worker = self.workers.pop(lease_id, None)
        if worker is None:
            return []
        self.idle.pop(lease_id, None)
        return list(worker.in_flight.values())

    @noted
    def on_disconnected(self, lease_id: bytes) -> None:
        """Nothing more goes to this worker; ``on_lost`` follows, with the reason."""
        self.workers[lease_id].blocked = True
        self.idle.pop(lease_id, None)

    @noted
    def on_reclaim(self, lease_id: bytes, at_once: bool, now: float) -> None:
        """Others wait for this lease. ``at_once``: what has not begun comes back."""
        worker = self.workers.get(lease_id)
        if worker is None:
            return
        worker.reclaim_at = now if at_once else max(now, worker.granted_at + QUANTUM_S)
        if not worker.in_flight and (at_once or not self.pending):
            self._return(worker)
        elif at_once and len(worker.in_flight) > 1 and not worker.recalling:
            worker.recalling = True
            self._port.recall(worker, len(worker.in_flight) - 1)

    def on_tick(self, now: float, idle_s: float) -> None:
        """Return what has been idle for ``idle_s`` seconds."""
        for worker in list(self.idle.values()):
            if now - worker.idle_since >= idle_s:
                self._return(worker)

    @noted
    def return_idle(self) -> None:
        """Another class of this owner waits for resources."""
        for worker in list(self.idle.values()):
            self._return(worker)

    @noted
    def take_pending(self) -> list[TaskRecord]:
        """All waiting tasks, which are to fail."""
        records = list(self.pending)
        self.pending.clear()
        self._adjust_demand()
        return records

    def expire(self, record: TaskRecord, now: float) -> str:
        """As ``deadlines.Queue``. What a worker has stays in its ``in_flight`` until that has answered."""
        for worker in self.workers.values():
            if record.push.task_id in worker.in_flight:
                self._port.stop(worker, record)
                return RUNNING if self._is_oldest(worker, record) else BEHIND
        if record.unready:
            return PAUSING if record.pausing else ARGUMENTS
        self.pending.remove(record)
        self._adjust_demand()
        return UNPLACED

    def cancel(self, record: TaskRecord, force: bool, recursive: bool) -> bool:
        """It is ``cancelled``. True = it is over. Else the worker that has it answers, or is lost; with ``force``, the
        one that runs it does not live on."""
        worker = self.worker_of(record)
        if worker is not None:
            self._port.tell_cancelled(worker, record, force, recursive)
            return False
        try:
            self.pending.remove(record)
        except ValueError:
            return True  # it waits for its arguments, or pauses before a retry
        self._adjust_demand()
        return True

    def records(self) -> Iterator[TaskRecord]:
        """Those that wait for a worker, or were sent to one."""
        yield from self.pending
        for worker in self.workers.values():
            yield from worker.in_flight.values()

    def find(self, task_id: bytes) -> TaskRecord | None:
        """One that waits for a worker, or was sent to one."""
        for worker in self.workers.values():
            if task_id in worker.in_flight:
                return worker.in_flight[task_id]
        return find_record(self.pending, task_id)

    def worker_of(self, record: TaskRecord) -> LeasedWorker | None:
        """To which it was sent."""
        return next((worker for worker in self.workers.values() if record.push.task_id in worker.in_flight), None)

    def place_of(self, task_id: bytes) -> int:
        """How many wait before this one, which waits for a worker."""
        ids = (record.push.task_id for record in self.pending)
        return next((place for place, each in enumerate(ids) if each == task_id), 0)

    def name_of(self, record: TaskRecord) -> str:
        """For humans."""
        return record.push.name

    @noted
    def not_stopped(self, lease_id: bytes, record: TaskRecord) -> None:
        """Some time after ``stop``, or ``cancel`` with force, which may be over."""
        worker = self.workers.get(lease_id)
        if worker is None or worker.in_flight.get(record.push.task_id) is not record:
            return
        if not record.late and not record.cancelled:
            return
        if self._is_oldest(worker, record):
            self._port.kill(worker, record)
        elif record.late:
            # The one before it may take its time. This one will not begin, but who knows whether it has been told.
            self._port.stop(worker, record)

    @staticmethod
    def _is_oldest(worker: LeasedWorker, record: TaskRecord) -> bool:
        """It runs, as far as can be told from here: tasks run in order."""
        return next(iter(worker.in_flight.values())) is record

    def forget_all(self) -> None:
        """Let go of every record."""
        self.pending.clear()
        for worker in self.workers.values():
            worker.in_flight.clear()
        self.workers.clear()
        self.idle.clear()

    def refused(self, source: Source) -> None:
        """The raylet forgot the demand it refused."""
        self._story.note("refused", source.node_id)
        source.demanded = source.granted

    # -- decisions ------------------------------------------------------------------------------------

    def _start(self, worker: LeasedWorker, records: list[TaskRecord]) -> None:
        in_flight = worker.in_flight
        for record in records:
            in_flight[record.push.task_id] = record
            record.estimate_us = record.function.mean_us
            worker.ahead_us += record.estimate_us
            worker.ahead_bytes += record.size
        self._port.push(worker, records)

    def _refill(self, worker: LeasedWorker, now: float) -> None:
        if worker.blocked or worker.leaving or (worker.reclaim_at is not None and now >= worker.reclaim_at):
            return
        in_flight = len(worker.in_flight)
        if in_flight and (
            worker.ahead_us > AHEAD_US / 2 or in_flight > MAX_IN_FLIGHT // 2 or worker.ahead_bytes > AHEAD_BYTES // 2
        ):
            return
        batch: list[TaskRecord] = []
        ahead, ahead_bytes = worker.ahead_us, worker.ahead_bytes
        pending = self.pending
        # With several workers, the last tasks are shared out instead of all going to the first that asks; those to be
        # spread, among the leases on their way too.
        leases = len(self.workers) + (self.outstanding if self._spreads else 0)
        share = max(1, len(pending) // max(1, leases))
        while pending and in_flight + len(batch) < MAX_IN_FLIGHT and len(batch) < share:
            record = pending[0]
            mean = record.function.mean_us
            # Replies are gathered, so of several tasks in flight nobody knows which have begun when the worker dies.
            # What may run only once must not be among them, nor what is suspected of the death.
            alone = mean == 0.0 or record.retries_left == 0 or record.suspect or self._singly
            full = ahead + mean > AHEAD_US or ahead_bytes + record.size > AHEAD_BYTES
            if (alone or full) and (in_flight or batch):
                break
            batch.append(pending.popleft())
            ahead += mean
            ahead_bytes += record.size
            if alone:
                break
        if batch:
            self.idle.pop(worker.lease_id, None)
            self._start(worker, batch)

    def _pump_idle(self, now: float) -> None:
        for worker in list(self.idle.values()):
            if not self.pending:
                return
            self._refill(worker, now)

    def _rest(self, worker: LeasedWorker, now: float) -> None:
        """The worker has nothing to do and nothing waits here: find work elsewhere, or let it idle."""
        if worker.leaving or (worker.reclaim_at is not None and not (self.pending and now < worker.reclaim_at)):
            self._return(worker)
            return
        worker.idle_since = now
        self.idle[worker.lease_id] = worker
        victim = max(self.workers.values(), key=lambda w: 0 if w.recalling else len(w.in_flight))
        if not victim.recalling and len(victim.in_flight) > 1:
            victim.recalling = True
            self._port.recall(victim, len(victim.in_flight) // 2)
        elif not self.pending:
            if self._spreads:
                self._return(worker)
            if self.outstanding:
                self._adjust_demand()

    def _return(self, worker: LeasedWorker) -> None:
        del self.workers[worker.lease_id]
        self.idle.pop(worker.lease_id, None)
        self._port.give_back(worker)
        if self.pending:
            self._adjust_demand()

    @property
    def backlog(self) -> int:
        """Tasks that have not begun: those here, and those pushed behind the one that a worker runs."""
        return len(self.pending) + sum(
            len(worker.in_flight) - 1 for worker in self.workers.values() if len(worker.in_flight) > 1
        )

    def _adjust_demand(self) -> None:
        wanted = min(self.backlog, MAX_DEMAND)
        outstanding = self.outstanding
        if wanted > outstanding:
            self.home.ask_for(wanted - outstanding)
            self._port.demand(self, self.home, False)
        elif not wanted and outstanding:
            for source in (self.home, *self.elsewhere.values()):
                if source.outstanding:
                    source.demanded = source.granted
                    self._port.demand(self, source, False)

    def validate(self) -> None:
        """Asserts what must always hold; for tests."""
        try:
            for lease_id, worker in self.idle.items():
                assert self.workers.get(lease_id) is worker
                assert not worker.in_flight and not worker.blocked and not worker.leaving
            for lease_id, worker in self.workers.items():
                assert worker.lease_id == lease_id
                assert len(worker.in_flight) <= MAX_IN_FLIGHT
                assert worker.ahead_bytes == sum(record.size for record in worker.in_flight.values())
                assert worker.in_flight or worker.blocked or lease_id in self.idle
                for task_id, record in worker.in_flight.items():
                    assert record.push.task_id == task_id
            places = [record.push.task_id for record in self.pending]
            places += [task_id for worker in self.workers.values() for task_id in worker.in_flight]
            assert len(places) == len(set(places)), "a task is in one place"
            assert self.outstanding or not self.pending
        except AssertionError as broken:
            self._story.explain(broken)
            raise
