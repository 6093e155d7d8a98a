"""A real raylet on real sockets, with fake workers (raylet_fakes/), a fake GCS and a fake scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import mmap
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.bus.memory import MemoryBus
from shoal_common.channel import codec, frames, handshake
from shoal_common.errors import NotFound
from shoal_common.rpc.client import aio_channel, service_errors
from shoal_common.rpc.server import create_server, serve
from shoal_objectstore.app import ObjectStoreApp
from shoal_objectstore.config import ObjectStoreConfig
from shoal_proto.v1 import common_pb2, gcs_pb2, gcs_pb2_grpc, raylet_pb2, scheduler_pb2, scheduler_pb2_grpc
from shoal_proto.v1.raylet_pb2_grpc import RayletServiceStub
from shoal_raylet.app import RayletApp
from shoal_raylet.config import RayletConfig

TOKEN = "token-of-the-test"
JOB = b"job1"
ONE_CPU = (("CPU", 10_000),)
MIB = 1024 * 1024
PATIENCE_S = 20.0


class FakeGcs(
    gcs_pb2_grpc.NodeServiceServicer,
    gcs_pb2_grpc.ActorServiceServicer,
    gcs_pb2_grpc.JobServiceServicer,
    gcs_pb2_grpc.FunctionServiceServicer,
    gcs_pb2_grpc.ObjectServiceServicer,
    scheduler_pb2_grpc.SchedulerServiceServicer,
):
    """Records what it is told; ``wait_for`` waits until it was."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.functions = {b"function": b"pickle"}
        self.fetches = 0
        self._news = asyncio.Condition()

    async def _tell(self, request: Any) -> None:
        async with self._news:
            self.told.append(request)
            self._news.notify_all()

    async def wait_for(self, kind: type[Any], matches: Callable[[Any], bool] = lambda _: True) -> Any:
        def found() -> list[Any]:
            return [request for request in self.told if isinstance(request, kind) and matches(request)]

        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(found)
        return found()[0]

    async def RegisterNode(self, request: Any, context: Any) -> Any:
        await self._tell(request)
        return gcs_pb2.RegisterNodeResponse()

    async def ListNodes(self, request: Any, context: Any) -> Any:
        return gcs_pb2.ListNodesResponse()

    async def UnregisterNode(self, request: Any, context: Any) -> Any:
        await self._tell(request)
        return gcs_pb2.UnregisterNodeResponse()

    async def ReportWorkerDeath(self, request: Any, context: Any) -> Any:
        await self._tell(request)
        return gcs_pb2.ReportWorkerDeathResponse()

    async def ReportActorStarted(self, request: Any, context: Any) -> Any:
        await self._tell(request)
        return gcs_pb2.ReportActorStartedResponse()

    async def FinishJob(self, request: Any, context: Any) -> Any:
        await self._tell(request)
        return gcs_pb2.FinishJobResponse()

    async def GetFunction(self, request: Any, context: Any) -> Any:
        self.fetches += 1
        if request.function_id not in self.functions:
            raise NotFound("no such function")
        return gcs_pb2.GetFunctionResponse(data=self.functions[request.function_id])

    async def ReportSpilled(self, request: Any, context: Any) -> Any:
        await self._tell(request)
        return gcs_pb2.ReportSpilledResponse()

    async def ForgetSpilled(self, request: Any, context: Any) -> Any:
        await self._tell(request)
        return gcs_pb2.ForgetSpilledResponse()

    async def DrainNode(self, request: Any, context: Any) -> Any:
        await self._tell(request)
        return gcs_pb2.DrainNodeResponse()

    async def PickNode(self, request: Any, context: Any) -> Any:
        return scheduler_pb2.PickNodeResponse(infeasible=True, reason="node 00ff is closest and lacks 1 GPU")


class Driver:
    """The owner's end of the framed channel."""

    def __init__(self, path: Path, token: str = TOKEN, worker_id: bytes = b"driver-000000000") -> None:
        self._path = path
        self._token = token
        self.worker_id = worker_id
        self._received: list[Any] = []
        self._requests = 0

    async def connect(self, **changes: Any) -> Driver:
        await asyncio.to_thread(self._connect, changes)
        self.sock.setblocking(False)
        self._decoder = codec.Decoder(frames.RayletMessage)
        return self

    def _connect(self, changes: dict[str, Any]) -> None:
        hello = handshake.hello("driver", worker_id=self.worker_id, job_id=JOB)
        for name, value in changes.items():
            setattr(hello, name, value)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(os.fspath(self._path))
        side = handshake.Connecting(self._token, hello)
        self.sock.sendall(side.to_send())
        data, fds, _, _ = socket.recv_fds(self.sock, 65536, 1)
        try:
            side.receive(data)
        except handshake.HandshakeError:
            for fd in fds:
                os.close(fd)
            self.close()
            raise
        assert side.reply is not None
        if fds:
            self.arena = mmap.mmap(fds[0], side.reply.arena_size)
            os.close(fds[0])
        self.sock.sendall(side.to_send())

    def close(self) -> None:
        self.sock.close()
        if hasattr(self, "arena"):
            self.arena.close()

    async def send(self, *messages: frames.Message) -> None:
        data = b"".join(map(codec.encode_frame, messages))
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def expect(self, kind: type[Any]) -> Any:
        """The next message of that kind; others stay for later."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for message in self._received:
                    if isinstance(message, kind):
                        self._received.remove(message)
                        return message
                data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
                if not data:
                    raise EOFError
                self._received += self._decoder.feed(data)

    async def demand(self, total: int, resources: Any = ONE_CPU, key: int = 1, **spec: Any) -> None:
        await self.send(frames.LeaseDemand(key, total, frames.SchedulingClass("f", resources, **spec)))

    async def lease(self) -> frames.LeaseGranted:
        await self.demand(1)
        granted: frames.LeaseGranted = await self.expect(frames.LeaseGranted)
        return granted

    async def create(self, object_id: bytes, size: int) -> frames.ObjectCreated:
        self._requests += 1
        await self.send(frames.ObjectCreate(self._requests, object_id, size, self.worker_id))
        created: frames.ObjectCreated = await self.expect(frames.ObjectCreated)
        return created

    async def put(self, object_id: bytes, data: bytes) -> None:
        created = await self.create(object_id, len(data))
        assert not created.error
        with self.mapping(created, len(data)) as mapping:
            mapping[created.offset : created.offset + len(data)] = data
        await self.send(frames.ObjectSeal(object_id))

    async def locate(self, object_id: bytes) -> frames.ObjectLocated:
        self._requests += 1
        await self.send(frames.ObjectGet(self._requests, object_id))
        located: frames.ObjectLocated = await self.expect(frames.ObjectLocated)
        return located

    async def read(self, object_id: bytes) -> bytes:
        located = await self.locate(object_id)
        assert not located.error
        with self.mapping(located, located.size) as mapping:
            return bytes(mapping[located.offset : located.offset + located.size])

    @contextlib.contextmanager
    def mapping(self, place: frames.ObjectCreated | frames.ObjectLocated, size: int) -> Iterator[mmap.mmap]:
        if not place.path:
            yield self.arena
            return
        with open(place.path, "r+b") as file, mmap.mmap(file.fileno(), size) as mapping:
            yield mapping


async def tell(granted: frames.LeaseGranted | common_pb2.WorkerAddress, statements: str) -> None:
    """Have a fake worker run Python statements; returns when it has, or has died of them."""
    path = granted.worker.path if isinstance(granted, frames.LeaseGranted) else granted.path
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(statements.encode())
    writer.write_eof()
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def object_id(number: int, job: bytes = JOB) -> bytes:
    return job + number.to_bytes(20, "big")


def is_running(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while is_running(pid):  # noqa: ASYNC110 - a process of somebody else tells nobody
            await asyncio.sleep(0.01)


@dataclasses.dataclass
class Cluster:
    gcs: FakeGcs
    gcs_address: str
    raylet: RayletApp
    bus: MemoryBus
    directory: Path

    async def driver(self, **changes: Any) -> Driver:
        return await Driver(self.raylet.channel_path).connect(**changes)

    async def stats(self) -> raylet_pb2.GetStatsResponse:
        async with self.stub() as stub:
            return await stub.GetStats(raylet_pb2.GetStatsRequest())

    async def until(self, holds: Callable[[raylet_pb2.GetStatsResponse], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds(await self.stats()):  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def stub(self) -> AsyncIterator[Any]:
        async with aio_channel(self.raylet.address, TOKEN) as channel:
            with service_errors():
                yield RayletServiceStub(channel)

    async def start_actor(self, actor_id: bytes, creation: bytes = b"", incarnation: int = 1, **spec: Any) -> None:
        request = raylet_pb2.StartActorRequest(
            spec=gcs_pb2.ActorSpec(
                actor_id=actor_id, job_id=spec.pop("job_id", JOB), class_name="A", creation=creation, **spec
            ),
            incarnation=incarnation,
        )
        async with self.stub() as stub:
            await stub.StartActor(request)

    def processes(self) -> list[int]:
        """Everything that runs and belongs to this raylet's session."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if str(self.directory).encode() in (entry / "environ").read_bytes() and is_running(int(entry.name)):
                    found.append(int(entry.name))
        return [pid for pid in found if pid != os.getpid()]


Start = Callable[..., Any]


@contextlib.asynccontextmanager
async def raylets(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """For a fixture: starts a cluster with the given settings of its raylet; all of it has ended after the test."""
    monkeypatch.setenv("PYTHONPATH", os.fspath(Path(__file__).with_name("raylet_fakes")))
    monkeypatch.setenv("SHOAL_TEST_DIRECTORY", os.fspath(directory))
    async with contextlib.AsyncExitStack() as stack:

        async def begin(blob_store: Any = None, **settings: Any) -> Cluster:
            gcs = FakeGcs()
            server = create_server(TOKEN)
            gcs_pb2_grpc.add_NodeServiceServicer_to_server(gcs, server)
            gcs_pb2_grpc.add_ActorServiceServicer_to_server(gcs, server)
            gcs_pb2_grpc.add_JobServiceServicer_to_server(gcs, server)
            gcs_pb2_grpc.add_FunctionServiceServicer_to_server(gcs, server)
            gcs_pb2_grpc.add_ObjectServiceServicer_to_server(gcs, server)
            scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(gcs, server)
            gcs_address = f"127.0.0.1:{await serve(server, '127.0.0.1', 0)}"
            stack.push_async_callback(server.stop, None)
            blob_directory = directory / "blobs"
            blobs = ObjectStoreApp(
                ObjectStoreConfig(token=TOKEN, port=0, directory=blob_directory),
                blob_store or DirectoryBlobStore(blob_directory),
            )
            await blobs.start()
            stack.push_async_callback(blobs.stop)
            config = RayletConfig(
                **{
                    "token": TOKEN,
                    "gcs_address": gcs_address,
                    "scheduler_addresses": (gcs_address,),
                    "objectstore_address": blobs.address,
                    "cluster_id": "test",
                    "session_dir": directory,
                    "resources": {"CPU": 2},
                    "object_store_bytes": 16 * MIB,
                    **settings,
                }
            )
            bus = MemoryBus()
            raylet = RayletApp(config, bus, ends_cluster=True)
            await raylet.start()
            cluster = Cluster(gcs, gcs_address, raylet, bus, directory)

            async def end() -> None:
                await raylet.stop()
                assert cluster.processes() == []
                assert not raylet.channel_path.exists()
                assert list(config.session_dir.glob("fallback*/*")) == []

            stack.push_async_callback(end)
            return cluster

        yield begin
