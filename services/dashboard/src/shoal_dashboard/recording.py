"""Keeps what a cluster tells of its tasks: finds out which cluster it is, opens its store, and listens."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb
import grpc.aio
import msgspec
import structlog

from shoal_common.blob.client import BlobClient
from shoal_common.bus import EventBus, Handler, subjects
from shoal_common.bus.connect import connect_bus
from shoal_common.errors import ServiceError
from shoal_common.events.node_events import ClusterEvent, decode_load
from shoal_common.rpc.client import aio_channel
from shoal_common.service.background import Background
from shoal_dashboard.charts.ring import STEP_S, Ring
from shoal_dashboard.cluster.cluster import Cluster
from shoal_dashboard.config import DashboardConfig
from shoal_dashboard.events.archive import Archive
from shoal_dashboard.events.cluster_events import ClusterEvents
from shoal_dashboard.events.duck_store import PRUNE_EVERY_S, DuckTaskStore
from shoal_dashboard.events.receiver import Receiver
from shoal_dashboard.events.seen import Mark, Seen
from shoal_dashboard.events.store import TaskStore
from shoal_proto.v1 import events_pb2
from shoal_proto.v1 import gcs_pb2 as pb

log = structlog.get_logger(__name__)

#: A cluster that does not answer, or a store that cannot be opened, is tried again after so many seconds.
AGAIN_S = 2.0
#: What has ended becomes a segment of the archive after so many seconds, or when there is so much of it.
SEGMENT_S = 300.0
SEGMENT_ROWS = 200_000
#: Events of the cluster that wait to be stored; further ones are lost.
MAX_HAPPENED = 10_000
#: What others have recorded is taken up for so many seconds at most.
RESTORE_S = 60.0
#: A question waits so long, in seconds, for what was told before it.
CATCH_UP_S = 5.0
#: It is looked which nodes are gone after so many seconds.
NODES_EVERY_S = 5.0


class Recording:
    """Belongs to one event loop. Waits for nobody."""

    def __init__(
        self, config: DashboardConfig, cluster: Cluster, ring: Ring, opened: Callable[[TaskStore], None]
    ) -> None:
        """``ring``: is told what nodes tell. ``opened``: called with the store, once there is one."""
        self._ring = ring
        self._config = config
        self._cluster = cluster
        self._opened = opened
        self._background = Background()
        self._store: DuckTaskStore | None = None
        self._receiver: Receiver | None = None
        self._receiving = asyncio.Event()
        #: Goes with this object.
        self._temporary: Path | None = None
        self._cluster_events = ClusterEvents()
        #: Not in the store yet.
        self._happened: list[ClusterEvent] = []
        self._gone: set[tuple[bytes, int]] = set()
        self._channel: grpc.aio.Channel | None = None
        self._blob_client: BlobClient | None = None

    def start(self) -> None:
        self._background.spawn(self._record())

    async def close(self) -> None:
        await self._background.stop()
        if self._receiver is not None:
            await self._receiver.stop()
        if self._store is not None:
            await self._store.close()
        if self._blob_client is not None:
            await self._blob_client.close()
        if self._channel is not None:
            await self._channel.close()
        if self._temporary is not None:
            await asyncio.to_thread(shutil.rmtree, self._temporary, ignore_errors=True)

    async def caught_up(self, mark: Mark) -> None:
        """Waits until all is kept that this node of the cluster had told up to then; ``CATCH_UP_S`` at most."""
        with contextlib.suppress(TimeoutError, ServiceError):  # then the answer is what there is
            async with asyncio.timeout(CATCH_UP_S):
                await self._receiving.wait()
                assert self._store is not None and self._receiver is not None
                if not self._store.seen.knows(mark.node_id):
                    if all(node.node_id != mark.node_id for node in await self._cluster.nodes()):
                        return
                    self._receiver.say()
                await self._store.reached(mark)

    async def _record(self) -> None:
        about = await self._find_cluster()
        store = self._store = await self._open(about.cluster_id)
        archive = self._archive(about)
        if archive is not None:
            await self._restore(store, archive)
            store.look_back_into(archive)
        self._opened(store)
        seen = Seen(store.seen.listening().seen)
        also = self._handlers(about.cluster_id)
        receiver = self._receiver = Receiver(self._connect, about.cluster_id, seen, store.take, also)
        receiver.start()
        self._background.spawn(self._step(store))
        self._receiving.set()
        looked = False
        prune_at, segment_at = 0.0, time.monotonic() + SEGMENT_S
        while True:
            await asyncio.sleep(NODES_EVERY_S)
            await self._look_at_nodes(store)
            # Once it listens: what came before has been told to nobody here.
            looked = looked or (receiver.listens and await self._look_at_actors_and_jobs())
            happened, self._happened = self._happened, []
            if happened:
                await store.happened(happened)
            due = time.monotonic() >= segment_at
            if due:
                segment_at = time.monotonic() + SEGMENT_S
            if archive is not None:
                await self._store_segment(store, archive, 1 if due else SEGMENT_ROWS)
            if time.monotonic() >= prune_at:
                prune_at = time.monotonic() + PRUNE_EVERY_S
                await store.prune(_now_ms())

    async def _step(self, store: DuckTaskStore) -> None:
        while True:
            # As the next step begins: what nodes tell in between has the same time.
            await asyncio.sleep(STEP_S - time.monotonic() % STEP_S)
            tasks: Counter[str] = Counter()
            for counts in await store.counts():
                tasks.update(counts.states)
            self._ring.step(time.monotonic(), tasks)

    async def _restore(self, store: DuckTaskStore, archive: Archive) -> None:
        try:
            async with asyncio.timeout(RESTORE_S):
                await store.restore(archive, _now_ms())
        except (ServiceError, TimeoutError) as error:
            log.warning("tasks_not_restored", reason=str(error) or f"it took more than {RESTORE_S:g} s")

    @staticmethod
    async def _store_segment(store: DuckTaskStore, archive: Archive, least: int) -> None:
        try:
            await store.archive(archive, least=least)
        except ServiceError as error:
            log.warning("segment_not_stored", reason=str(error))  # it is tried again

    def _archive(self, about: pb.GetClusterResponse) -> Archive | None:
        """None = the cluster has no store of blobs."""
        if not about.objectstore_addresses:
            return None
        self._channel = aio_channel(",".join(about.objectstore_addresses), self._config.token, tls=self._config.tls)
        self._blob_client = BlobClient(self._channel)
        return Archive(self._blob_client, about.cluster_id)

    async def _connect(self) -> EventBus:
        return await connect_bus(self._config, self._config.gcs_address)

    async def _find_cluster(self) -> pb.GetClusterResponse:
        while True:
            with contextlib.suppress(ServiceError):  # it is not there yet
                return await self._cluster.about()
            await asyncio.sleep(AGAIN_S)

    async def _open(self, cluster_id: str) -> DuckTaskStore:
        directory = self._config.data_dir
        if directory is None:
            directory = self._temporary = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="shoal-dashboard-"))
        while True:
            try:
                return DuckTaskStore(directory / f"tasks-{cluster_id}.duckdb")
            except (duckdb.Error, OSError) as error:
                log.error("task_store_not_opened", directory=str(directory), reason=str(error))
                await asyncio.sleep(AGAIN_S)

    def _handlers(self, cluster_id: str) -> dict[str, Handler]:
        events = self._cluster_events

        def of(parse: Callable[[bytes], ClusterEvent | None]) -> Handler:
            def handle(_subject: str, data: bytes) -> None:
                event = parse(data)
                if event is not None and len(self._happened) < MAX_HAPPENED:
                    self._happened.append(event)

            return handle

        def load(_subject: str, data: bytes) -> None:
            try:
                self._ring.told(decode_load(data), time.monotonic())
            except msgspec.MsgspecError as error:
                log.warning("load_not_understood", reason=str(error))

        return {
            subjects.all_loads(cluster_id): load,
            subjects.all_nodes(cluster_id): of(
                lambda data: events.of_node(events_pb2.NodeEvent.FromString(data).node, _now_ms())
            ),
            subjects.all_actors(cluster_id): of(
                lambda data: events.of_actor(events_pb2.ActorEvent.FromString(data).actor, _now_ms())
            ),
            subjects.all_groups(cluster_id): of(
                lambda data: events.of_group(events_pb2.PlacementGroupEvent.FromString(data).group, _now_ms())
            ),
            subjects.all_jobs(cluster_id): of(
                lambda data: events.of_job(events_pb2.JobEvent.FromString(data).job, _now_ms())
            ),
        }

    async def _look_at_actors_and_jobs(self) -> bool:
        try:
            actors, jobs = await self._cluster.actors(), await self._cluster.jobs()
        except ServiceError as error:
            log.info("actors_not_listed", reason=str(error))
            return False
        events = [self._cluster_events.of_job(job, _now_ms()) for job in jobs]
        events += [self._cluster_events.of_actor(actor, _now_ms()) for actor in actors]
        found = list(filter(None, events))
        self._happened += found[-MAX_HAPPENED:]
        return True

    async def _look_at_nodes(self, store: DuckTaskStore) -> None:
        try:
            nodes = await self._cluster.nodes()
        except ServiceError as error:
            log.info("nodes_not_listed", reason=str(error))
            return
        for node in nodes:
            event = self._cluster_events.of_node(node, _now_ms())
            if event is not None:
                self._happened.append(event)
            life = (node.node_id, node.incarnation)
            if node.end_unix_ms and life not in self._gone:
                self._gone.add(life)
                await store.node_ended(node.node_id, node.end_unix_ms, node.death_reason or "its node has left")


def _now_ms() -> int:
    return int(time.time() * 1_000)
