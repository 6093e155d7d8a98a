"""Begins and ends jobs: their rows and events, and the names that they hold. What ends with a job is in ``endings``."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping

import structlog

from shoal_common.bus import subjects
from shoal_common.errors import InvalidRequest, PreconditionFailed
from shoal_common.ids import WORKER_LENGTH
from shoal_gcs.actors.table import ActorTable
from shoal_gcs.config import GcsConfig
from shoal_gcs.events import EventPublisher
from shoal_gcs.jobs import messages
from shoal_gcs.jobs.named_job_manager import NamedJobManager
from shoal_gcs.jobs.named_jobs import JobName
from shoal_gcs.jobs.quota_manager import QuotaManager
from shoal_gcs.jobs.table import Job, JobTable
from shoal_gcs.store.rows import Rows, message, written
from shoal_proto.v1 import events_pb2, gcs_pb2

#: What a driver may tell about its job, in characters.
MAX_DESCRIPTION_BYTES = 100_000

MAX_NAME_BYTES = 512

_log = structlog.get_logger()


class JobManager:
    def __init__(
        self,
        config: GcsConfig,
        *,
        table: JobTable,
        rows: Rows,
        quotas: QuotaManager,
        names: NamedJobManager,
        actors: ActorTable,
        publisher: EventPublisher,
    ) -> None:
        self._cluster_id = config.cluster_id
        self._table = table
        self._rows = rows
        self._quotas = quotas
        self._names = names
        self._actors = actors
        self._publisher = publisher

    async def load(self) -> None:
        """Before the actors, which look up their jobs."""
        infos = await self._rows.load(message(gcs_pb2.JobInfo, lambda info: info.job_id.hex()))
        self._table.load(map(messages.job_of_row, infos), self._rows.unreadable)
        await self._quotas.load(self._table.all())
        await self._names.load()
        for job_id in self._names.holders():
            self._quotas.goes_on(job_id, self._table.earlier_of_name(job_id))

    async def start(
        self,
        driver_id: bytes,
        namespace: str,
        pid: int,
        entrypoint: str,
        metadata: Mapping[str, str],
        node_id: bytes = b"",
        quota: Mapping[str, int] | None = None,
    ) -> Job:
        """Raises: InvalidRequest, Unavailable."""
        if len(driver_id) != WORKER_LENGTH:
            raise InvalidRequest(f"a driver id has {WORKER_LENGTH} bytes, this one has {len(driver_id)}")
        described = len(entrypoint) + sum(len(key) + len(value) for key, value in metadata.items())
        if described > MAX_DESCRIPTION_BYTES:
            raise InvalidRequest(
                f"entrypoint and metadata of the job have {described} characters, more than {MAX_DESCRIPTION_BYTES}"
            )
        anonymous = not namespace
        namespace = namespace or str(uuid.uuid4())
        job = self._table.start(driver_id, namespace, pid, entrypoint, metadata, _unix_ms(), node_id, anonymous, quota)
        self._quotas.begin(job)
        await written([self._save(job)])
        return job

    async def hold_name(self, job_id: bytes, name: str, host: str, keep_ms: int, *, attach: bool) -> int:
        """The job holds this name, in its namespace, from now on: which driver of the name it is, from 1. ``attach``:
        it may go on with what is kept there. ``keep_ms``: so long it is kept when its driver has gone. Idempotent.

        Raises: InvalidRequest, PreconditionFailed (the job has ended, or has another name), AlreadyExists (see
        ``NamedJobTable.check``), Unavailable.
        """
        if not 1 <= len(name.encode()) <= MAX_NAME_BYTES:
            raise InvalidRequest(f"the name of a job has 1 to {MAX_NAME_BYTES} bytes as UTF-8")
        if not self._table.is_running(job_id):
            raise PreconditionFailed(f"job {job_id.hex()} has ended")
        job = self._table[job_id]
        if job.name not in ("", name):
            raise PreconditionFailed(f"job {job_id.hex()} has the name {job.name!r} already")
        in_namespace = JobName(job.namespace, name)
        self._names.check(in_namespace, job.job_id, attach=attach)
        job.name = name
        driver = f"process {job.pid} on {host or 'an unknown host'}"
        named, saved = self._names.hold(in_namespace, job.job_id, driver, keep_ms)
        self._quotas.goes_on(job_id, self._table.earlier_of_name(job_id))
        await written([self._save(job), saved])
        return named.generation

    def ended(self, job_id: bytes, failure: str) -> list[asyncio.Future[None]]:
        """``failure``: of its driver; empty = none. Idempotent, for a known job. Returns the writes that an
        answer must wait for."""
        if not self._table.finish(job_id, _unix_ms(), failure):
            return [self._rows.settled(job_id.hex())]
        _log.info("job_finished", job_id=job_id.hex(), failure=failure)
        saves = [self._save(self._table[job_id]), *self._names.job_ended(job_id)]
        for forgotten in self._table.forget_excess(lambda i: bool(self._actors.living_of_job(i))):
            self._rows.delete(forgotten.job_id.hex())
        return saves

    def list_jobs(self) -> list[gcs_pb2.JobInfo]:
        """In the order they began."""
        infos = [messages.job_info(job) for job in self._table.all()]
        for info in infos:
            if info.name:
                info.kept_until_unix_ms = self._names.kept_until_unix_ms(info.job_id)
        return infos

    def _save(self, job: Job) -> asyncio.Future[None]:
        info = messages.job_info(job)

        def publish() -> None:
            event = events_pb2.JobEvent(job=info).SerializeToString()
            self._publisher.publish(subjects.job(self._cluster_id, job.job_id), event)

        return self._rows.put(job.job_id.hex(), info.SerializeToString(), publish)


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000
