"""Ends worker processes, and knows why each one has ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from shoal_common.kinds import ExitKind
from shoal_raylet.leases.exit_reason import ExitReason, exit_reason
from shoal_raylet.leases.worker_pool import Worker, WorkerPool
from shoal_raylet.workers.processes import WorkerProcesses


@dataclass(frozen=True, slots=True)
class EndedWorker:
    """``worker`` as it was."""

    worker: Worker
    reason: ExitReason


class WorkerEnds:
    """Belongs to one event loop."""

    def __init__(self, pool: WorkerPool, processes: WorkerProcesses) -> None:
        self._pool = pool
        self._processes = processes
        self._loop = asyncio.get_running_loop()
        #: What workers and drivers have said before they leave.
        self._announced: dict[bytes, ExitReason] = {}
        #: Why we end them.
        self._causes: dict[bytes, ExitReason] = {}

    def announced(self, worker_id: bytes, reason: ExitReason) -> None:
        self._announced[worker_id] = reason

    def driver_left(self, worker_id: bytes) -> str:
        """What went wrong with it; empty = it has ended its session as it should."""
        said = self._announced.pop(worker_id, None)
        if said is None:
            return "its process has ended, or was killed, without shoal.shutdown()"
        return "" if said.kind is ExitKind.INTENDED_USER_EXIT else said.detail

    def expect(self, worker_id: bytes, reason: ExitReason) -> None:
        """It is to end, and has been told. The first reason counts."""
        self._causes.setdefault(worker_id, reason)

    def kill(self, worker_id: bytes, reason: ExitReason) -> None:
        """SIGKILL, for the first of the reasons. Idempotent."""
        if worker_id not in self._pool.workers:
            return
        self.expect(worker_id, reason)
        self._pool.ending(worker_id, self._loop.time())
        self._processes.kill(worker_id)

    def disconnected(self, worker_id: bytes) -> None:
        """Its end is told when the process is reaped and the reason is known; a process that lingers is killed."""
        self._pool.ending(worker_id, self._loop.time())
        self._loop.call_later(self._processes.exit_grace_s(worker_id), self._kill_lingering, worker_id)

    def ended(self, worker_id: bytes, exit_code: int | None) -> EndedWorker | None:
        """Its process has ended: it is forgotten here and in the pool. None = it was not known."""
        worker = self._pool.gone(worker_id)
        reason = exit_reason(exit_code, self._announced.pop(worker_id, None), self._causes.pop(worker_id, None))
        return EndedWorker(worker, reason) if worker is not None else None

    def _kill_lingering(self, worker_id: bytes) -> None:
        silent = ExitReason(ExitKind.SYSTEM_ERROR, "it closed its connection to the node and did not exit")
        self.kill(worker_id, self._announced.get(worker_id, silent))
