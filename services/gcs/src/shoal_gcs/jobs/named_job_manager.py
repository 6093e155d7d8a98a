"""Carries out what the table of named jobs decides: rows, and the ends of names, by time too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from shoal_common.ids import JobID
from shoal_gcs.jobs import messages
from shoal_gcs.jobs.named_jobs import JobName, NamedJob, NamedJobTable
from shoal_gcs.store.rows import Rows, message, written
from shoal_proto.v1 import gcs_pb2 as pb

#: A timer is not set for later than so many seconds: it looks again then.
_LONGEST_TIMER_S = 3600.0

_log = structlog.get_logger()


class NamedJobManager:
    """Belongs to one event loop. All methods that wait raise: Unavailable (the store does not take it)."""

    def __init__(
        self, *, table: NamedJobTable, rows: Rows, on_over: Callable[[JobName], list[asyncio.Future[None]]]
    ) -> None:
        """``on_over``: a name is over; returns the writes after which it may be forgotten."""
        self._table = table
        self._rows = rows
        self._on_over = on_over
        self._timer: asyncio.TimerHandle | None = None

    async def load(self) -> None:
        infos = await self._rows.load(message(pb.NamedJobInfo, messages.named_job_row_id))
        self._table.load(map(messages.named_job_of_row, infos))

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def check(self, name: JobName, job_id: JobID, *, attach: bool) -> None:
        """As the table's. Raises: AlreadyExists."""
        self.end_those_over()
        self._table.check(name, job_id, attach=attach)

    def hold(self, name: JobName, job_id: JobID, driver: str, keep_ms: int) -> tuple[NamedJob, asyncio.Future[None]]:
        """As the table's; with the write that an answer must wait for."""
        held = self._table.hold(name, job_id, driver, keep_ms)
        self._set_timer()
        return held, self._save(held)

    async def complete(self, job_id: bytes) -> None:
        """As ``completed`` of the table; nothing for a job without a name."""
        held = self._table.completed(job_id)
        if held is not None:
            await written([self._save(held)])

    def job_ended(self, job_id: bytes) -> list[asyncio.Future[None]]:
        """Returns the writes that an answer must wait for."""
        held = self._table.left(job_id, _unix_ms())
        if held is None:
            return []
        _log.info("named_job_away", name=held.name.name, namespace=held.name.namespace, complete=held.complete)
        return [self._save(held), *self.end_those_over()]

    def end_those_over(self) -> list[asyncio.Future[None]]:
        """Returns the writes that an answer must wait for."""
        saves: list[asyncio.Future[None]] = []
        for each in self._table.over(_unix_ms()):
            _log.info("named_job_over", name=each.name.name, namespace=each.name.namespace)
            saves += self._on_over(each.name)
            saves.append(self._rows.delete(messages.named_job_row_id(messages.named_job_info(each))))
        self._set_timer()
        return saves

    def end_orphans(self, is_running: Callable[[bytes], bool]) -> None:
        """After all is loaded: the ends of jobs that an earlier GCS did not carry on to their names."""
        for each in list(self._table.all()):
            if not is_running(each.job_id):
                self.job_ended(each.job_id)
        self.end_those_over()

    def holders(self) -> list[JobID]:
        """The job that holds each name, or was the last to."""
        return [each.job_id for each in self._table.all()]

    def kept_until_unix_ms(self, job_id: bytes) -> int:
        """Until when the name is kept that this job has left; 0 = it has left none."""
        held = self._table.of_job(job_id)
        return (held.end_unix_ms or 0) if held is not None else 0

    def _save(self, each: NamedJob) -> asyncio.Future[None]:
        info = messages.named_job_info(each)
        return self._rows.put(messages.named_job_row_id(info), info.SerializeToString())

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        end = self._table.next_end_unix_ms()
        if end is not None:
            delay_s = min(max(0.0, (end - _unix_ms()) / 1000), _LONGEST_TIMER_S)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.end_those_over)


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000
