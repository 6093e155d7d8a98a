"""The node's worker processes as the scheduler sees them: who is starting, idle, leased or an actor. Pure.

A worker is in one runtime environment from its start on, and belongs to one job from its first use on: functions,
modules and ``sys.path`` of one job must not meet another's. Neither does one run with other GPUs than it had first, or
without: CUDA keeps what it saw then, and what is left in the process (a context, memory of a GPU) must not be there
for the next. A worker with a limit of memory runs only what has the same, so that nobody pays for what another has
left there. Before that it is *fresh*. Some fresh workers without a runtime environment are kept ready, so that the
first task of a job and an actor need not wait for a process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from shoal_common.channel import frames
from shoal_common.kinds import ExitKind
from shoal_common.placement.runtime_env import key as environment_key
from shoal_common.service.story import Story, explained, noted
from shoal_raylet.actions import Action, AskWorkerToExit, KillWorker, ManyWorkers, StartWorker, WorkersUnstartable
from shoal_raylet.leases.environments import Environments

#: Processes that may be starting at the same time; more would only slow each other down.
MAX_STARTING = 16
#: An idle worker beyond the soft limit is asked to exit after this long, in seconds.
IDLE_EXIT_S = 1.0
#: So many workers are worth a warning, and twice as many another one: for each CPU, and in all.
MANY_PER_CPU = 16
MANY = 64
#: Failed starts in a row after which whoever waits for a worker is told.
MAX_START_FAILURES = 4
_FIRST_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 5.0


#: Job, key of the runtime environment, ids of the GPUs, limit of memory.
_Use = tuple[bytes, str, tuple[str, ...], int]


class WorkerState(Enum):
    STARTING = "starting"
    IDLE = "idle"
    LEASED = "leased"
    ACTOR = "actor"
    #: Asked to exit while idle, and not used again; it may stay while others need what it owns.
    RETIRING = "retiring"
    #: Killed, or its connection ended: only its process's end is awaited.
    ENDING = "ending"


@dataclass(slots=True, eq=False)
class Worker:
    worker_id: bytes
    state: WorkerState
    #: When it entered its state.
    since: float
    pid: int = 0
    address: frames.WorkerAddress | None = None
    job_id: bytes = b""
    #: Key of its runtime environment.
    environment: str = ""
    #: The files of that are gone: it finishes what it has, and is not used again.
    outlived: bool = False
    #: Ids of those that what it runs is granted.
    gpus: tuple[str, ...] = ()
    #: How much it may grow while it is at work, in bytes; 0 = nobody said.
    memory_limit: int = 0
    #: What it runs may run again.
    retriable: bool = False
    #: Name of the scheduling class or actor class it runs or ran last.
    name: str = ""
    actor_id: bytes = b""
    incarnation: int = 0


@dataclass(slots=True)
class _Starts:
    """How starting processes of one environment goes."""

    failures: int = 0
    failed_at: float = -math.inf
    not_before: float = 0.0


class WorkerPool:
    def __init__(
        self, soft_limit: int, fresh_target: int, startup_timeout_s: float, new_worker_id: Callable[[], bytes]
    ) -> None:
        """``soft_limit``: idle workers of jobs that are kept. ``fresh_target``: fresh workers kept ready."""
        self._story = Story("the worker pool")
        self._soft_limit = soft_limit
        self._fresh_target = fresh_target
        self._startup_timeout_s = startup_timeout_s
        self._new_worker_id = new_worker_id
        #: Every process that may be alive.
        self.workers: dict[bytes, Worker] = {}
        self._environments = Environments()
        #: Idle workers without a job, by the key of their environment, the one that waits longest first.
        self._fresh: dict[str, dict[bytes, Worker]] = {"": {}}
        #: Idle workers by what they may be used for, the one used last at the end.
        self._idle: dict[_Use, dict[bytes, Worker]] = {}
        self._starting: dict[bytes, Worker] = {}
        #: How many are told as many next.
        self._warn_at = max(MANY, MANY_PER_CPU * soft_limit)
        self._starts = {"": _Starts()}
        #: Idle workers that outlived their environment, until they are asked to exit.
        self._outlived: list[bytes] = []

    # --- events ---

    @noted
    def registered(self, worker_id: bytes, pid: int, address: frames.WorkerAddress | None, now: float) -> None:
        worker = self._starting.pop(worker_id)
        worker.pid, worker.address = pid, address
        self._starts[worker.environment] = _Starts()
        self._set_idle(worker, now)

    @noted
    def environment_coming(self, document: str) -> list[Action]:
        """Workers in it will be wanted soon."""
        key = environment_key(document)
        return [] if self._environments.is_ready(key) else self._environments.wanted(key, document)

    @noted
    def environment_prepared(self, key: str) -> None:
        self._environments.prepared(key)

    @noted
    def environment_failed(self, key: str) -> None:
        self._environments.failed(key)

    @noted
    def environment_vanished(self, key: str, now: float) -> list[Action]:
        """Somebody has removed its files. It is made again when it is wanted, for other workers: those in it have no
        current directory any more, and cannot import what they have not yet."""
        released: list[Action] = [*self._environments.vanished(key)]
        if released:
            for worker in self.workers.values():
                if worker.environment == key:
                    worker.outlived = True
                    if worker.state is WorkerState.IDLE:
                        self._remove_idle(worker)
                        self._set_idle(worker, now)
        return released

    @noted
    def take(
        self,
        job_id: bytes,
        runtime_env: str,
        gpus: tuple[str, ...],
        state: WorkerState,
        now: float,
        memory_limit: int = 0,
    ) -> Worker | None:
        """A worker for a task (``LEASED``) or an actor (``ACTOR``); it leaves the idle ones. ``runtime_env``: the
        document.

        A task prefers the worker used last, whose caches are warm; an actor prefers a fresh process, because
        an idle one may own objects, which would end with the actor.
        """
        environment = environment_key(runtime_env)
        own = self._idle.get((job_id, environment, gpus, memory_limit))
        fresh = self._fresh.get(environment)
        if own and (state is WorkerState.LEASED or not fresh):
            worker = own[next(reversed(own))]
        elif fresh:
            worker = next(iter(fresh.values()))
        else:
            return None
        self._remove_idle(worker)
        worker.job_id, worker.gpus, worker.memory_limit = job_id, gpus, memory_limit
        worker.retriable = False
        worker.state, worker.since = state, now
        return worker

    @noted
    def put_back(self, worker_id: bytes, now: float) -> None:
        """A worker lease ended and its worker is well."""
        worker = self.workers.get(worker_id)
        if worker is not None and worker.state is WorkerState.LEASED:
            self._set_idle(worker, now)

    @noted
    def ending(self, worker_id: bytes, now: float) -> None:
        """It was killed, or its connection ended; it is not used again. Idempotent."""
        worker = self.workers.get(worker_id)
        if worker is None or worker.state is WorkerState.ENDING:
            return
        self._remove_idle(worker)
        self._starting.pop(worker_id, None)
        worker.state, worker.since = WorkerState.ENDING, now

    @noted
    def gone(self, worker_id: bytes) -> Worker | None:
        """Its process ended. Answers the worker as it was, None if it is not known."""
        worker = self.workers.pop(worker_id, None)
        if worker is not None:
            self._remove_idle(worker)
            self._starting.pop(worker_id, None)
        return worker

    @noted
    def start_failed(self, worker: Worker, reason: str, now: float) -> list[Action]:
        """Its process ended before it registered."""
        starts = self._starts.setdefault(worker.environment, _Starts())
        # Those that were under way together have failed together, as when the template dies that was to fork them.
        if worker.since <= starts.failed_at:
            return []
        starts.failed_at = now
        starts.failures += 1
        starts.not_before = now + min(_FIRST_BACKOFF_S * 2 ** (starts.failures - 1), _MAX_BACKOFF_S)
        if starts.failures < MAX_START_FAILURES:
            return []
        starts.failures = 0
        starts.not_before = now + _MAX_BACKOFF_S
        return [WorkersUnstartable(reason, worker.environment)]

    # --- decisions ---

    @explained
    def balance(self, wanted: Mapping[str, int], now: float) -> list[Action]:
        """Start what is missing, end what is too much or too slow. ``wanted``: takes that found no worker, by the
        document of the runtime environment."""
        actions: list[Action] = []
        for worker in list(self._starting.values()):
            if now - worker.since >= self._startup_timeout_s:
                self.ending(worker.worker_id, now)
                detail = f"the worker process did not register within {self._startup_timeout_s:g} s"
                actions.append(KillWorker(worker.worker_id, ExitKind.SYSTEM_ERROR, detail))
        needed = self._needed(wanted)
        for document, count in needed.items():
            actions += self._start(document, count, now)
        if len(self.workers) >= self._warn_at:
            actors = sum(worker.state is WorkerState.ACTOR for worker in self.workers.values())
            actions.append(ManyWorkers(len(self.workers), actors))
            self._warn_at = 2 * len(self.workers)
        gone = "the files of its environment are gone"
        actions += [AskWorkerToExit(worker_id, gone) for worker_id in self._outlived if worker_id in self.workers]
        self._outlived.clear()
        for worker in self._surplus(wanted):
            if now - worker.since >= IDLE_EXIT_S:
                self._remove_idle(worker)
                worker.state, worker.since = WorkerState.RETIRING, now
                actions.append(AskWorkerToExit(worker.worker_id, "idle"))
        if self._environments:
            used = {worker.environment for worker in self.workers.values()} | set(map(environment_key, needed))
            for released in self._environments.let_go(used, now):
                self._starts.pop(released.key, None)
                actions.append(released)
        return actions

    def _needed(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """How many fresh workers there should be, by document; one document stands for all of the same key."""
        needed = {"": self._fresh_target}
        if not wanted:
            return needed
        first: dict[str, str] = {"": ""}
        for document, count in wanted.items():
            same = first.setdefault(environment_key(document), document)
            needed[same] = needed.get(same, 0) + count
        return needed

    def _start(self, document: str, count: int, now: float) -> list[Action]:
        key = environment_key(document)
        missing = self._missing(key, count)
        if missing <= 0:
            return []
        if not self._environments.is_ready(key):
            return self._environments.wanted(key, document)
        if key in self._starts and now < self._starts[key].not_before:
            return []
        actions: list[Action] = []
        for _ in range(min(missing, MAX_STARTING - len(self._starting))):
            worker = Worker(self._new_worker_id(), WorkerState.STARTING, now, environment=key)
            self.workers[worker.worker_id] = self._starting[worker.worker_id] = worker
            actions.append(StartWorker(worker.worker_id, key))
        return actions

    def _missing(self, key: str, count: int) -> int:
        starting = sum(worker.environment == key and not worker.outlived for worker in self._starting.values())
        return count - len(self._fresh.get(key, ())) - starting

    def next_deadline(self, wanted: Mapping[str, int]) -> float | None:
        """When ``balance`` has something to do if nothing happens before."""
        deadlines = [worker.since + self._startup_timeout_s for worker in self._starting.values()]
        deadlines += [worker.since + IDLE_EXIT_S for worker in self._surplus(wanted)]
        for document, count in self._needed(wanted).items():
            starts = self._starts.get(environment_key(document))
            if starts is not None and starts.not_before and self._missing(environment_key(document), count) > 0:
                deadlines.append(starts.not_before)
        if (released := self._environments.next_deadline()) is not None:
            deadlines.append(released)
        return min(deadlines, default=None)

    def of_job(self, job_id: bytes) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.job_id == job_id]

    def _surplus(self, wanted: Mapping[str, int]) -> list[Worker]:
        """Idle workers beyond the limits, those that wait longest first. Where an environment is being made, nobody
        gets a worker sooner by their staying."""
        if any(count and self._environments.is_ready(environment_key(each)) for each, count in wanted.items()):
            return []
        idle = [worker for group in self._idle.values() for worker in group.values()]
        idle.sort(key=lambda worker: worker.since)
        surplus = idle[: max(0, len(idle) - self._soft_limit)]
        for key, group in self._fresh.items():
            surplus += list(group.values())[: max(0, len(group) - (0 if key else self._soft_limit))]
        return surplus

    def _set_idle(self, worker: Worker, now: float) -> None:
        worker.state, worker.since = WorkerState.IDLE, now
        if worker.outlived:
            worker.state = WorkerState.RETIRING
            self._outlived.append(worker.worker_id)
        elif worker.job_id:
            self._idle.setdefault(_use(worker), {})[worker.worker_id] = worker
        else:
            self._fresh.setdefault(worker.environment, {})[worker.worker_id] = worker

    def _remove_idle(self, worker: Worker) -> None:
        fresh = self._fresh.get(worker.environment)
        if fresh is not None:
            fresh.pop(worker.worker_id, None)
            if not fresh and worker.environment:
                del self._fresh[worker.environment]
        key = _use(worker)
        group = self._idle.get(key)
        if group is not None:
            group.pop(worker.worker_id, None)
            if not group:
                del self._idle[key]

    # --- for tests ---

    def validate(self) -> None:
        fresh = {worker_id: worker for group in self._fresh.values() for worker_id, worker in group.items()}
        idle = {worker_id for group in self._idle.values() for worker_id in group} | fresh.keys()
        by_state = {state: {i for i, worker in self.workers.items() if worker.state is state} for state in WorkerState}
        assert self._starting.keys() == by_state[WorkerState.STARTING]
        assert idle == by_state[WorkerState.IDLE], "idle workers, and those that can be taken"
        for worker_id, worker in self.workers.items():
            assert worker.worker_id == worker_id
        for use, group in self._idle.items():
            assert group, "an empty group is forgotten"
            assert all(_use(worker) == use for worker in group.values())
        assert all(not worker.job_id for worker in fresh.values()), "a fresh worker has seen no job"
        for key, group in self._fresh.items():
            assert group or not key, "an empty group is forgotten"
            assert all(worker.environment == key for worker in group.values())
        assert len(self._starting) <= MAX_STARTING


def _use(worker: Worker) -> _Use:
    """What it may be used for again."""
    return worker.job_id, worker.environment, worker.gpus, worker.memory_limit
