"""A GCS on SQLite, with raylets that record and a scheduler that answers as told; all sockets are real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from shoal_common import errors
from shoal_common.bus import subjects
from shoal_common.bus.gcs import GcsBus
from shoal_common.bus.memory import MemoryBus
from shoal_common.channel.frames import PROTOCOL_VERSION
from shoal_common.ids import JobID, new_actor_id
from shoal_common.metadata.sqlite import SqliteMetadataStore
from shoal_common.rpc.client import aio_channel, service_errors
from shoal_common.rpc.server import create_server, serve
from shoal_gcs.app import GcsApp
from shoal_gcs.config import GcsConfig
from shoal_proto.v1 import common_pb2, events_pb2, raylet_pb2, raylet_pb2_grpc, scheduler_pb2, scheduler_pb2_grpc
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

TOKEN = "token-of-this-test"
CLUSTER = "c"
DRIVER = b"d" * 16
N1, N2 = b"1" * 16, b"2" * 16
CRASH = common_pb2.WorkerExit(kind=common_pb2.EXIT_KIND_SYSTEM_ERROR, detail="killed by SIGKILL")
STOPPED = common_pb2.WorkerExit(kind=common_pb2.EXIT_KIND_INTENDED_SYSTEM_EXIT, detail="asked to end")


class Mailbox:
    """What a fake was asked, in order; a test takes it and fails when it waits in vain."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, item: Any) -> None:
        self._queue.put_nowait(item)

    async def take(self) -> Any:
        async with asyncio.timeout(60):
            return await self._queue.get()

    def is_empty(self) -> bool:
        return self._queue.empty()


class Fake:
    """A service that the GCS calls, on a port of its own."""

    def __init__(self) -> None:
        self.address = ""
        self.server = create_server(TOKEN)

    async def listen(self) -> None:
        self.address = f"127.0.0.1:{await serve(self.server, '127.0.0.1', 0)}"


class FakeNode(Fake, raylet_pb2_grpc.RayletServiceServicer):
    """A raylet with 4 CPUs."""

    def __init__(self, node_id: bytes) -> None:
        super().__init__()
        self.node_id = node_id
        raylet_pb2_grpc.add_RayletServiceServicer_to_server(self, self.server)

    def info(self, incarnation: int = 1) -> pb.NodeInfo:
        return pb.NodeInfo(
            node_id=self.node_id,
            host="h",
            raylet_address=self.address,
            incarnation=incarnation,
            total=common_pb2.ResourceAmounts(grains={"CPU": 40_000}),
            protocol_version=PROTOCOL_VERSION,
        )


class FakeRaylet(FakeNode):
    """Starts and stops nothing: it writes down what it is asked."""

    def __init__(self, node_id: bytes) -> None:
        super().__init__(node_id)
        self.started, self.stopped, self.ended = Mailbox(), Mailbox(), Mailbox()
        #: Unset: it starts actors, and answers later.
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        #: Errors that the next StartActor calls answer with.
        self.refusals: list[errors.ServiceError] = []
        #: True: it does not understand any request to end something.
        self.is_deaf = False

    def _check_hearing(self) -> None:
        if self.is_deaf:
            raise errors.Unavailable("deaf")

    async def StartActor(self, request: raylet_pb2.StartActorRequest, context: Any) -> raylet_pb2.StartActorResponse:
        if self.refusals:
            raise self.refusals.pop(0)
        self.started.put(request)
        await self.may_answer.wait()
        return raylet_pb2.StartActorResponse()

    async def StopWorker(self, request: raylet_pb2.StopWorkerRequest, context: Any) -> raylet_pb2.StopWorkerResponse:
        self._check_hearing()
        self.stopped.put(request)
        return raylet_pb2.StopWorkerResponse()

    async def EndJob(self, request: raylet_pb2.EndJobRequest, context: Any) -> raylet_pb2.EndJobResponse:
        self._check_hearing()
        self.ended.put(request)
        return raylet_pb2.EndJobResponse()

    async def GetStats(self, request: raylet_pb2.GetStatsRequest, context: Any) -> raylet_pb2.GetStatsResponse:
        return raylet_pb2.GetStatsResponse(node_id=self.node_id)


class FakeScheduler(Fake, scheduler_pb2_grpc.SchedulerServiceServicer):
    """Answers ``answer``, whatever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        #: True: it refuses to answer, as one that is being started.
        self.is_away = False
        self.asked = Mailbox()
        self.answer = scheduler_pb2.PickNodeResponse(node_id=N1)
        scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(self, self.server)

    async def PickNode(self, request: scheduler_pb2.PickNodeRequest, context: Any) -> scheduler_pb2.PickNodeResponse:
        self.asked.put(request)
        if self.is_away:
            raise errors.Unavailable("away")
        return self.answer


class RestartableGcs:
    """A real GCS that can be stopped and started again on the same store, and the fakes that it calls."""

    def __init__(self, path: Path, *fakes: Fake, bus: MemoryBus | None = None, **settings: Any) -> None:
        """``bus``: for others besides; it stays its maker's to close."""
        self.path = path
        self.fakes = list(fakes)
        self.shared_bus = bus
        self.config = GcsConfig(
            **{
                "token": TOKEN,
                "port": 0,
                "cluster_id": CLUSTER,
                "session_name": "the-session",
                "silence_s": 600.0,
                **settings,
            }
        )

    async def __aenter__(self) -> Self:
        for fake in self.fakes:
            await fake.listen()
        await self.start_gcs()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop_gcs()
        for fake in self.fakes:
            await fake.server.stop(None)

    async def start_gcs(self, **settings: Any) -> None:
        self.config = replace(self.config, **settings)
        self.store = SqliteMetadataStore(self.path)
        self.bus = self.shared_bus or MemoryBus()
        self.app = GcsApp(self.config, self.store, self.bus)
        await self.app.start()
        self.channel = aio_channel(self.app.address, TOKEN)
        self.jobs: Any = rpc.JobServiceStub(self.channel)
        self.nodes: Any = rpc.NodeServiceStub(self.channel)
        self.actors: Any = rpc.ActorServiceStub(self.channel)
        self.groups: Any = rpc.PlacementGroupServiceStub(self.channel)
        self.functions: Any = rpc.FunctionServiceStub(self.channel)
        self.objects: Any = rpc.ObjectServiceStub(self.channel)

    async def stop_gcs(self) -> None:
        await self.channel.close()
        await self.app.stop()
        if self.shared_bus is None:
            await self.bus.close()
        await self.store.close()

    async def restart_gcs(self, **settings: Any) -> None:
        await self.stop_gcs()
        await self.start_gcs(**settings)

    async def start_job(self, namespace: str = "space", driver_id: bytes = DRIVER, node_id: bytes = b"") -> bytes:
        request = pb.StartJobRequest(driver_id=driver_id, namespace=namespace, pid=7, node_id=node_id)
        answer = await self.jobs.StartJob(request)
        job_id: bytes = answer.job_id
        return job_id

    async def create(self, job_id: bytes, owner_id: bytes = DRIVER, **spec: Any) -> bytes:
        actor_id = spec.pop("actor_id", None) or new_actor_id(JobID(job_id))
        await self.actors.CreateActor(
            pb.CreateActorRequest(
                spec=pb.ActorSpec(
                    **{
                        "actor_id": actor_id,
                        "job_id": job_id,
                        "owner_id": owner_id,
                        "class_name": "Counter",
                        "placement": common_pb2.ResourceAmounts(grains={"CPU": 10_000}),
                        "creation": b"creation",
                        "handle": b"handle",
                        **spec,
                    }
                )
            )
        )
        return actor_id

    async def actor(self, actor_id: bytes, known_version: int = 0, wait_ms: int = 0) -> pb.ActorInfo:
        request = pb.WaitActorRequest(actor_id=actor_id, known_version=known_version, wait_ms=wait_ms)
        with service_errors():
            return (await self.actors.WaitActor(request)).actor  # type: ignore[no-any-return]

    async def until(self, actor_id: bytes, state: pb.ActorState.ValueType, incarnation: int = 0) -> pb.ActorInfo:
        """At least in that incarnation."""
        async with asyncio.timeout(60):
            info = await self.actor(actor_id, 0, 5_000)
            while info.state != state or info.incarnation < incarnation:
                info = await self.actor(actor_id, info.version, 5_000)
            return info

    async def kill(self, actor_id: bytes, no_restart: bool = True) -> None:
        with service_errors():
            await self.actors.KillActor(pb.KillActorRequest(actor_id=actor_id, no_restart=no_restart))

    async def finish(self, job_id: bytes) -> None:
        await self.jobs.FinishJob(pb.FinishJobRequest(job_id=job_id))

    async def node(self, node_id: bytes) -> pb.NodeInfo:
        nodes = (await self.nodes.ListNodes(pb.ListNodesRequest())).nodes
        return next(node for node in nodes if node.node_id == node_id)  # type: ignore[no-any-return]

    async def beat(self, node_id: bytes, free: int, sent_unix_ms: int = 1) -> None:
        """A heartbeat of a node of 4 CPUs, of which so many grains are free."""
        beat = events_pb2.Heartbeat(
            node_id=node_id,
            incarnation=1,
            sent_unix_ms=sent_unix_ms,
            total=common_pb2.ResourceAmounts(grains={"CPU": 40_000}),
            available=common_pb2.ResourceAmounts(grains={"CPU": free}),
        )
        await self.bus.publish(subjects.heartbeat(CLUSTER, node_id), beat.SerializeToString())


class Cluster(RestartableGcs):
    """With two raylets, and one scheduler."""

    def __init__(self, path: Path) -> None:
        self.scheduler = FakeScheduler()
        self.raylet, self.raylet_2 = FakeRaylet(N1), FakeRaylet(N2)
        super().__init__(path, self.scheduler, self.raylet, self.raylet_2)

    async def start_gcs(self, **settings: Any) -> None:
        await super().start_gcs(**{"scheduler_addresses": (self.scheduler.address,), **settings})

    async def join(self, raylet: FakeRaylet | None = None, incarnation: int = 1) -> None:
        info = (raylet or self.raylet).info(incarnation)
        await self.nodes.RegisterNode(pb.RegisterNodeRequest(node=info))

    async def run(self, job_id: bytes, owner_id: bytes = DRIVER, **spec: Any) -> tuple[bytes, bytes]:
        """An actor that runs on the first node; returns its id and its worker's."""
        actor_id = await self.create(job_id, owner_id, **spec)
        return actor_id, await self.report_started(actor_id, (await self.raylet.started.take()).incarnation)

    async def report_started(self, actor_id: bytes, incarnation: int = 1, node_id: bytes = N1, **report: Any) -> bytes:
        worker_id = actor_id[:15] + bytes([incarnation])
        address = common_pb2.WorkerAddress(node_id=node_id, worker_id=worker_id, path="/socket")
        await self.actors.ReportActorStarted(
            pb.ReportActorStartedRequest(actor_id=actor_id, incarnation=incarnation, address=address, pid=99, **report)
        )
        return worker_id

    async def report_death(
        self, worker_id: bytes, actor_id: bytes = b"", incarnation: int = 1, exit: common_pb2.WorkerExit = CRASH
    ) -> None:
        await self.nodes.ReportWorkerDeath(
            pb.ReportWorkerDeathRequest(
                node_id=N1, worker_id=worker_id, actor_id=actor_id, incarnation=incarnation, exit=exit
            )
        )

    async def named(self, name: str, namespace: str = "space") -> pb.GetNamedActorResponse:
        with service_errors():
            return await self.actors.GetNamedActor(  # type: ignore[no-any-return]
                pb.GetNamedActorRequest(name=name, namespace=namespace)
            )


@asynccontextmanager
async def events_of(cluster: Cluster, pattern: str) -> AsyncIterator[Mailbox]:
    mailbox = Mailbox()
    bus = GcsBus(cluster.channel)
    await bus.subscribe(pattern, lambda subject, data: mailbox.put((subject, data)))
    yield mailbox
    await bus.close()


async def until_not_found(call: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(errors.NotFound):
            while True:
                with service_errors():
                    await call()
