"""Wires the GCS together and owns the order of its start and stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from shoal_common.blob import last_used
from shoal_common.bus import EventBus
from shoal_common.metadata import MetadataStore
from shoal_common.rpc import server as grpc_server
from shoal_common.rpc.client import aio_channel
from shoal_common.rpc.schedulers import Schedulers
from shoal_common.service.background import Background
from shoal_common.service.metrics import Sample
from shoal_common.service.settings import Settings
from shoal_gcs.actors.manager import ActorManager
from shoal_gcs.actors.table import ActorTable
from shoal_gcs.config import GcsConfig
from shoal_gcs.endings import Endings
from shoal_gcs.events import EventPublisher
from shoal_gcs.groups.manager import PlacementGroupManager
from shoal_gcs.groups.table import PlacementGroupTable
from shoal_gcs.jobs.blobs import JobBlobs
from shoal_gcs.jobs.functions import FunctionTable
from shoal_gcs.jobs.manager import JobManager
from shoal_gcs.jobs.named_job_manager import NamedJobManager
from shoal_gcs.jobs.named_jobs import JobName, NamedJobTable
from shoal_gcs.jobs.quota_manager import QuotaManager
from shoal_gcs.jobs.submission_manager import SubmissionManager
from shoal_gcs.jobs.submissions import SubmissionTable
from shoal_gcs.jobs.table import JobTable
from shoal_gcs.kv.manager import KvManager
from shoal_gcs.measurements import cluster_samples
from shoal_gcs.named_objects.manager import NamedObjectManager
from shoal_gcs.named_objects.table import NamedObjectTable
from shoal_gcs.nodes.manager import NodeManager
from shoal_gcs.nodes.table import NodeTable
from shoal_gcs.objects.manager import ObjectManager
from shoal_gcs.peers import Raylets
from shoal_gcs.rpc.actors import ActorServicer
from shoal_gcs.rpc.events import EventServicer
from shoal_gcs.rpc.groups import PlacementGroupServicer
from shoal_gcs.rpc.jobs import FunctionServicer, JobServicer
from shoal_gcs.rpc.kv import KvServicer
from shoal_gcs.rpc.named_objects import NamedObjectServicer
from shoal_gcs.rpc.nodes import NodeServicer
from shoal_gcs.rpc.objects import ObjectServicer
from shoal_gcs.rpc.submissions import SubmissionServicer
from shoal_gcs.store import cluster_config
from shoal_gcs.store.rows import Rows
from shoal_proto.v1 import gcs_pb2_grpc as rpc
from shoal_proto.v1.settings_pb2_grpc import add_SettingsServiceServicer_to_server

#: Between two looks for packages that nobody uses any more, in seconds.
_SWEEP_PACKAGES_S = 3600.0


class GcsApp:
    """The GCS in the running event loop; ``store`` and ``bus`` stay their maker's to close."""

    def __init__(self, config: GcsConfig, store: MetadataStore, bus: EventBus) -> None:
        self._config = config
        self._store = store
        self._bus = bus
        self._address = ""
        self._cluster = cluster_config.cluster_config(config)
        self._background = Background()
        self._raylets = Raylets(config.token, config.tls)
        self._scheduler_channels = {
            address: aio_channel(address, config.token, tls=config.tls) for address in config.scheduler_addresses
        }
        schedulers = Schedulers(self._scheduler_channels)
        publisher = EventPublisher(bus, self._background)
        self._node_table = node_table = NodeTable(
            silence_s=config.silence_s, checks=config.checks, dead_kept=config.dead_nodes_kept
        )
        self._job_table = job_table = JobTable(finished_kept=config.finished_jobs_kept)
        self._actor_table = actor_table = ActorTable(
            infeasible_grace_s=config.infeasible_grace_s, dead_kept=config.dead_actors_kept
        )
        self._group_table = group_table = PlacementGroupTable()
        self._functions = functions = FunctionTable(store, self._prefix("function"))
        self._blobs = blobs = JobBlobs(config.token, config.tls, config.objectstore_addresses, node_table)
        self._kv = kv = KvManager(store, self._prefix("kv"), self._background)
        self._quotas = quotas = QuotaManager(rows=self._rows("allowance"), nodes=node_table)
        named_job_table = NamedJobTable()
        self._endings = Endings(
            nodes=node_table,
            jobs=job_table,
            quotas=quotas,
            named_jobs=named_job_table,
            functions=functions,
            blobs=blobs,
            kv=kv,
            raylets=self._raylets,
            background=self._background,
        )
        self._objects = ObjectManager(blob_rows=self._rows("spill"), copy_rows=self._rows("copy"))
        self._nodes = NodeManager(
            config,
            table=node_table,
            rows=self._rows("node"),
            raylets=self._raylets,
            publisher=publisher,
            background=self._background,
            on_room=self._room_may_be_free,
            on_death=self._endings.node_died,
            on_return=self._endings.node_returned,
        )
        self._actors = ActorManager(
            config,
            table=actor_table,
            rows=self._rows("actor"),
            spec_rows=self._rows("actor_spec"),
            jobs=job_table,
            nodes=node_table,
            groups=group_table,
            quotas=quotas,
            raylets=self._raylets,
            schedulers=schedulers,
            publisher=publisher,
            background=self._background,
            on_job_unused=self._endings.job_unused,
            on_detached_dead=self._endings.detached_actor_died,
            delete_blobs=blobs.delete,
        )
        self._groups = PlacementGroupManager(
            table=group_table,
            rows=self._rows("placement_group"),
            cluster_id=config.cluster_id,
            publisher=publisher,
            jobs=job_table,
            quotas=quotas,
            nodes=node_table,
            raylets=self._raylets,
            background=self._background,
            list_nodes=self._nodes.list_nodes,
            detached_creator=self._actors.detached_actor_of,
            on_created=self._actors.room_may_be_free,
            on_removed=self._actors.group_removed,
        )
        self._names = NamedJobManager(
            table=named_job_table, rows=self._rows("named_job"), on_over=self._endings.named_job_over
        )
        self._jobs = JobManager(
            config,
            table=job_table,
            rows=self._rows("job"),
            quotas=quotas,
            names=self._names,
            actors=actor_table,
            publisher=publisher,
        )
        self._named_objects = NamedObjectManager(
            table=NamedObjectTable(max_objects=config.max_named_objects, max_bytes=config.max_named_bytes),
            rows=self._rows("named_object"),
            background=self._background,
            delete_blobs=blobs.delete,
            may_store=self._endings.runs,
            is_kept=lambda scope: JobName(*scope) in named_job_table,
        )
        submission_table = SubmissionTable(
            max_running=config.max_running_submissions,
            max_waiting=config.max_waiting_submissions,
            ended_kept=config.ended_submissions_kept,
        )
        self._submissions = SubmissionManager(
            config, table=submission_table, rows=self._rows("submission"), publisher=publisher
        )
        self._endings.connect(
            actors=self._actors,
            groups=self._groups,
            jobs=self._jobs,
            named_objects=self._named_objects,
            names=self._names,
            objects=self._objects,
            submissions=self._submissions,
        )

    @property
    def address(self) -> str:
        """``host:port`` of its gRPC server, once started."""
        return self._address

    def samples(self) -> Iterator[Sample]:
        """What Prometheus reads."""
        jobs = self._job_table.all()
        finished = sum(1 for job in jobs if job.end_unix_ms)
        return cluster_samples(
            self._node_table.states(),
            self._actor_table.states(),
            self._group_table.states(),
            len(jobs) - finished,
            finished,
            self._config.session_name,
        )

    async def start(self) -> None:
        """Raises: MetadataStoreError when the store cannot be read, OSError when the address cannot be bound."""
        try:
            await cluster_config.keep(self._rows("config"), self._cluster)
            await self._jobs.load()
            await self._named_objects.load()
            await self._submissions.load()
            await self._nodes.load()
            await self._groups.load()
            await self._actors.load()
            await self._objects.load(after_deaths=self._node_table.has_dead)
            await self._endings.finish_what_was_begun()
            await self._nodes.listen(self._bus)
            await self._serve()
            if self._config.package_keep_days >= 0:
                self._background.spawn(self._sweep_packages(self._config.package_keep_days))
        except BaseException:
            await self._close()
            raise

    async def stop(self) -> None:
        """Calls under way are cancelled; what was not answered is not promised, and its caller asks again."""
        await self._server.stop(None)
        await self._close()

    async def _serve(self) -> None:
        config = self._config
        self._server = grpc_server.create_server(config.token)
        add_SettingsServiceServicer_to_server(Settings(config), self._server)
        jobs = JobServicer(self._jobs, self._quotas, self._names, self._endings, config.cluster_id, config.session_name)
        rpc.add_JobServiceServicer_to_server(jobs, self._server)
        nodes = NodeServicer(self._nodes, self._endings, self._cluster)
        rpc.add_NodeServiceServicer_to_server(nodes, self._server)
        rpc.add_ActorServiceServicer_to_server(ActorServicer(self._actors), self._server)
        rpc.add_PlacementGroupServiceServicer_to_server(PlacementGroupServicer(self._groups), self._server)
        rpc.add_FunctionServiceServicer_to_server(FunctionServicer(self._functions), self._server)
        rpc.add_ObjectServiceServicer_to_server(ObjectServicer(self._objects), self._server)
        rpc.add_KvServiceServicer_to_server(KvServicer(self._kv), self._server)
        rpc.add_NamedObjectServiceServicer_to_server(NamedObjectServicer(self._named_objects), self._server)
        rpc.add_SubmissionServiceServicer_to_server(SubmissionServicer(self._submissions), self._server)
        rpc.add_EventServiceServicer_to_server(EventServicer(self._bus), self._server)
        port = await grpc_server.serve(self._server, config.host, config.port, tls=config.tls)
        self._address = grpc_server.join_address(config.host, port)

    async def _close(self) -> None:
        # What runs may set a timer again when it ends, and after all of that nothing does: this process may live on.
        for _ in range(2):
            self._actors.stop()
            self._groups.stop()
            self._names.stop()
            self._named_objects.stop()
            await self._nodes.stop()
            await self._background.stop()
        await self._raylets.close()
        await asyncio.gather(*(channel.close() for channel in self._scheduler_channels.values()))

    async def _sweep_packages(self, keep_days: int) -> None:
        while True:
            await asyncio.sleep(_SWEEP_PACKAGES_S)
            await self._blobs.sweep_packages(last_used.day(time.time()), keep_days)

    def _room_may_be_free(self) -> None:
        self._groups.room_may_be_free()
        self._actors.room_may_be_free()

    def _rows(self, table: str) -> Rows:
        return Rows(self._store, self._prefix(table), self._background)

    def _prefix(self, table: str) -> str:
        return f"/shoal/{self._config.cluster_id}/{table}/"
