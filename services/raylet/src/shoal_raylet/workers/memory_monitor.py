"""Watches the node's memory, and that of workers with a limit, and has workers killed before the kernel kills something
at random."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from shoal_raylet.leases.memory_policy import Victim, WorkerMemory, choose_victim, over_limit
from shoal_raylet.leases.worker_pool import Worker, WorkerPool, WorkerState
from shoal_raylet.workers.node_memory import (
    largest_processes,
    read_family_bytes,
    read_node_memory,
    read_private_bytes,
)

log = structlog.get_logger(__name__)

#: Between two looks at the node, and at the workers that have a limit, in seconds.
INTERVAL_S = 0.25
LIMITS_INTERVAL_S = 0.05
#: So many of the node's largest processes are named.
_NAMED = 3
_IN_USE = (WorkerState.LEASED, WorkerState.ACTOR)


class MemoryMonitor:
    def __init__(self, pool: WorkerPool, threshold: float) -> None:
        """``threshold``: a share of the node's memory; 1 or more: only limits of workers are watched."""
        self._pool = pool
        self._threshold = threshold
        self._baselines: dict[bytes, int] = {}
        self._killed: bytes | None = None
        self._look_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self, kill: Callable[[Victim], None]) -> None:
        self._kill = kill
        self._task = asyncio.create_task(self._run(), name="memory monitor")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def registered(self, worker_id: bytes, pid: int) -> None:
        """What it uses now is not its work's fault."""
        self._baselines[worker_id] = read_private_bytes(pid)

    def gone(self, worker_id: bytes) -> None:
        self._baselines.pop(worker_id, None)
        if self._killed == worker_id:
            self._killed = None
            self._look_at = asyncio.get_running_loop().time() + INTERVAL_S

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            limited = any(worker.memory_limit for worker in self._pool.workers.values())
            await asyncio.sleep(LIMITS_INTERVAL_S if limited else INTERVAL_S)
            if limited:
                self._check_limits()
            # One at a time: its memory must be seen to come back before another is judged.
            if self._threshold < 1 and self._killed is None and now() >= self._look_at:
                self._check_node()
                self._look_at = now() + INTERVAL_S - LIMITS_INTERVAL_S / 2

    def _check_limits(self) -> None:
        for victim in over_limit(self._workers(limited=True)):
            self._end(victim)

    def _check_node(self) -> None:
        node = read_node_memory()
        if node.used <= self._threshold * node.limit:
            return
        victim = choose_victim(node, self._threshold, self._workers(limited=False), largest_processes(_NAMED))
        if victim is not None:
            self._killed = victim.worker_id
            self._end(victim)

    def _end(self, victim: Victim) -> None:
        log.warning("worker_killed_for_memory", worker_id=victim.worker_id.hex(), detail=victim.detail)
        self._kill(victim)

    def _workers(self, *, limited: bool) -> list[WorkerMemory]:
        """``limited``: only those at work that have a limit."""
        return [
            self._memory_of(worker, limited)
            for worker in self._pool.workers.values()
            if worker.pid
            and worker.state is not WorkerState.ENDING
            and (not limited or (worker.memory_limit and worker.state in _IN_USE))
        ]

    def _memory_of(self, worker: Worker, limited: bool) -> WorkerMemory:
        baseline = self._baselines.get(worker.worker_id, 0)
        return WorkerMemory(
            worker.worker_id,
            worker.job_id,
            # A limit is for all that the task does, also by processes that it starts.
            read_family_bytes(worker.pid, baseline + worker.memory_limit)
            if limited
            else read_private_bytes(worker.pid),
            baseline,
            worker.since,
            worker.retriable,
            worker.memory_limit,
        )
