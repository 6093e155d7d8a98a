"""One raylet: makes the parts, starts and stops them in order."""

from __future__ import annotations

import asyncio
import os
import random
import time

import grpc.aio
import structlog

from shoal_common import ids
from shoal_common.blob.client import BlobClient
from shoal_common.bus import EventBus, EventBusError, subjects
from shoal_common.channel import tcp
from shoal_common.channel.frames import PROTOCOL_VERSION
from shoal_common.errors import DeadlineExceeded, ServiceError, Unavailable
from shoal_common.placement.labels import labels_of_node
from shoal_common.placement.resources import GRAINS, OBJECT_STORE_MEMORY, ResourceSet
from shoal_common.rpc.client import aio_channel, service_errors
from shoal_common.rpc.server import create_server, join_address, serve
from shoal_common.service.lifecycle import STOP_DEADLINE_S
from shoal_common.tls import advice
from shoal_common.worker_launch import WorkerConfig
from shoal_proto.v1 import common_pb2, events_pb2, gcs_pb2, scheduler_pb2
from shoal_proto.v1.gcs_pb2_grpc import FunctionServiceStub, NodeServiceStub
from shoal_proto.v1.raylet_pb2_grpc import add_RayletServiceServicer_to_server
from shoal_raylet.actions import AskScheduler
from shoal_raylet.arena.arena import Arena
from shoal_raylet.arena.files import FallbackFiles
from shoal_raylet.channel.server import ChannelServer
from shoal_raylet.cluster.group_states import GroupStates
from shoal_raylet.cluster.heartbeat import Heartbeats
from shoal_raylet.cluster.nodes import NodeDirectory
from shoal_raylet.cluster.reports import GcsReports
from shoal_raylet.cluster.schedulers import Schedulers
from shoal_raylet.config import RayletConfig
from shoal_raylet.gateway.port import Gateway
from shoal_raylet.gateway.session import Inside
from shoal_raylet.gateway.targets import GatewayTargets
from shoal_raylet.leases.actor_placement import ActorPlacement
from shoal_raylet.leases.bundle_reservations import BundleReservations
from shoal_raylet.leases.resource_ledger import ResourceLedger
from shoal_raylet.leases.scheduler_answer import LeasesPlaced, SchedulerAnswer
from shoal_raylet.leases.worker_leases import WorkerLeases
from shoal_raylet.leases.worker_pool import WorkerPool
from shoal_raylet.node import Node
from shoal_raylet.object_store import ObjectStore
from shoal_raylet.objects.index import ObjectIndex
from shoal_raylet.servicer import RayletServicer
from shoal_raylet.transfer.links import RayletLinks
from shoal_raylet.transfer.locations import ObjectLocations
from shoal_raylet.workers.function_cache import FunctionCache
from shoal_raylet.workers.memory_monitor import MemoryMonitor
from shoal_raylet.workers.output import Batch, WorkerOutput
from shoal_raylet.workers.processes import WorkerProcesses
from shoal_raylet.workers.template_process import TemplateProcess

log = structlog.get_logger(__name__)

#: How long the GCS may hold an answer back until a function is there, in seconds.
FUNCTION_WAIT_S = 30.0
_GCS_TIMEOUT_S = 5.0
_REGISTER_RETRY_S = 0.1
#: Last words to the GCS may take this long when the raylet stops, in seconds.
_FAREWELL_S = 1.0
#: Fresh workers kept ready on a large node.
_MAX_FRESH = 4


class RayletApp:
    """Serves one node until ``stop``.

    ``template``: a worker template that the embedded head started ahead; None starts one. The app owns it.
    ``ends_cluster``: the cluster ends with this node, so that nothing of it is handed on and its blobs are deleted.
    """

    def __init__(
        self,
        config: RayletConfig,
        bus: EventBus,
        template: TemplateProcess | None = None,
        *,
        ends_cluster: bool = False,
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
        self._incarnation = time.time_ns() // 1_000_000
        self._made_at = time.monotonic()
        self._running = False
        #: The GCS has registered this node, and not given it up since.
        self._joined = False
        #: Why it cannot go on, once it cannot.
        self._failure: asyncio.Future[str] | None = None

    def _make(self) -> None:
        """All parts; needs the running event loop, touches nothing outside but the arena's memory."""
        config, node_id = self.config, self.node_id
        self._grpc_channels: list[grpc.aio.Channel] = []
        gcs = self._grpc_channel(config.gcs_address, patient=True)
        self._nodes = NodeServiceStub(gcs)
        self._function_table = FunctionServiceStub(gcs)
        self._schedulers = Schedulers(
            {address: self._grpc_channel(address) for address in config.scheduler_addresses}, random.Random()
        )
        self._blobs = BlobClient(self._grpc_channel(config.objectstore_address))

        total = ResourceSet.of(config.total_resources)
        cpus = max(1, total["CPU"] // GRAINS)
        gpu_ids = config.gpu_ids or tuple(map(str, range(total["GPU"] // GRAINS)))
        ledger = ResourceLedger(total, {"GPU": gpu_ids} if gpu_ids else None)
        pool = WorkerPool(cpus, min(cpus, _MAX_FRESH), config.worker_startup_timeout_s, ids.new_worker_id)
        self._group_states = GroupStates(gcs)
        leases = WorkerLeases(node_id, self.labels, ledger, pool, config.infeasible_grace_s, ids.new_lease_id)
        self._arena = Arena(config.object_store_bytes)
        files = FallbackFiles((config.fallback_dir or config.session_dir) / f"fallback-{node_id.hex()[:12]}")
        index = ObjectIndex(
            self._arena.size, node_id, config.store_full_grace_s, os.fspath(files.directory), self._incarnation
        )
        self._heartbeats = Heartbeats(
            self._bus,
            subjects.heartbeat(config.cluster_id, node_id),
            self._make_heartbeat,
            nodes=lambda: len(self._directory.living()),
        )
        # The node sends for the store, and answers whose lines the output reads: each needs the other.
        self._output = WorkerOutput(config.session_dir / "logs", lambda w: self._node.source_of(w), self._publish_lines)
        self._directory = NodeDirectory(
            self._bus,
            config.cluster_id,
            self._list_nodes,
            on_lost=self._node_lost,
            on_change=lambda: self._node.nodes_changed(),
        )
        self._store = ObjectStore(
            index,
            self._arena,
            files,
            self._blobs,
            RayletLinks(config.token, config.tls, node_id, self._directory.find),
            ObjectLocations(gcs, node_id),
            self._directory,
            send=lambda peer, message: self._node.send(peer, message),
            on_change=self._heartbeats.changed,
        )
        self._processes = WorkerProcesses(
            make_config=self._worker_config,
            output=self._output,
            on_exit=lambda worker_id, status: self._node.worker_exited(worker_id, status),
            template_log=config.session_dir / "logs" / "worker-template.err",
        )
        self._monitor = MemoryMonitor(
            pool, config.memory_usage_threshold, lambda victim: self._node.killed_for_memory(victim)
        )
        self._functions = FunctionCache(self._fetch_function)
        self._failure = asyncio.get_running_loop().create_future()
        self._node = Node(
            node_id=node_id,
            ledger=ledger,
            bundles=BundleReservations(ledger),
            pool=pool,
            leases=leases,
            actors=ActorPlacement(ledger, pool),
            processes=self._processes,
            output=self._output,
            store=self._store,
            functions=self._functions,
            reports=GcsReports(gcs, node_id),
            monitor=self._monitor,
            directory=self._directory,
            ask_scheduler=self._ask_scheduler,
            on_change=self._heartbeats.changed,
        )
        tcp_at = (config.host, config.channel_port) if config.channel_port >= 0 else None
        self._channel = ChannelServer(
            self.channel_path, tcp_at, config.token, config.tls, node_id, self._arena.fd, self._arena.size
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
        add_RayletServiceServicer_to_server(RayletServicer(self._node, node_id), self._server)

    async def start(self) -> None:
        """Raises: OSError (socket or port taken), ServiceError (the GCS refuses the node or does not answer)."""
        self._make()
        self._running = True
        try:
            await self._start()
        except BaseException:
            await self.stop()
            if self._template is not None:
                await asyncio.to_thread(self._template.close)
            raise

    async def failed(self) -> str:
        """Returns when this raylet cannot go on, and why: the cluster has given it up."""
        assert self._failure is not None
        return await asyncio.shield(self._failure)

    @property
    def stop_deadline_s(self) -> float:
        """``stop`` takes so long at most."""
        return self.config.drain_s + self.config.hand_over_s + STOP_DEADLINE_S

    async def stop(self) -> None:
        """Leave the cluster, unless that ends too; end all workers and their children. Idempotent."""
        if not self._running:
            return
        self._running = False
        if self._joined and not self._ends_cluster:
            await self._leave()
        await self._heartbeats.stop()
        await self._directory.stop()
        await self._monitor.stop()
        if self._gateway is not None:
            await self._gateway.stop("the node of the gateway stops")
        self._channel.stop_accepting()
        await self._node.stop(self.config.stop_grace_s)
        await self._processes.stop()
        await asyncio.gather(
            self._output.stop(),
            self._store.stop(delete_blobs=self._ends_cluster),
            self._functions.stop(),
            self._farewell(),
        )
        self._channel.close()
        await self._server.stop(None)
        await self._blobs.close()
        for channel in self._grpc_channels:
            await channel.close()
        self._arena.close()

    async def _start(self) -> None:
        config = self.config
        self.host = await self._find_host()
        self._output.start()
        self._processes.start(self._template)
        if self._gateway is not None:
            self._gateway.listen()
        self._channel.start(self._node)
        # Workers warm up while this process registers.
        self._node.start()
        self._arena.start_prefault(config.effective_prefault_bytes)
        port = await serve(self._server, config.host, config.port, tls=config.tls)
        self.address = join_address(self.host, port)
        await self._register()
        self._joined = True
        await self._directory.start()
        self._heartbeats.start()
        self._monitor.start()
        if self._gateway is not None:
            self._gateway.start(self._inside())

    async def _leave(self) -> None:
        """Nothing new begins here, what runs may end, and what others need of this node is brought to safety."""
        config = self.config
        try:
            with service_errors():
                request = gcs_pb2.DrainNodeRequest(node_id=self.node_id, reason="the raylet is to stop")
                await self._nodes.DrainNode(request, timeout=_FAREWELL_S)
        except ServiceError as error:
            log.info("node_not_drained", reason=str(error))
        await self._node.drain(config.drain_s)
        try:
            async with asyncio.timeout(config.hand_over_s):
                await self._store.hand_over(*self._node.ending())
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

    async def _list_nodes(self) -> list[gcs_pb2.NodeInfo]:
        with service_errors():
            response = await self._nodes.ListNodes(gcs_pb2.ListNodesRequest(), timeout=_GCS_TIMEOUT_S)
        return list(response.nodes)

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
            connect_raylet=self._channel.adopt,
        )

    def _node_lost(self, node: gcs_pb2.NodeInfo) -> None:
        if node.node_id != self.node_id:
            self._node.node_lost(node)
        elif node.incarnation == self._incarnation and self._running and self._failure is not None:
            self._joined = False
            if not self._failure.done():
                self._failure.set_result(f"the cluster has declared this node dead: {node.death_reason}")

    def _grpc_channel(self, address: str, *, patient: bool = False) -> grpc.aio.Channel:
        channel = aio_channel(address, self.config.token, tls=self.config.tls, patient=patient)
        self._grpc_channels.append(channel)
        return channel

    async def _register(self) -> None:
        config = self.config
        info = gcs_pb2.NodeInfo(
            node_id=self.node_id,
            host=self.host,
            raylet_address=self.address,
            raylet_path=os.fspath(self.channel_path),
            incarnation=self._incarnation,
            total=_amounts(self._node.ledger.total),
            available=_amounts(self._node.ledger.available),
            labels=self.labels,
            object_store_bytes=self._arena.size,
            session_dir=os.fspath(config.session_dir),
            channel_port=self._channel.port,
            protocol_version=PROTOCOL_VERSION,
        )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + config.register_timeout_s
        told = False
        while True:
            try:
                with service_errors():
                    await self._nodes.RegisterNode(gcs_pb2.RegisterNodeRequest(node=info), timeout=_GCS_TIMEOUT_S)
                return
            except (Unavailable, DeadlineExceeded) as error:
                if loop.time() >= deadline:
                    raise Unavailable(
                        f"the GCS at {config.gcs_address} did not register this node within "
                        f"{config.register_timeout_s:g} s: {error}. Is it running, and is the address right? "
                        f"{advice(config.tls)}"
                    ) from error
                if not told:
                    log.warning("waiting_for_gcs", address=config.gcs_address, reason=str(error))
                told = True
                await asyncio.sleep(_REGISTER_RETRY_S)

    async def _farewell(self) -> None:
        await self._node.reports.stop(_FAREWELL_S)
        if not self._joined:
            return  # the node of this id, if there is one, is another raylet's
        try:
            with service_errors():
                request = gcs_pb2.UnregisterNodeRequest(node_id=self.node_id, reason="the raylet was stopped")
                await self._nodes.UnregisterNode(request, timeout=_FAREWELL_S)
        except ServiceError as error:
            log.info("node_not_unregistered", reason=str(error))

    async def _fetch_function(self, function_id: bytes) -> bytes:
        request = gcs_pb2.GetFunctionRequest(function_id=function_id, wait_ms=int(FUNCTION_WAIT_S * 1000))
        with service_errors():
            response = await self._function_table.GetFunction(request, timeout=FUNCTION_WAIT_S + 5)
        data: bytes = response.data
        return data

    async def _ask_scheduler(self, question: AskScheduler) -> SchedulerAnswer:
        strategy = question.strategy
        if strategy.group_id:
            reason = await self._group_states.why_removed(strategy.group_id)
            if reason:
                return SchedulerAnswer(infeasible=True, reason=reason)
        if strategy.node_id is not None and not strategy.soft:
            # There is nothing to choose, and a scheduler that has just started may not know that node yet.
            node = await self._directory.find(strategy.node_id)
            if node is None or node.state != gcs_pb2.NODE_STATE_ALIVE:
                reason = f"node {strategy.node_id.hex()} is not alive, and the task may run nowhere else (soft=False)"
                return SchedulerAnswer(infeasible=True, reason=reason)
            return SchedulerAnswer((LeasesPlaced(node.node_id, node.host, node.channel_port, question.count),))
        request = scheduler_pb2.PickNodeRequest(
            resources=_amounts(question.resources),
            strategy=strategy.outside_group().encode(),
            asking_node_id=self.node_id,
            argument_bytes={node_id.hex(): size for node_id, size in question.argument_bytes.items()},
            count=question.count,
        )
        response = await self._schedulers.pick(request)
        placed: list[LeasesPlaced] = []
        for placement in response.placements:
            node = await self._directory.find(placement.node_id)
            # A node that the GCS does not know (any more), or that others cannot reach, is none.
            if node is not None and (node.channel_port or node.node_id == self.node_id):
                placed.append(LeasesPlaced(node.node_id, node.host, node.channel_port, placement.count))
        # Bundles that no scheduler has heard of are being made, or moved.
        return SchedulerAnswer(tuple(placed), response.infeasible and not strategy.group_id, response.reason)

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
        )
        subject = subjects.log(self.config.cluster_id, source.job_id, self.node_id, source.worker_id)
        try:
            await self._bus.publish(subject, message.SerializeToString())
        except EventBusError as error:
            # The lines are in the log files still.
            log.info("lines_not_published", lines=len(batch.lines), reason=str(error))

    # --- documents ---

    def _make_heartbeat(self) -> events_pb2.Heartbeat:
        node = self._node
        store_used = node.store.index.allocator.used
        available = node.ledger.available - ResourceSet({OBJECT_STORE_MEMORY: store_used * GRAINS})
        return events_pb2.Heartbeat(
            node_id=self.node_id,
            incarnation=self._incarnation,
            # Never goes back, as a clock that is corrected does: the heartbeats after that would seem overtaken.
            sent_unix_ms=self._incarnation + int((time.monotonic() - self._made_at) * 1000),
            total=_amounts(node.ledger.total),
            available=_amounts(available),
            queued_leases=node.leases.queued,
            mean_task_us=node.leases.mean_task_us,
            store_bytes=node.store.index.allocator.capacity,
            store_used_bytes=store_used,
            labels=self.labels,
            raylet_address=self.address,
            draining=node.draining,
        )

    def _worker_config(self, worker_id: bytes) -> WorkerConfig:
        config = self.config
        return WorkerConfig(
            worker_id=worker_id,
            node_id=self.node_id,
            raylet_path=os.fspath(self.channel_path),
            gcs_address=config.gcs_address,
            cluster_id=config.cluster_id,
            token=config.token,
            session_name=config.session_name,
            session_dir=os.fspath(config.session_dir),
            host=self.host,
            listen_host=config.host if self._channel.port else "",
            env=config.worker_env,
        )


def _amounts(resources: ResourceSet) -> common_pb2.ResourceAmounts:
    return common_pb2.ResourceAmounts(grains=resources.grains)
