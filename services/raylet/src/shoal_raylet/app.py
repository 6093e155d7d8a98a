"""One raylet: makes the parts, starts and stops them in order."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable

import grpc.aio
import structlog

from shoal_common import ids
from shoal_common.blob.client import BlobClient
from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.blob.local import Blobs, LocalBlobs
from shoal_common.bus import EventBus, EventBusError, subjects
from shoal_common.channel import tcp
from shoal_common.channel.frames import PROTOCOL_VERSION, EventsFlushed, FlushEvents
from shoal_common.placement.gpus import node_gpu_ids
from shoal_common.placement.labels import labels_of_node
from shoal_common.placement.resources import GRAINS, ResourceSet
from shoal_common.rpc.client import aio_channel
from shoal_common.rpc.schedulers import Schedulers
from shoal_common.rpc.server import create_server, join_address, serve
from shoal_common.service.config import ConfigError
from shoal_common.service.lifecycle import STOP_DEADLINE_S
from shoal_common.service.metrics import Sample
from shoal_common.service.metrics_server import MetricsServer
from shoal_common.service.settings import Settings
from shoal_common.tls import advice
from shoal_proto.v1 import common_pb2, events_pb2, gcs_pb2
from shoal_proto.v1.raylet_pb2_grpc import add_RayletServiceServicer_to_server
from shoal_proto.v1.settings_pb2_grpc import add_SettingsServiceServicer_to_server
from shoal_raylet.arena.arena import Arena
from shoal_raylet.arena.files import FallbackFiles
from shoal_raylet.channel.connection import Connection, Identity
from shoal_raylet.channel.server import ChannelServer
from shoal_raylet.cluster.allowance_questions import AllowanceQuestions
from shoal_raylet.cluster.event_publisher import EventPublisher
from shoal_raylet.cluster.function_table import FunctionTable
from shoal_raylet.cluster.garbage import GarbageCalls
from shoal_raylet.cluster.group_states import GroupStates
from shoal_raylet.cluster.heartbeat import HeartbeatDocument, Heartbeats
from shoal_raylet.cluster.membership import Membership
from shoal_raylet.cluster.node_events import NodeEvents
from shoal_raylet.cluster.nodes import NodeDirectory
from shoal_raylet.cluster.placement_questions import PlacementQuestions
from shoal_raylet.cluster.reports import GcsReports
from shoal_raylet.cluster.standing import GivenUp
from shoal_raylet.config import RayletConfig
from shoal_raylet.gateway.port import Gateway
from shoal_raylet.gateway.session import Inside
from shoal_raylet.gateway.targets import GatewayTargets
from shoal_raylet.inspection import Inspection
from shoal_raylet.leases.actor_placement import ActorPlacement
from shoal_raylet.leases.bundle_reservations import BundleReservations
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.worker_leases import WorkerLeases
from shoal_raylet.leases.worker_pool import WorkerPool
from shoal_raylet.measurements import Load, Measurements, NodeReading, components_of
from shoal_raylet.node import Node
from shoal_raylet.object_store import ObjectStore
from shoal_raylet.objects.index import ObjectIndex
from shoal_raylet.peers import Peers
from shoal_raylet.servicer import RayletServicer
from shoal_raylet.transfer.checkpoints import Checkpoints
from shoal_raylet.transfer.links import RayletLinks
from shoal_raylet.transfer.locations import ObjectLocations
from shoal_raylet.transfer.named_objects import NamedObjects
from shoal_raylet.transfer.neighbours import Neighbours
from shoal_raylet.transfer.packages import Packages
from shoal_raylet.worker_settings import WorkerSettings
from shoal_raylet.workers.ends import WorkerEnds
from shoal_raylet.workers.environments.cache import EnvironmentCache, environment_directory
from shoal_raylet.workers.environments.manager import EnvironmentManager
from shoal_raylet.workers.function_cache import FunctionCache
from shoal_raylet.workers.host import read_host, read_processes
from shoal_raylet.workers.last_replies import LastReplies
from shoal_raylet.workers.log_reading import LogDirectory
from shoal_raylet.workers.log_service import LogService
from shoal_raylet.workers.log_shipping import LogShipping
from shoal_raylet.workers.memory_monitor import MemoryMonitor
from shoal_raylet.workers.metrics import ProcessMetrics
from shoal_raylet.workers.output import Batch, WorkerOutput
from shoal_raylet.workers.processes import WorkerProcesses
from shoal_raylet.workers.template_process import TemplateProcess

log = structlog.get_logger(__name__)

#: Last words to the GCS may take this long when the raylet stops, in seconds.
_FAREWELL_S = 1.0
#: Bringing the last lines of its logs to safety, too.
_LAST_LOGS_S = 3.0
#: Fresh workers kept ready on a large node.
_MAX_FRESH = 4


class RayletApp:
    """Serves one node until ``stop``.

    ``template``: a worker template that the embedded head started ahead; None starts one. The app owns it.
    ``ends_cluster``: the cluster ends with this node, so that nothing of it is handed on and its blobs are deleted.
    ``beside``: metrics of services in this process, told with the node's; None = there are none.
    """

    def __init__(
        self,
        config: RayletConfig,
        bus: EventBus,
        template: TemplateProcess | None = None,
        *,
        ends_cluster: bool = False,
        beside: Callable[[], Iterable[Sample]] | None = None,
    ) -> None:
        self.config = config
        self.node_id = bytes.fromhex(config.node_id) if config.node_id else ids.new_node_id()
        #: Those it was given and its own.
        self.labels = labels_of_node(ids.NodeID(self.node_id), config.labels)
        #: gRPC address, host:port; empty before ``start``.
        self.address = ""
        #: Where other nodes reach this one; known once started.
        self.host = config.host
        self.channel_path = config.session_dir / "sockets" / f"raylet-{self.node_id.hex()[:12]}.sock"
        self._bus = bus
        self._template = template
        self._ends_cluster = ends_cluster
        self._beside = beside
        self._incarnation = time.time_ns() // 1_000_000
        #: Lines of workers that the bus did not take, by job.
        self._unpublished: Counter[bytes] = Counter()
        self._running = False
        self._stopping: asyncio.Task[None] | None = None

    def _make(self) -> None:
        """All parts; needs the running event loop, touches nothing outside but the arena's memory."""
        config, node_id = self.config, self.node_id
        self._grpc_channels: list[grpc.aio.Channel] = []
        gcs = self._grpc_channel(config.gcs_address, patient=True)
        self._blobs = self._make_blobs()

        total = ResourceSet.of(config.total_resources)
        cpus = max(1, total["CPU"] // GRAINS)
        try:
            gpu_ids = config.gpu_ids or node_gpu_ids(total["GPU"] // GRAINS, os.environ)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        ledger = ResourceLedger(total, {"GPU": gpu_ids} if gpu_ids else None)
        pool = WorkerPool(cpus, min(cpus, _MAX_FRESH), config.worker_startup_timeout_s, ids.new_worker_id)
        leases = WorkerLeases(node_id, self.labels, ledger, pool, config.infeasible_grace_s, ids.new_lease_id)
        self._arena = Arena(config.object_store_bytes)
        files = FallbackFiles((config.fallback_dir or config.session_dir) / f"fallback-{node_id.hex()[:12]}")
        index = ObjectIndex(
            self._arena.size, node_id, config.store_full_grace_s, os.fspath(files.directory), self._incarnation
        )
        self._membership = Membership(gcs, node_id, self._incarnation, config.gcs_address, config.rejoin_timeout_s)
        self._directory = NodeDirectory(self._bus, config.cluster_id, self._membership.list_nodes)
        self._heartbeat = HeartbeatDocument(node_id, self._incarnation, self.labels, ledger, leases, index)
        self._heartbeats = Heartbeats(self._bus, config.cluster_id, self._heartbeat, self._directory)
        schedulers = Schedulers(
            {address: self._grpc_channel(address) for address in config.scheduler_addresses}, random.Random()
        )
        questions = PlacementQuestions(node_id, self._directory, GroupStates(gcs), schedulers)
        self._peers = Peers(pool)
        self._garbage = GarbageCalls(self._bus, config.cluster_id, node_id, self._peers.collect_garbage)
        links = RayletLinks(config.token, config.tls, node_id, self._directory.find)
        self._store = ObjectStore(
            index,
            self._arena,
            files,
            self._blobs,
            links,
            ObjectLocations(gcs, node_id),
            self._directory,
            self._peers,
            on_change=self._heartbeats.changed,
        )
        actors = ActorPlacement(ledger, pool)
        has_blobs = config.blob_directory is not None
        self._neighbours = Neighbours(self._blobs, has_blobs, links, self._directory.living)
        self._checkpoints = Checkpoints(self._blobs, self._neighbours.put_then_list, actors.actor_of_worker)
        self._named_objects = NamedObjects(self._blobs)
        self._packages = Packages(self._blobs)
        self._worker_settings = WorkerSettings(config, node_id, self.channel_path)
        environments = environment_directory(config.session_dir)
        self._environments = EnvironmentManager(
            EnvironmentCache(environments),
            self._packages,
            os.environ,
            directories=self._worker_settings.directories(environments),
            reports=config.session_dir / "logs" / "nsight",
        )
        self._output = WorkerOutput(config.session_dir / "logs", pool, self._publish_lines)
        self._processes = WorkerProcesses(
            make_config=self._worker_settings.of_worker,
            output=self._output,
            template_log=config.session_dir / "logs" / "worker-template.err",
            sockets_dir=self.channel_path.parent,
        )
        self._monitor = MemoryMonitor(pool, config.memory_usage_threshold)
        self._functions = FunctionCache(FunctionTable(gcs).fetch)
        self._metrics = metrics = ProcessMetrics(node_id)
        events = NodeEvents(node_id, self._incarnation)
        self._node = Node(
            node_id=node_id,
            incarnation=self._incarnation,
            ledger=ledger,
            bundles=BundleReservations(ledger),
            pool=pool,
            leases=leases,
            actors=actors,
            peers=self._peers,
            processes=self._processes,
            environments=self._environments,
            ends=WorkerEnds(pool, self._processes),
            output=self._output,
            store=self._store,
            functions=self._functions,
            checkpoints=self._checkpoints,
            last_replies=LastReplies(os.fspath(config.session_dir)),
            reports=GcsReports(gcs, node_id),
            monitor=self._monitor,
            directory=self._directory,
            garbage=self._garbage,
            metrics=metrics,
            events=events,
            ask_scheduler=questions.ask,
            ask_allowance=AllowanceQuestions(gcs, node_id, self._incarnation).ask,
            on_change=self._heartbeats.changed,
        )

        def reading() -> NodeReading:
            return NodeReading.of(pool, leases, ledger, index, self._node.ended)

        load = Load(node_id, reading, lambda: read_host(config.session_dir))
        self._events = EventPublisher(
            self._bus, config.cluster_id, node_id, self._incarnation, events, self._node.note, load.now
        )
        measurements = Measurements(
            config.session_name,
            "head" if self._beside is not None else "worker",
            reading,
            lambda: read_host(config.session_dir),
            lambda: components_of(pool),
            read_processes,
        )

        def metrics_page(openmetrics: bool) -> str:
            beside = self._beside() if self._beside is not None else ()
            return metrics.page(openmetrics, [*measurements.samples(), *beside])

        self._metrics_server = MetricsServer(config.token, config.tls, metrics_page)
        self._directory.tell(on_lost=self._node_lost, on_change=self._node.nodes_changed)
        inspection = Inspection(self._peers)
        self._peers.serve(
            self._node,
            {
                **self._node.handlers,
                **self._store.handlers,
                **self._checkpoints.handlers,
                **self._named_objects.handlers,
                **self._packages.handlers,
                **inspection.handlers,
                FlushEvents: self._flush_events,
            },
            self._store.exchange,
            {**self._store.exchange.handlers, **self._neighbours.handlers},
        )
        tcp_at = (config.host, config.channel_port) if config.channel_port >= 0 else None
        self._channel = ChannelServer(
            self.channel_path,
            tcp_at,
            Identity(config.token, node_id, self._arena.fd, self._arena.size),
            config.tls,
        )
        self._gateway: Gateway | None = None
        if config.gateway_port >= 0:
            self._gateway = Gateway(
                config.gateway_host or config.host,
                config.gateway_port,
                token=config.token,
                tls=config.tls,
                grace_s=config.gateway_grace_s,
            )
        self._server = create_server(config.token)
        add_SettingsServiceServicer_to_server(Settings(config), self._server)
        self._log_shipping = LogShipping(config.session_dir / "logs", node_id, self._blobs)
        logs = LogService(LogDirectory(config.session_dir / "logs", node_id), self._output.is_open)
        add_RayletServiceServicer_to_server(RayletServicer(self._node, logs, inspection, node_id), self._server)

    def _make_blobs(self) -> Blobs:
        config = self.config
        if config.blob_directory is None:
            return BlobClient(self._grpc_channel(config.objectstore_address))
        name = f"-{self.node_id.hex()}"
        return LocalBlobs(DirectoryBlobStore(config.blob_directory, config.blob_min_free_bytes, name))

    async def start(self) -> None:
        """Raises: OSError (socket or port taken), ServiceError (the GCS refuses the node or does not answer)."""
        # Before anything is made: what is measured of this machine begins with the disk that it is on.
        self.config.session_dir.mkdir(parents=True, exist_ok=True)
        self._make()
        self._running = True
        try:
            await self._start()
        except BaseException:
            await self.stop()
            if self._template is not None:
                await asyncio.to_thread(self._template.close)
            raise

    async def given_up(self) -> GivenUp:
        """Returns when this raylet is in no cluster any more: it has to be stopped."""
        return await self._membership.given_up()

    @property
    def stop_deadline_s(self) -> float:
        """``stop`` takes so long at most."""
        return self.config.drain_s + self.config.hand_over_s + STOP_DEADLINE_S

    async def stop(self) -> None:
        """Leave the cluster, unless that ends too; end all workers and their children. Idempotent: a second call, also
        one after the first was cancelled, waits for the same end."""
        if self._running:
            self._running = False
            self._stopping = asyncio.create_task(self._stop(), name="raylet stops")
        if self._stopping is not None:
            await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        if self._membership.joined and not self._ends_cluster:
            await self._leave()
        await self._heartbeats.stop()
        await self._garbage.stop()
        await self._directory.stop()
        await self._monitor.stop()
        if self._gateway is not None:
            why = self._membership.why_given_up
            await self._gateway.stop(f"the node of the gateway stops{why and f': {why}'}")
        self._channel.stop_accepting()
        await self._node.stop(self.config.stop_grace_s)
        await self._events.stop()
        await self._processes.stop()
        await self._environments.stop()
        await self._checkpoints.stop()
        await self._neighbours.stop()
        await self._named_objects.stop()
        await self._packages.stop()
        await asyncio.gather(
            self._output.stop(),
            self._store.stop(delete_blobs=self._ends_cluster),
            self._functions.stop(),
            self._farewell(),
        )
        await self._log_shipping.stop(_LAST_LOGS_S)
        self._channel.close()
        await self._metrics_server.stop()
        await self._server.stop(None)
        await self._blobs.close()
        for channel in self._grpc_channels:
            await channel.close()
        self._arena.close()

    async def _start(self) -> None:
        config = self.config
        self.host = self._worker_settings.host = await self._find_host()
        self._output.start()
        self._processes.start(self._template, self._node.worker_exited)
        if self._gateway is not None:
            self._gateway.listen()
        self._channel.start(self._peers)
        self._worker_settings.listens = bool(self._channel.port)
        # Workers warm up while this process registers.
        self._node.start()
        self._packages.start(self._peers.__contains__, self._environments.stored)
        self._arena.start_prefault(config.effective_prefault_bytes)
        port = await serve(self._server, config.host, config.port, tls=config.tls)
        self.address = join_address(self.host, port)
        self._heartbeat.raylet_address = self.address
        if config.metrics_port >= 0:
            await self._metrics_server.start(config.host, config.metrics_port)
        await self._membership.register(self._node_info(), config.register_timeout_s, advice(config.tls))
        await self._directory.start()
        self._heartbeats.start()
        self._garbage.start()
        self._events.start()
        self._monitor.start(self._node.killed_for_memory)
        if not self._ends_cluster:
            self._log_shipping.start()
        if self._gateway is not None:
            self._gateway.start(self._inside())

    async def _leave(self) -> None:
        """Nothing new begins here, what runs may end, and what others need of this node is brought to safety."""
        config = self.config
        await self._membership.drain(_FAREWELL_S, config.drain_s + config.hand_over_s + STOP_DEADLINE_S)
        await self._node.drain(config.drain_s)
        try:
            async with asyncio.timeout(config.hand_over_s):
                await self._store.hand_over(self._node.ending())
        except TimeoutError:
            log.error("objects_not_handed_over", reason=f"hand_over_s = {config.hand_over_s:g} was not enough")

    # --- neighbours ---

    async def _find_host(self) -> str:
        """In numbers: whoever connects must not wait for a name service. Raises: OSError."""
        config = self.config
        if config.advertise_host:
            return await asyncio.to_thread(tcp.resolve, config.advertise_host)
        if config.host in ("0.0.0.0", "::"):
            gcs_host, _, gcs_port = config.gcs_address.split(",")[0].rpartition(":")
            return await asyncio.to_thread(tcp.local_address, gcs_host, int(gcs_port))
        return await asyncio.to_thread(tcp.resolve, config.host)

    def _inside(self) -> Inside:
        config = self.config
        gcs = [address.rpartition(":") for address in config.gcs_address.split(",")]
        sockets_dir = self.channel_path.parent
        return Inside(
            node_id=self.node_id,
            sockets_dir=sockets_dir,
            host=self.host,
            listen_host=config.host if config.channel_port >= 0 else "",
            gcs=[(host.strip("[]"), int(port)) for host, _, port in gcs],
            tls=config.tls,
            targets=GatewayTargets(
                os.fspath(sockets_dir), lambda: {self.host, *(node.host for node in self._directory.living())}
            ),
            why_dead=lambda node_id: self._directory.why_dead(node_id) if self._directory.is_dead(node_id) else "",
            connect_raylet=self._channel.adopt,
        )

    def _node_lost(self, node: gcs_pb2.NodeInfo) -> None:
        if node.node_id != self.node_id:
            self._node.node_lost(node)
        elif self._running:
            self._membership.told(node)

    def _grpc_channel(self, address: str, *, patient: bool = False) -> grpc.aio.Channel:
        channel = aio_channel(address, self.config.token, tls=self.config.tls, patient=patient)
        self._grpc_channels.append(channel)
        return channel

    async def _farewell(self) -> None:
        await self._node.reports.stop(_FAREWELL_S)
        await self._membership.unregister(_FAREWELL_S)

    def _flush_events(self, connection: Connection, message: FlushEvents) -> None:
        connection.send(EventsFlushed(message.request, self._incarnation, self._events.flush()))

    async def _publish_lines(self, batch: Batch) -> None:
        source = batch.source
        message = events_pb2.LogBatch(
            job_id=source.job_id,
            node_id=self.node_id,
            worker_id=source.worker_id,
            pid=source.pid,
            host=self.host,
            name=source.name,
            is_stderr=batch.is_stderr,
            lines=batch.lines,
            number=batch.number,
        )
        subject = subjects.log(self.config.cluster_id, source.job_id, self.node_id, source.worker_id)
        try:
            await self._bus.publish(subject, message.SerializeToString())
        except EventBusError as error:
            # The lines are in the log files still, and their driver is told so when the bus is back.
            log.info("lines_not_published", lines=len(batch.lines), reason=str(error))
            if source.worker_id != self.node_id:
                self._unpublished[source.job_id] += len(batch.lines)
            return
        if missed := self._unpublished.pop(source.job_id, 0):
            files = self.config.session_dir / "logs"
            self._output.tell(source.job_id, self.node_id, f"{missed} lines are missing here: they are in {files}")

    # --- documents ---

    def _node_info(self) -> gcs_pb2.NodeInfo:
        return gcs_pb2.NodeInfo(
            node_id=self.node_id,
            host=self.host,
            raylet_address=self.address,
            raylet_path=os.fspath(self.channel_path),
            incarnation=self._incarnation,
            total=_amounts(self._node.ledger.total),
            available=_amounts(self._node.ledger.available),
            labels=self.labels,
            object_store_bytes=self._arena.size,
            session_dir=os.fspath(self.config.session_dir),
            channel_port=self._channel.port,
            metrics_port=self._metrics_server.port,
            protocol_version=PROTOCOL_VERSION,
            has_blobs=self.config.blob_directory is not None,
        )


def _amounts(resources: ResourceSet) -> common_pb2.ResourceAmounts:
    return common_pb2.ResourceAmounts(grains=resources.grains)
