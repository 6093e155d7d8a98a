"""What this node tells of its tasks and workers (``shoal_common.events.node_events``): added up, numbered, kept. Pure.

Counts are those of the processes that live, as they told them last, and of those that have ended. What a process had
submitted and not seen end when it ended itself has failed with it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

from shoal_common.channel.frames import TaskReport
from shoal_common.events.node_events import ClusterEvent, NodeReport, ProcessEvents, ProcessInfo, encode
from shoal_common.events.task_events import ALIVE, FunctionTally
from shoal_raylet.leases.worker_pool import Worker

#: Of reports that are kept, in bytes; and of one report, which NATS takes up to 1 MiB of.
MAX_KEPT_BYTES = 16 * 1024 * 1024
MAX_REPORT_BYTES = 400 * 1024
#: Functions that are counted; beyond that those are forgotten that were not called for longest.
MAX_FUNCTIONS = 10_000
#: Waiting for the next report at most.
MAX_CLUSTER_EVENTS = 1_000
MAX_WORKERS = 10_000

_Key = tuple[bytes, str, int]


class NodeEvents:
    """Belongs to one event loop. Times are milliseconds since 1970."""

    def __init__(self, node_id: bytes, incarnation: int) -> None:
        self._node_id = node_id
        self._incarnation = incarnation
        self._number = 0
        #: Encoded, by number, and their bytes.
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._kept_bytes = 0
        #: By function: of processes that have ended; and as living ones told last, by process.
        self._ended: OrderedDict[_Key, FunctionTally] = OrderedDict()
        self._living: dict[bytes, dict[_Key, FunctionTally]] = {}
        self._changed: dict[_Key, None] = {}
        self._events: deque[ProcessEvents] = deque()
        self._events_bytes = 0
        self._workers: dict[bytes, ProcessInfo] = {}
        self._changed_workers: dict[bytes, ProcessInfo] = {}
        self._cluster: deque[ClusterEvent] = deque()
        self._news: deque[ClusterEvent] = deque(maxlen=MAX_CLUSTER_EVENTS)
        self._unnamed = 0
        self._lost = 0

    @property
    def newest(self) -> int:
        """Number of the newest report; 0 = there is none."""
        return self._number

    @property
    def oldest(self) -> int:
        """Of those that are kept; one more than the newest if there are none."""
        return next(iter(self._kept), self._number + 1)

    # -- what happens ---------------------------------------------------------------------------------

    def reported(self, process: bytes, report: TaskReport) -> None:
        told = self._living.setdefault(process, {})
        for tally in report.tallies:
            key = (tally.job_id, tally.function, tally.kind)
            told[key] = tally
            self._changed[key] = None
            if key not in self._ended:
                self._ended[key] = FunctionTally(*key)
            self._ended.move_to_end(key)
        while len(self._ended) > MAX_FUNCTIONS:
            forgotten, _ = self._ended.popitem(last=False)
            self._changed.pop(forgotten, None)
            for each in self._living.values():
                each.pop(forgotten, None)
        if report.events and report.count:
            self._events.append(ProcessEvents(process, report.events))
            self._events_bytes += len(report.events)
            while self._events_bytes > MAX_KEPT_BYTES:
                self._events_bytes -= len(self._events.popleft().events)
                self._lost += 1
        self._unnamed += report.unnamed
        self._lost += report.lost

    def started(self, worker: ProcessInfo) -> None:
        """A process has connected, or is known better now."""
        self._workers[worker.worker_id] = self._changed_workers[worker.worker_id] = worker

    def note(self, workers: Iterable[Worker], at_ms: int) -> None:
        """Those that have come, or work for another job or actor now."""
        for worker in workers:
            if worker.address is None:
                continue
            known = self._workers.get(worker.worker_id)
            if known is None or (known.job_id, known.actor_id) != (worker.job_id, worker.actor_id):
                started_ms = known.started_ms if known is not None else at_ms
                self.started(ProcessInfo(worker.worker_id, worker.pid, worker.job_id, worker.actor_id, started_ms))

    def ended(self, process: bytes, at_ms: int, exit_kind: str = "", exit_detail: str = "") -> None:
        """A driver or worker; a second end only adds the reason."""
        for key, tally in self._living.pop(process, {}).items():
            tally.failed += tally.unended
            tally.alive = [0] * len(ALIVE)
            self._ended[key].add(tally)
            self._changed[key] = None
        worker = self._workers.pop(process, None) or self._changed_workers.get(process)
        if worker is not None:
            self._changed_workers[process] = ProcessInfo(
                worker.worker_id,
                worker.pid,
                worker.job_id,
                worker.actor_id,
                worker.started_ms,
                worker.ended_ms or at_ms,
                exit_kind or worker.exit_kind,
                exit_detail or worker.exit_detail,
                worker.is_driver,
            )
            while len(self._changed_workers) > MAX_WORKERS:
                del self._changed_workers[next(iter(self._changed_workers))]

    def happened(self, event: ClusterEvent) -> None:
        self._cluster.append(event)
        self._news.append(event)
        if len(self._cluster) > MAX_CLUSTER_EVENTS:
            self._cluster.popleft()
            self._lost += 1

    def news(self) -> list[ClusterEvent]:
        """What has happened since this was asked last."""
        news = list(self._news)
        self._news.clear()
        return news

    def tell_all(self) -> None:
        """Somebody begins to listen, and knows nothing yet: the next report has all counts and all living workers."""
        self._changed = dict.fromkeys(self._ended)
        self._changed_workers = {**self._workers, **self._changed_workers}

    # -- reports --------------------------------------------------------------------------------------

    def report(self, at_ms: int) -> int:
        """Make reports of what is new; returns how many."""
        before = self._number
        while self._changed or self._events or self._changed_workers or self._cluster or self._unnamed or self._lost:
            oldest = self.oldest
            self._number += 1
            report = NodeReport(self._node_id, self._incarnation, self._number, oldest, at_ms)
            room = MAX_REPORT_BYTES
            while self._cluster and room > 0:
                event = self._cluster.popleft()
                room -= 200 + len(event.message)
                report.cluster.append(event)
            while self._changed_workers and room > 0:
                worker = self._changed_workers.pop(next(iter(self._changed_workers)))
                room -= 150 + len(worker.exit_detail)
                report.workers.append(worker)
            while self._changed and room > 0:
                key = next(iter(self._changed))
                del self._changed[key]
                room -= 150 + len(key[1])
                report.tallies.append(self._total(key))
            while self._events and (room >= len(self._events[0].events) or room == MAX_REPORT_BYTES):
                events = self._events.popleft()
                self._events_bytes -= len(events.events)
                room -= len(events.events)
                report.events.append(events)
            report.unnamed, report.lost = self._unnamed, self._lost
            self._unnamed = self._lost = 0
            self._keep(encode(report))
        return self._number - before

    def get(self, number: int) -> bytes | None:
        """None = it is not there any more, or not yet."""
        return self._kept.get(number)

    def _keep(self, report: bytes) -> None:
        self._kept[self._number] = report
        self._kept_bytes += len(report)
        while self._kept_bytes > MAX_KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest)

    def _total(self, key: _Key) -> FunctionTally:
        ended = self._ended[key]
        total = FunctionTally(*key)
        total.add(ended)
        for told in self._living.values():
            if key in told:
                total.add(told[key])
        return total

    def validate(self) -> None:
        """Asserts what must always hold; for tests."""
        assert self._kept_bytes == sum(map(len, self._kept.values())) <= MAX_KEPT_BYTES
        assert list(self._kept) == list(range(self.oldest, self._number + 1))
        assert self._events_bytes == sum(len(each.events) for each in self._events)
        assert len(self._ended) <= MAX_FUNCTIONS
        for told in self._living.values():
            assert told.keys() <= self._ended.keys()
