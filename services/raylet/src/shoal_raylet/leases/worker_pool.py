"""The node's worker processes as the scheduler sees them: who is starting, idle, leased or an actor. Pure.

A worker belongs to one job and one runtime environment from its first use on: functions, modules and
``sys.path`` of one job must not meet another's. Neither does one that ran with GPUs run anything without, or the other
way: what is left in the process (a CUDA context, memory of a GPU) must not be there for the next. A worker with a
limit of memory runs only what has the same, so that nobody pays for what another has left there. Before that it is
*fresh*. Some fresh workers are kept
ready, so that the first task of a job and an actor need not wait for a process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from shoal_common.channel import frames
from shoal_common.kinds import ExitKind
from shoal_common.service.story import Story, explained, noted
from shoal_raylet.actions import Action, AskWorkerToExit, KillWorker, ManyWorkers, StartWorker, WorkersUnstartable

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


#: Job, runtime environment, whether with GPUs, limit of memory.
_Use = tuple[bytes, str, bool, int]


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
    runtime_env: str = ""
    #: What it runs is granted some.
    gpus: bool = False
    #: How much it may grow while it is at work, in bytes; 0 = nobody said.
    memory_limit: int = 0
    #: What it runs may run again.
    retriable: bool = False
    #: Name of the scheduling class or actor class it runs or ran last.
    name: str = ""
    actor_id: bytes = b""
    incarnation: int = 0


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
        #: Idle workers without a job, the one that waits longest first.
        self._fresh: dict[bytes, Worker] = {}
        #: Idle workers by what they may be used for, the one used last at the end.
        self._idle: dict[_Use, dict[bytes, Worker]] = {}
        self._starting: dict[bytes, Worker] = {}
        #: How many are told as many next.
        self._warn_at = max(MANY, MANY_PER_CPU * soft_limit)
        self._failures = 0
        self._failed_at = -math.inf
        self._start_not_before = 0.0

    # --- events ---

    @noted
    def registered(self, worker_id: bytes, pid: int, address: frames.WorkerAddress | None, now: float) -> None:
        worker = self._starting.pop(worker_id)
        worker.pid, worker.address = pid, address
        self._failures = 0
        self._start_not_before = 0.0
        self._set_idle(worker, now)

    @noted
    def take(
        self, job_id: bytes, runtime_env: str, gpus: bool, state: WorkerState, now: float, memory_limit: int = 0
    ) -> Worker | None:
        """A worker for a task (``LEASED``) or an actor (``ACTOR``); it leaves the idle ones.

        A task prefers the worker used last, whose caches are warm; an actor prefers a fresh process, because
        an idle one may own objects, which would end with the actor.
        """
        own = self._idle.get((job_id, runtime_env, gpus, memory_limit))
        if own and (state is WorkerState.LEASED or not self._fresh):
            worker = own[next(reversed(own))]
        elif self._fresh:
            worker = next(iter(self._fresh.values()))
        else:
            return None
        self._remove_idle(worker)
        worker.job_id, worker.runtime_env, worker.gpus, worker.memory_limit = job_id, runtime_env, gpus, memory_limit
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
        # Those that were under way together have failed together, as when the template dies that was to fork them.
        if worker.since <= self._failed_at:
            return []
        self._failed_at = now
        self._failures += 1
        self._start_not_before = now + min(_FIRST_BACKOFF_S * 2 ** (self._failures - 1), _MAX_BACKOFF_S)
        if self._failures < MAX_START_FAILURES:
            return []
        self._failures = 0
        self._start_not_before = now + _MAX_BACKOFF_S
        return [WorkersUnstartable(reason)]

    # --- decisions ---

    @explained
    def balance(self, wanted: int, now: float) -> list[Action]:
        """Start what is missing (``wanted`` takes found no worker), end what is too much or too slow."""
        actions: list[Action] = []
        for worker in list(self._starting.values()):
            if now - worker.since >= self._startup_timeout_s:
                self.ending(worker.worker_id, now)
                detail = f"the worker process did not register within {self._startup_timeout_s:g} s"
                actions.append(KillWorker(worker.worker_id, ExitKind.SYSTEM_ERROR, detail))
        if now >= self._start_not_before:
            missing = wanted + self._fresh_target - len(self._fresh) - len(self._starting)
            for _ in range(min(missing, MAX_STARTING - len(self._starting))):
                worker = Worker(self._new_worker_id(), WorkerState.STARTING, now)
                self.workers[worker.worker_id] = self._starting[worker.worker_id] = worker
                actions.append(StartWorker(worker.worker_id))
        if len(self.workers) >= self._warn_at:
            actors = sum(worker.state is WorkerState.ACTOR for worker in self.workers.values())
            actions.append(ManyWorkers(len(self.workers), actors))
            self._warn_at = 2 * len(self.workers)
        for worker in self._surplus(wanted):
            if now - worker.since >= IDLE_EXIT_S:
                self._remove_idle(worker)
                worker.state, worker.since = WorkerState.RETIRING, now
                actions.append(AskWorkerToExit(worker.worker_id, "idle"))
        return actions

    def next_deadline(self, wanted: int) -> float | None:
        """When ``balance`` has something to do if nothing happens before."""
        deadlines = [worker.since + self._startup_timeout_s for worker in self._starting.values()]
        deadlines += [worker.since + IDLE_EXIT_S for worker in self._surplus(wanted)]
        if wanted + self._fresh_target > len(self._fresh) + len(self._starting) and self._start_not_before:
            deadlines.append(self._start_not_before)
        return min(deadlines, default=None)

    def of_job(self, job_id: bytes) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.job_id == job_id]

    def _surplus(self, wanted: int) -> list[Worker]:
        """Idle workers beyond the limits, those that wait longest first."""
        if wanted:
            return []
        idle = [worker for group in self._idle.values() for worker in group.values()]
        idle.sort(key=lambda worker: worker.since)
        fresh = list(self._fresh.values())
        return idle[: max(0, len(idle) - self._soft_limit)] + fresh[: max(0, len(fresh) - self._soft_limit)]

    def _set_idle(self, worker: Worker, now: float) -> None:
        worker.state, worker.since = WorkerState.IDLE, now
        if worker.job_id:
            self._idle.setdefault(_use(worker), {})[worker.worker_id] = worker
        else:
            self._fresh[worker.worker_id] = worker

    def _remove_idle(self, worker: Worker) -> None:
        self._fresh.pop(worker.worker_id, None)
        key = _use(worker)
        group = self._idle.get(key)
        if group is not None:
            group.pop(worker.worker_id, None)
            if not group:
                del self._idle[key]

    # --- for tests ---

    def validate(self) -> None:
        idle = {worker_id for group in self._idle.values() for worker_id in group} | self._fresh.keys()
        by_state = {state: {i for i, worker in self.workers.items() if worker.state is state} for state in WorkerState}
        assert self._starting.keys() == by_state[WorkerState.STARTING]
        assert idle == by_state[WorkerState.IDLE], "idle workers, and those that can be taken"
        for worker_id, worker in self.workers.items():
            assert worker.worker_id == worker_id
        for use, group in self._idle.items():
            assert group, "an empty group is forgotten"
            assert all(_use(worker) == use for worker in group.values())
        assert all(not worker.job_id for worker in self._fresh.values()), "a fresh worker has seen no job"
        assert len(self._starting) <= MAX_STARTING


def _use(worker: Worker) -> _Use:
    """What it may be used for again."""
    return worker.job_id, worker.runtime_env, worker.gpus, worker.memory_limit
