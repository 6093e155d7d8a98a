"""Begins and ends jobs: rows, events, and what else must end with a job."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from functools import partial

import structlog

from shoal_common.bus import subjects
from shoal_common.errors import InvalidRequest
from shoal_common.ids import WORKER_LENGTH, JobID
from shoal_common.metadata import MetadataStoreError
from shoal_common.service.background import Background
from shoal_gcs.actors import messages
from shoal_gcs.actors.manager import ActorManager
from shoal_gcs.config import GcsConfig
from shoal_gcs.events import EventPublisher
from shoal_gcs.groups.manager import PlacementGroupManager
from shoal_gcs.jobs.blobs import JobBlobs
from shoal_gcs.jobs.functions import FunctionTable
from shoal_gcs.jobs.table import Job, JobTable
from shoal_gcs.nodes.table import Node, NodeTable
from shoal_gcs.objects.manager import ObjectManager
from shoal_gcs.peers import Raylets, insist
from shoal_gcs.store.rows import Rows, written
from shoal_proto.v1 import events_pb2, gcs_pb2

#: What a driver may tell about its job, in characters.
MAX_DESCRIPTION_BYTES = 100_000
#: After a restart the raylets are told again of the jobs that ended at most this long ago, in seconds; longer than the
#: clocks of two machines with a GCS are apart.
END_JOB_AGAIN_S = 1_800

_log = structlog.get_logger()


class JobManager:
    def __init__(
        self,
        config: GcsConfig,
        *,
        table: JobTable,
        rows: Rows,
        actors: ActorManager,
        groups: PlacementGroupManager,
        functions: FunctionTable,
        objects: ObjectManager,
        nodes: NodeTable,
        raylets: Raylets,
        blobs: JobBlobs,
        publisher: EventPublisher,
        background: Background,
    ) -> None:
        self._cluster_id = config.cluster_id
        self._table = table
        self._rows = rows
        self._actors = actors
        self._groups = groups
        self._functions = functions
        self._objects = objects
        self._nodes = nodes
        self._raylets = raylets
        self._blobs = blobs
        self._publisher = publisher
        self._background = background

    async def load(self) -> None:
        """Before the actors, which look up their jobs."""
        self._table.load(messages.job_of_row(gcs_pb2.JobInfo.FromString(row.value)) for row in await self._rows.load())

    async def finish_what_was_begun(self) -> None:
        """After nodes and actors are loaded: the ends of jobs that an earlier GCS may not have carried out."""
        recent = _unix_ms() - END_JOB_AGAIN_S * 1000
        for job in self._table.all():
            if job.end_unix_ms:
                self._actors.job_finished(job.job_id)
                if job.end_unix_ms >= recent:
                    self._tell_raylets(job.job_id)
                    self.on_unused(job.job_id)
            elif job.node_id and not self._nodes.address_of(job.node_id):
                await self.finish(job.job_id)
        for job_id in await self._functions.jobs() | self._objects.jobs():
            self.on_unused(job_id)

    async def start(
        self,
        driver_id: bytes,
        namespace: str,
        pid: int,
        entrypoint: str,
        metadata: Mapping[str, str],
        node_id: bytes = b"",
    ) -> Job:
        if len(driver_id) != WORKER_LENGTH:
            raise InvalidRequest(f"a driver id has {WORKER_LENGTH} bytes, this one has {len(driver_id)}")
        described = len(entrypoint) + sum(len(key) + len(value) for key, value in metadata.items())
        if described > MAX_DESCRIPTION_BYTES:
            raise InvalidRequest(
                f"entrypoint and metadata of the job have {described} characters, more than {MAX_DESCRIPTION_BYTES}"
            )
        job = self._table.start(
            driver_id, namespace or str(uuid.uuid4()), pid, entrypoint, metadata, _unix_ms(), node_id
        )
        await written([self._save(job)])
        return job

    async def finish(self, job_id: bytes) -> None:
        await written(self._finish(job_id))

    def _finish(self, job_id: bytes) -> list[asyncio.Future[None]]:
        """Returns the writes that an answer must wait for."""
        if job_id not in self._table:
            return []
        job = self._table[job_id]
        saves: list[asyncio.Future[None]] = []
        if self._table.finish(job_id, _unix_ms()):
            _log.info("job_finished", job_id=job_id.hex())
            saves.append(self._save(job))
            for forgotten in self._table.forget_excess(lambda i: bool(self._actors.living_of_job(i))):
                self._rows.delete(forgotten.job_id.hex())
        saves += self._actors.job_finished(job_id)
        saves += self._groups.job_finished(job_id)
        self._tell_raylets(job.job_id)
        self.on_unused(job_id)
        return saves

    def node_died(self, node_id: bytes) -> list[asyncio.Future[None]]:
        """The drivers there have lost their raylet, if they are not dead themselves: their jobs end. Returns the writes
        that an answer must wait for."""
        ending = [job.job_id for job in self._table.all() if not job.end_unix_ms and job.node_id == node_id]
        return [save for job_id in ending for save in self._finish(job_id)]

    def on_unused(self, job_id: bytes) -> None:
        """The functions of a finished job, and what it spilled, are needed until its last detached actor has died."""
        if not self._table.is_running(job_id) and not self._actors.living_of_job(job_id):
            self._background.spawn(self._forget_functions(job_id))
            self._background.spawn(self._blobs.sweep(JobID(job_id)))
            self._objects.forget_job(job_id)

    def _tell_raylets(self, job_id: JobID) -> None:
        keep = self._actors.living_of_job(job_id)
        for node in self._nodes.living():
            self._background.spawn(self._end_job(node, job_id, keep))

    async def _end_job(self, node: Node, job_id: JobID, keep: list[bytes]) -> None:
        problem = await insist(
            partial(self._nodes.address_of, node.node_id),
            lambda address: self._raylets.end_job(address, job_id, keep),
        )
        if problem is not None:
            _log.error("job_not_ended", job_id=job_id.hex(), node_id=node.node_id.hex(), error=str(problem))

    async def _forget_functions(self, job_id: bytes) -> None:
        try:
            await self._functions.forget_job(job_id)
        except MetadataStoreError as error:
            _log.warning("functions_not_forgotten", job_id=job_id.hex(), error=str(error))

    def _save(self, job: Job) -> asyncio.Future[None]:
        info = messages.job_info(job)

        def publish() -> None:
            event = events_pb2.JobEvent(job=info).SerializeToString()
            self._publisher.publish(subjects.job(self._cluster_id, job.job_id), event)

        return self._rows.put(job.job_id.hex(), info.SerializeToString(), publish)


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000
