"""Watches the node's memory and has a worker killed before the kernel kills something at random."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from shoal_raylet.leases.memory_policy import Victim, WorkerMemory, choose_victim
from shoal_raylet.leases.worker_pool import WorkerPool, WorkerState
from shoal_raylet.workers.node_memory import read_node_memory, read_private_bytes

log = structlog.get_logger(__name__)

INTERVAL_S = 0.25


class MemoryMonitor:
    def __init__(self, pool: WorkerPool, threshold: float) -> None:
        """``threshold``: a share of the node's memory; 1 or more switches the monitor off."""
        self._pool = pool
        self._threshold = threshold
        self._baselines: dict[bytes, int] = {}
        self._killed: bytes | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, kill: Callable[[Victim], None]) -> None:
        self._kill = kill
        if self._threshold < 1:
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

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            # One at a time: its memory must be seen to come back before another is judged.
            if self._killed is None:
                self._check()

    def _check(self) -> None:
        node = read_node_memory()
        if node.used <= self._threshold * node.limit:
            return
        workers = [
            WorkerMemory(
                worker.worker_id,
                worker.name,
                read_private_bytes(worker.pid),
                self._baselines.get(worker.worker_id, 0),
                worker.state is not WorkerState.ACTOR,
            )
            for worker in self._pool.workers.values()
            if worker.pid and worker.state is not WorkerState.ENDING
        ]
        victim = choose_victim(node, self._threshold, workers)
        if victim is not None:
            log.warning("worker_killed_for_memory", worker_id=victim.worker_id.hex(), detail=victim.detail)
            self._killed = victim.worker_id
            self._kill(victim)
