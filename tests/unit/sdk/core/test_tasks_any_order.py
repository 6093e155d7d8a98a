"""Worker leases as their owner uses them, in any order of events: no task is lost, none runs twice at once."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shoal._core.leases import LeasedWorker, Source
from shoal._core.task_record import Deadline, FunctionRecord, TaskRecord, TimeLimit
from shoal._core.tasks import AHEAD_US, TaskQueue
from shoal._wire.peer_frames import TaskPush
from shoal_common.channel.frames import SchedulingClass

HOME, OTHER, THIRD = b"home", b"other", b"third"
SPEC = SchedulingClass(name="", resources=(("CPU", 10_000),))


class ModelWorker:
    """A worker as the executor is: tasks in order on one thread; what it says and hears arrives in order, later."""

    def __init__(self, lease: LeasedWorker) -> None:
        self.lease = lease
        self.inbox: deque[tuple[str, object]] = deque()
        self.outbox: deque[tuple[str, list[bytes], dict[str, bool]]] = deque()
        self.waiting: deque[bytes] = deque()
        self.running: bytes | None = None
        self.blocked = False
        self.leaving = False
        self.stopped: set[bytes] = set()

    def hear(self) -> None:
        kind, content = self.inbox.popleft()
        if kind == "stop":
            assert isinstance(content, bytes)
            self.stopped.add(content)
        elif kind == "recall":
            assert isinstance(content, int)
            taken = [self.waiting.pop() for _ in range(min(content, len(self.waiting)))]
            self.outbox.append(("recalled", taken[::-1], {}))
        elif self.blocked or self.leaving:
            assert isinstance(content, list)
            self.outbox.append(("recalled", content, {"blocked": True, "leaving": self.leaving}))
        else:
            assert isinstance(content, list)
            self.waiting.extend(content)

    def hand_back(self, **state: bool) -> None:
        self.outbox.append(("recalled", list(self.waiting), state))
        self.waiting.clear()


class ModelRaylet:
    """Grants or sends on what it owes; what it has said is heard later."""

    def __init__(self) -> None:
        self.total = 0
        self.granted = 0
        #: ("grant",) or ("spillback", count, node).
        self.outbox: deque[tuple[Any, ...]] = deque()

    @property
    def owed(self) -> int:
        return max(0, self.total - self.granted)


class AnyOrder(RuleBasedStateMachine):
    """Tasks, workers, blocking, recalls, reclaims, spillbacks and deaths in any order: no task is lost, none runs twice
    at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue = TaskQueue(0, SPEC, HOME, self)
        self.functions = [FunctionRecord(bytes([kind]), "f") for kind in range(3)]
        self.durations = [5, 900, 3 * AHEAD_US]
        self.records: dict[bytes, TaskRecord] = {}
        self.done: set[bytes] = set()
        self.workers: list[ModelWorker] = []
        self.leases = 0
        self.raylets = {node_id: ModelRaylet() for node_id in (HOME, OTHER, THIRD)}

    # The port.

    def _model(self, lease: LeasedWorker) -> ModelWorker:
        return next(worker for worker in self.workers if worker.lease is lease)

    def push(self, worker: LeasedWorker, records: list[TaskRecord]) -> None:
        assert worker.lease_id in self.queue.workers
        assert not worker.blocked
        assert not worker.leaving
        self._model(worker).inbox.append(("push", [record.push.task_id for record in records]))

    def recall(self, worker: LeasedWorker, count: int) -> None:
        assert count > 0
        self._model(worker).inbox.append(("recall", count))

    def demand(self, queue: TaskQueue, source: Source, placed: bool) -> None:
        self.raylets[source.node_id].total = source.demanded

    def give_back(self, worker: LeasedWorker) -> None:
        model = self._model(worker)
        assert not worker.in_flight
        assert model.running is None
        assert not model.waiting
        self.workers.remove(model)

    def stop(self, worker: LeasedWorker, record: TaskRecord) -> None:
        self._model(worker).inbox.append(("stop", record.push.task_id))

    def tell_cancelled(self, worker: LeasedWorker, record: TaskRecord, force: bool, recursive: bool) -> None:
        self._model(worker).inbox.append(("stop", record.push.task_id))

    def stopped(self, record: TaskRecord) -> None:
        assert record.push.task_id in self.done

    def kill(self, worker: LeasedWorker, record: TaskRecord) -> None:
        assert next(iter(worker.in_flight.values())) is record, "it would cost another one its worker"
        self._die(self._model(worker))

    # What can happen.

    @rule(kind=st.integers(0, 2), count=st.integers(1, 12), retries=st.sampled_from([3, 3, 0]))
    def submit(self, kind: int, count: int, retries: int) -> None:
        for _ in range(count):
            task_id = len(self.records).to_bytes(20, "big")
            record = TaskRecord(TaskPush(task_id, b"", "f", b""), self.functions[kind], [], retries_left=retries)
            self.records[task_id] = record
            self.queue.add(record)

    @rule(node_id=st.sampled_from([HOME, HOME, OTHER, THIRD]))
    def grant(self, node_id: bytes) -> None:
        raylet = self.raylets[node_id]
        if raylet.owed and len(self.workers) < 5:
            raylet.granted += 1
            raylet.outbox.append(("grant",))

    @rule(
        node_id=st.sampled_from([HOME, HOME, OTHER, THIRD]),
        to=st.sampled_from([HOME, OTHER, THIRD]),
        share=st.floats(0.1, 1),
    )
    def spill(self, node_id: bytes, to: bytes, share: float) -> None:
        raylet = self.raylets[node_id]
        if raylet.owed and to != node_id:
            count = max(1, int(share * raylet.owed))
            raylet.granted += count
            raylet.outbox.append(("spillback", count, to))

    @rule(node_id=st.sampled_from([HOME, OTHER, THIRD]))
    def hear_of_raylet(self, node_id: bytes) -> None:
        raylet, source = self.raylets[node_id], self.queue.source(node_id)
        if not raylet.outbox:
            return
        kind, *rest = raylet.outbox.popleft()
        if kind == "spillback":
            count, to = rest
            self.queue.on_spillback(source, count, self.queue.source(to))
            return
        self.leases += 1
        lease = LeasedWorker(self.leases.to_bytes(8, "big"), source, b"w", 1, None, self.now)
        self.workers.append(ModelWorker(lease))
        self.queue.on_granted(lease, self.now)

    @rule(node_id=st.sampled_from([OTHER, THIRD]))
    def raylet_dies(self, node_id: bytes) -> None:
        self.raylets[node_id] = ModelRaylet()
        lost = self.queue.on_raylet_lost(self.queue.source(node_id))
        for lease in lost:
            self.workers.remove(self._model(lease))
            self.queue.add_front(self.queue.on_lost(lease.lease_id), self.now)
        self.queue.add_front([], self.now)

    def _pick(self, number: int, *, able: str) -> ModelWorker | None:
        able_workers = [worker for worker in self.workers if getattr(self, f"_can_{able}")(worker)]
        return able_workers[number % len(able_workers)] if able_workers else None

    @staticmethod
    def _can_hear(worker: ModelWorker) -> bool:
        return bool(worker.inbox)

    @staticmethod
    def _can_tell(worker: ModelWorker) -> bool:
        return bool(worker.outbox)

    @staticmethod
    def _can_begin(worker: ModelWorker) -> bool:
        return worker.running is None and bool(worker.waiting)

    @staticmethod
    def _can_finish(worker: ModelWorker) -> bool:
        return worker.running is not None and not worker.blocked

    @staticmethod
    def _can_unblock(worker: ModelWorker) -> bool:
        return worker.blocked

    @staticmethod
    def _can_exist(worker: ModelWorker) -> bool:
        return True

    @rule(number=st.integers(0, 4))
    def hear(self, number: int) -> None:
        if worker := self._pick(number, able="hear"):
            worker.hear()

    @rule(number=st.integers(0, 4))
    def tell(self, number: int) -> None:
        if worker := self._pick(number, able="tell"):
            kind, task_ids, state = worker.outbox.popleft()
            if kind == "recalled":
                self.queue.on_recalled(worker.lease, task_ids, self.now, **state)
                return
            for task_id in task_ids:
                record = self.records[task_id]
                if record.late:
                    assert self.queue.on_replied(worker.lease, task_id, 0) is record
                    continue
                duration = self.durations[self.functions.index(record.function)]
                assert self.queue.on_replied(worker.lease, task_id, duration) is record
                assert task_id not in self.done
                self.done.add(task_id)
            self.queue.after_replies(worker.lease, self.now)

    @rule(number=st.integers(0, 4))
    def begin(self, number: int) -> None:
        if worker := self._pick(number, able="begin"):
            task_id = worker.waiting.popleft()
            assert all(other.running != task_id for other in self.workers), "it runs elsewhere"
            if task_id in worker.stopped:
                worker.outbox.append(("replied", [task_id], {}))
                return
            assert task_id not in self.done or self.records[task_id].late
            worker.running = task_id

    @rule(number=st.integers(0, 4), leaves=st.integers(0, 9))
    def finish(self, number: int, leaves: int) -> None:
        if worker := self._pick(number, able="finish"):
            assert worker.running is not None
            if leaves == 0 and not worker.leaving:  # max_calls
                worker.leaving = True
                worker.hand_back(leaving=True)
            worker.outbox.append(("replied", [worker.running], {}))
            worker.running = None

    @rule(number=st.integers(0, 4))
    def block(self, number: int) -> None:
        if worker := self._pick(number, able="finish"):
            worker.blocked = True
            if worker.waiting:
                worker.hand_back(blocked=True)

    @rule(number=st.integers(0, 4))
    def unblock(self, number: int) -> None:
        if worker := self._pick(number, able="unblock"):
            worker.blocked = False

    @rule(number=st.integers(0, 4), at_once=st.booleans())
    def reclaim(self, number: int, at_once: bool) -> None:
        if worker := self._pick(number, able="exist"):
            self.queue.on_reclaim(worker.lease.lease_id, at_once, self.now)

    @rule(number=st.integers(0, 4))
    def die(self, number: int) -> None:
        if worker := self._pick(number, able="exist"):
            self._die(worker)

    def _die(self, worker: ModelWorker) -> None:
        self.workers.remove(worker)
        again = self.queue.on_lost(worker.lease.lease_id)
        if worker.running is not None:
            assert again[0].push.task_id == worker.running or worker.outbox, "only the oldest can have begun"
        self.queue.add_front(again, self.now)

    @rule(number=st.integers(0, 20))
    def runs_late(self, number: int) -> None:
        open_tasks = [record for record in self.records.values() if record.push.task_id not in self.done]
        if open_tasks:
            record = open_tasks[number % len(open_tasks)]
            record.deadline = Deadline(TimeLimit(1.0, False), self.now, passed=True)
            self.queue.expire(record, self.now)
            self.done.add(record.push.task_id)

    @rule(number=st.integers(0, 20))
    def does_not_stop(self, number: int) -> None:
        late = [(w.lease, record) for w in self.workers for record in w.lease.in_flight.values() if record.late]
        if late:
            lease, record = late[number % len(late)]
            self.queue.not_stopped(lease.lease_id, record)

    @rule()
    def other_class_waits(self) -> None:
        self.queue.return_idle()

    @rule(seconds=st.sampled_from([0.01, 0.06, 0.3]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.queue.on_tick(self.now, idle_s=0.2)

    # What always holds.

    @invariant()
    def consistent(self) -> None:
        self.queue.validate()
        for source in (self.queue.home, *self.queue.elsewhere.values()):
            raylet = self.raylets[source.node_id]
            assert raylet.total == source.demanded, "the raylet knows the demand"
            said = sum(1 if each[0] == "grant" else each[1] for each in raylet.outbox)
            assert raylet.granted == source.granted + said

    @invariant()
    def every_task_is_in_exactly_one_place(self) -> None:
        places = [record.push.task_id for record in self.queue.pending]
        for worker in self.queue.workers.values():
            places.extend(worker.in_flight)
        assert len(places) == len(set(places))
        assert set(places) | self.done == set(self.records)
        assert not any(task_id in self.done and not self.records[task_id].late for task_id in places)
        assert not any(record.late for record in self.queue.pending)

    @invariant()
    def waiting_tasks_have_somebody_to_wait_for(self) -> None:
        if self.queue.pending:
            assert self.queue.outstanding
            assert not self.queue.idle

    def teardown(self) -> None:
        """When everybody goes on working, everything ends."""
        for _ in range(20 * len(self.records) + 100):
            if len(self.done) == len(self.records):
                break
            self.now += 0.001
            for node_id in self.raylets:
                self.grant(node_id)
                self.hear_of_raylet(node_id)
            for worker in list(self.workers):
                worker.blocked = False
                while worker.inbox:
                    worker.hear()
                if self._can_begin(worker):
                    worker.running = worker.waiting.popleft()
                if self._can_finish(worker):
                    assert worker.running is not None
                    worker.outbox.append(("replied", [worker.running], {}))
                    worker.running = None
                while worker in self.workers and worker.outbox:
                    self.tell([other for other in self.workers if other.outbox].index(worker))
        assert len(self.done) == len(self.records), "tasks that never ran"


AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
TestAnyOrder = AnyOrder.TestCase
