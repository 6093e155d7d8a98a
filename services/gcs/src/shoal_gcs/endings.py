"""What ends with what: with a node its processes, copies and drivers; with a job its actors, groups, functions, blobs
and, where its namespace is its own, its map; with a name that a job held what was kept under it.

Managers tell here what has ended and know nothing of one another's ends. What they return are the writes that an answer
must wait for.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

import structlog

from shoal_common import named_objects
from shoal_common.ids import JobID
from shoal_common.metadata import MetadataStoreError
from shoal_common.service.background import Background
from shoal_gcs.actors.manager import ActorManager
from shoal_gcs.groups.manager import PlacementGroupManager
from shoal_gcs.jobs.blobs import JobBlobs
from shoal_gcs.jobs.functions import FunctionTable
from shoal_gcs.jobs.manager import JobManager
from shoal_gcs.jobs.named_job_manager import NamedJobManager
from shoal_gcs.jobs.named_jobs import JobName, NamedJobTable
from shoal_gcs.jobs.quota_manager import QuotaManager
from shoal_gcs.jobs.submission_manager import SubmissionManager
from shoal_gcs.jobs.table import JobTable
from shoal_gcs.kv.manager import KvManager
from shoal_gcs.named_objects.manager import NamedObjectManager
from shoal_gcs.named_objects.table import Scope
from shoal_gcs.nodes.table import Node, NodeTable
from shoal_gcs.objects.manager import ObjectManager
from shoal_gcs.peers import Raylets, insist
from shoal_gcs.store.rows import written
from shoal_proto.v1 import gcs_pb2

#: After a restart the raylets are told again of the jobs that ended at most this long ago, in seconds; longer than the
#: clocks of two machines with a GCS are apart.
END_JOB_AGAIN_S = 1_800
#: A node may have been cut off for so long when it is found dead, by the clock of this GCS or of an earlier one.
_UNNOTICED_MS = 60_000

_log = structlog.get_logger()


class Endings:
    _actors: ActorManager
    _groups: PlacementGroupManager
    _jobs: JobManager
    _named_objects: NamedObjectManager
    _names: NamedJobManager
    _objects: ObjectManager
    _submissions: SubmissionManager

    def __init__(
        self,
        *,
        nodes: NodeTable,
        jobs: JobTable,
        quotas: QuotaManager,
        named_jobs: NamedJobTable,
        functions: FunctionTable,
        blobs: JobBlobs,
        kv: KvManager,
        raylets: Raylets,
        background: Background,
    ) -> None:
        self._node_table = nodes
        self._job_table = jobs
        self._quotas = quotas
        self._named_jobs = named_jobs
        self._functions = functions
        self._blobs = blobs
        self._kv = kv
        self._raylets = raylets
        self._background = background

    def connect(
        self,
        *,
        actors: ActorManager,
        groups: PlacementGroupManager,
        jobs: JobManager,
        named_objects: NamedObjectManager,
        names: NamedJobManager,
        objects: ObjectManager,
        submissions: SubmissionManager,
    ) -> None:
        """Before anything is loaded: the managers are made with this object's methods, and it needs them in turn."""
        self._actors = actors
        self._groups = groups
        self._jobs = jobs
        self._named_objects = named_objects
        self._names = names
        self._objects = objects
        self._submissions = submissions

    # --- nodes ---

    def node_died(self, node_id: bytes, reason: str, drained: bool) -> list[asyncio.Future[None]]:
        """The drivers there have lost their raylet, if they are not dead themselves: their jobs end. ``drained``: it
        was leaving on purpose."""
        living = {node.node_id for node in self._node_table.living()} - {node_id}
        saves = self._groups.node_died(node_id) + self._actors.node_died(node_id, reason, drained=drained)
        saves += self._quotas.node_died(node_id)
        saves += self._delete_blobs(*self._objects.node_died(node_id, living))
        for job in self._job_table.all():
            if not job.end_unix_ms and job.node_id == node_id:
                saves += self._end_job(job.job_id, f"its node is gone: {reason}")
        return saves

    async def worker_died(self, report: gcs_pb2.ReportWorkerDeathRequest) -> None:
        """Raises: Unavailable."""
        await self._actors.worker_died(report)
        living = {node.node_id for node in self._node_table.living()}
        await written(self._delete_blobs(*self._objects.owner_died(report.worker_id, living)))

    def _delete_blobs(self, saves: list[asyncio.Future[None]], keys: list[str]) -> list[asyncio.Future[None]]:
        """``saves``: the writes after which nobody looks for these any more."""
        if keys:
            self._background.spawn(self._blobs.delete_all(keys))
        return saves

    def node_returned(self, died_unix_ms: int) -> None:
        """A node that was given up has ended all that it had, and joined anew. Cut off or stopped it could not know
        what ended meanwhile, and may have gone on to store something for that."""
        for job in self._job_table.all():
            if job.end_unix_ms >= died_unix_ms - _UNNOTICED_MS:
                self.job_unused(job.job_id)
        self._background.spawn(self._blobs.sweep_checkpoints(self._actors.is_dead))

    # --- jobs ---

    async def finish_job(self, job_id: bytes, failure: str) -> None:
        """``failure``: of its driver; empty = none. Idempotent; nothing for an unknown job. Raises: Unavailable."""
        await written(self._end_job(job_id, failure))

    def _end_job(self, job_id: bytes, failure: str) -> list[asyncio.Future[None]]:
        if job_id not in self._job_table:
            return []
        saves = self._jobs.ended(job_id, failure)
        saves += self._actors.job_finished(job_id)
        saves += self._groups.job_finished(job_id)
        self._tell_raylets(JobID(job_id))
        self.job_unused(job_id)
        return saves

    def job_unused(self, job_id: bytes) -> None:
        """The functions of a finished job, and what it spilled, are needed until its last detached actor has died."""
        if not self._job_table.is_running(job_id) and not self._actors.living_of_job(job_id):
            self._background.spawn(self._forget_functions(job_id))
            if job_id in self._job_table and self._job_table[job_id].anonymous:
                self._background.spawn(self._forget_map(self._job_table[job_id].namespace))
            self._background.spawn(self._blobs.sweep(JobID(job_id)))
            self._background.spawn(self._blobs.sweep_named_objects(JobID(job_id), self._named_objects.has_place))
            self._objects.forget_job(job_id)
            self._quotas.job_unused(job_id)

    def runs(self, job_id: bytes) -> bool:
        """Whether any of its processes may."""
        return self._job_table.is_running(job_id) or bool(self._actors.living_of_job(job_id))

    def named_job_over(self, name: JobName) -> list[asyncio.Future[None]]:
        """Nobody holds the name, nor will: its actors end, and its objects."""
        saves = self._named_objects.job_over(Scope(*name))
        for job in self._job_table.all():
            if (job.namespace, job.name) == name:
                saves += self._actors.named_job_over(job.job_id)
        return saves

    def _tell_raylets(self, job_id: JobID) -> None:
        keep = self._actors.living_of_job(job_id)
        for node in self._node_table.living():
            self._background.spawn(self._tell(node, job_id, keep))

    async def _tell(self, node: Node, job_id: JobID, keep: list[bytes]) -> None:
        problem = await insist(
            partial(self._node_table.address_of, node.node_id),
            lambda address: self._raylets.end_job(address, job_id, keep),
        )
        if problem is not None:
            _log.error("job_not_ended", job_id=job_id.hex(), node_id=node.node_id.hex(), error=str(problem))

    async def _forget_functions(self, job_id: bytes) -> None:
        try:
            await self._functions.forget_job(job_id)
        except MetadataStoreError as error:
            _log.warning("functions_not_forgotten", job_id=job_id.hex(), error=str(error))

    async def _forget_map(self, namespace: str) -> None:
        try:
            await self._kv.forget(namespace)
        except MetadataStoreError as error:
            _log.warning("kv_not_forgotten", namespace=namespace, error=str(error))

    def _is_named_or_may_be(self, place: str) -> bool:
        """False = no process will have it named any more."""
        return self._named_objects.has_place(place) or self.runs(named_objects.job_of_place(place))

    # --- actors ---

    def detached_actor_died(self, actor_id: bytes, reason: str) -> None:
        self._groups.actor_died(actor_id)
        self._submissions.actor_died(actor_id, reason)

    # --- what an earlier GCS has left ---

    async def finish_what_was_begun(self) -> None:
        """After all is loaded: the ends that an earlier GCS may not have carried out."""
        recent = (time.time() - END_JOB_AGAIN_S) * 1000
        for job in self._job_table.all():
            if job.end_unix_ms:
                self._actors.job_finished(job.job_id)
                if job.end_unix_ms >= recent:
                    self._tell_raylets(job.job_id)
                    self.job_unused(job.job_id)
            elif job.node_id and not self._node_table.address_of(job.node_id):
                await self.finish_job(job.job_id, "its node was gone when the GCS began")
        self._names.end_orphans(self._job_table.is_running)
        for job in self._job_table.all():
            if job.name and JobName(job.namespace, job.name) not in self._named_jobs:
                self._actors.named_job_over(job.job_id)
        self._named_objects.end_orphans()
        for job_id in await self._functions.jobs() | self._objects.jobs():
            self.job_unused(job_id)
        self._background.spawn(self._blobs.sweep_named_objects(None, self._is_named_or_may_be))
        self._groups.end_orphans(self._actors.is_alive)
        self._submissions.end_orphans(self._actors.is_alive)
