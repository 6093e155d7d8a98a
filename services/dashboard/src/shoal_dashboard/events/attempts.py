"""What is known of each attempt, out of what its owner and its worker have told of it. Pure.

They tell in any order: an attempt only goes forward, and what is exact replaces what was seen from afar. One whose
owner has ended without saying how it went has failed with it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from shoal_common.events.task_events import Failure, TaskEvent, TaskKind, TaskState
from shoal_common.ids import job_of, job_of_actor

#: Attempts that have not ended at most; beyond that the oldest are given up.
MAX_ALIVE = 200_000
#: Ends that are remembered, for what is told late of what had ended.
MAX_ENDED = 100_000

Key = tuple[bytes, int]


@dataclass(slots=True)
class Attempt:
    """Times in milliseconds since 1970, 0 = not known; of each state when it came to it."""

    task_id: bytes
    attempt: int
    state: int
    kind: int
    function: str
    name: str
    job_id: bytes
    parent: bytes
    actor_id: bytes
    #: The process that has submitted it.
    owner: bytes
    node_id: bytes = b""
    worker_id: bytes = b""
    pid: int = 0
    failure: Failure | None = None
    submitted_ms: int = 0
    times: list[int] = field(default_factory=lambda: [0] * len(TaskState))
    #: In units.
    resources: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.task_id, self.attempt


@dataclass(slots=True)
class Process:
    """A driver or worker."""

    node_id: bytes
    pid: int
    ended: bool = False


class Attempts:
    """Belongs to one thread at a time."""

    def __init__(self) -> None:
        self.alive: OrderedDict[Key, Attempt] = OrderedDict()
        self._ended: OrderedDict[Key, None] = OrderedDict()
        self._by_owner: dict[bytes, set[Key]] = {}
        self._processes: OrderedDict[bytes, Process] = OrderedDict()
        #: Since the last ``take``: the ends, and what has changed among the living.
        self._new_ends: list[Attempt] = []
        self._changed: dict[Key, None] = {}
        #: Living ones that were given up, as there were too many.
        self.lost = 0

    def restore(self, alive: list[Attempt]) -> None:
        """Of an earlier life."""
        for each in alive:
            self.alive[each.key] = each
            self._by_owner.setdefault(each.owner, set()).add(each.key)

    def happened(self, owner: bytes, event: TaskEvent) -> None:
        """``owner``: the process that says so, which is that which runs it when it says more than the owner knows."""
        key = (event.task_id, event.attempt)
        known = self.alive.get(key)
        if known is None:
            if key in self._ended:
                return
            job_id = job_of(event.task_id)
            if event.kind == TaskKind.ACTOR_CREATION_TASK:
                job_id = job_of_actor(event.actor_id)
            known = Attempt(
                event.task_id,
                event.attempt,
                event.state,
                event.kind,
                event.function,
                event.name or event.function,
                job_id,
                event.parent,
                event.actor_id,
                owner,
            )
            self.alive[key] = known
            self._by_owner.setdefault(owner, set()).add(key)
        elif owner != event.worker_id and known.owner != owner:
            self._set_owner(known, owner)  # the worker has told first
        self._merge(known, event)
        if known.state >= TaskState.FINISHED:
            self._end(known)
        else:
            self._changed[key] = None
            while len(self.alive) > MAX_ALIVE:
                self._drop(next(iter(self.alive.values())))
                self.lost += 1

    def process(self, worker_id: bytes, node_id: bytes, pid: int) -> None:
        """It is there."""
        if worker_id not in self._processes:
            self._processes[worker_id] = Process(node_id, pid)
            while len(self._processes) > MAX_ENDED:
                self._processes.popitem(last=False)

    def process_ended(self, worker_id: bytes, at_ms: int, why: str) -> None:
        """What it had submitted has nobody any more."""
        process = self._processes.get(worker_id)
        if process is not None:
            process.ended = True
        orphaned = Failure("OWNER_DIED", "OwnerDiedError", f"The process that had submitted it has ended: {why}")
        unmade = Failure("ACTOR_DIED", "ActorDiedError", f"Its process has ended: {why}")
        for key in list(self._by_owner.get(worker_id, ())):
            attempt = self.alive[key]
            attempt.failure = unmade if attempt.kind == TaskKind.ACTOR_CREATION_TASK else orphaned
            attempt.state = TaskState.FAILED
            attempt.times[TaskState.FAILED] = at_ms
            self._end(attempt)

    def node_ended(self, node_id: bytes, at_ms: int, why: str) -> None:
        """And all its processes with it."""
        for worker_id, process in self._processes.items():
            if process.node_id == node_id and not process.ended:
                self.process_ended(worker_id, at_ms, why)

    def take(self) -> tuple[list[Attempt], list[Key], list[Attempt]]:
        """Since the last time: what has ended, which have changed or gone among the living, and these as they are."""
        ends, self._new_ends = self._new_ends, []
        keys, self._changed = list(self._changed), {}
        return ends, keys, [self.alive[key] for key in keys if key in self.alive]

    def _merge(self, known: Attempt, event: TaskEvent) -> None:
        exact = event.state == TaskState.RUNNING and event.started_ms > 0
        if event.state > known.state:
            known.state = event.state
        times = known.times
        if exact or not times[event.state]:
            times[event.state] = event.at_ms
        if event.started_ms and (exact or not times[TaskState.RUNNING]):
            times[TaskState.RUNNING] = event.started_ms
        known.submitted_ms = known.submitted_ms or event.submitted_ms
        known.parent = known.parent or event.parent
        known.actor_id = known.actor_id or event.actor_id
        if event.name:
            known.name = event.name
        if event.worker_id and (event.worker_id != known.worker_id or not known.pid):
            known.worker_id = event.worker_id
            process = self._processes.get(event.worker_id)
            known.pid = event.pid or (process.pid if process is not None else 0)
            known.node_id = event.node_id or (process.node_id if process is not None else b"")
        known.failure = known.failure or event.failure
        known.resources = known.resources or event.resources

    def _set_owner(self, attempt: Attempt, owner: bytes) -> None:
        self._forget_owner(attempt)
        attempt.owner = owner
        self._by_owner.setdefault(owner, set()).add(attempt.key)

    def _forget_owner(self, attempt: Attempt) -> None:
        owned = self._by_owner.get(attempt.owner)
        if owned is not None:
            owned.discard(attempt.key)
            if not owned:
                del self._by_owner[attempt.owner]

    def _drop(self, attempt: Attempt) -> None:
        del self.alive[attempt.key]
        self._changed[attempt.key] = None
        self._forget_owner(attempt)

    def _end(self, attempt: Attempt) -> None:
        self._drop(attempt)
        self._new_ends.append(attempt)
        self._ended[attempt.key] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def validate(self) -> None:
        """Asserts what must always hold; for tests."""
        assert len(self.alive) <= MAX_ALIVE and len(self._ended) <= MAX_ENDED
        owned = {key for keys in self._by_owner.values() for key in keys}
        assert owned == self.alive.keys()
        for key, attempt in self.alive.items():
            assert attempt.key == key and attempt.state < TaskState.FINISHED
            assert key in self._by_owner[attempt.owner]
