"""A real raylet on real sockets, with a real GCS and scheduler in this process, and fake workers (raylet_fakes/)."""

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
from support.gcs import TOKEN, RestartableGcs
from support.processes import PATIENCE_S

from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.bus.memory import MemoryBus
from shoal_common.channel import codec, frames, handshake
from shoal_common.rpc.client import aio_channel, service_errors
from shoal_objectstore.app import ObjectStoreApp
from shoal_objectstore.config import ObjectStoreConfig
from shoal_proto.v1 import common_pb2, gcs_pb2, raylet_pb2
from shoal_proto.v1.raylet_pb2_grpc import RayletServiceStub
from shoal_raylet.app import RayletApp
from shoal_raylet.config import RayletConfig
from shoal_scheduler.app import SchedulerApp
from shoal_scheduler.config import SchedulerConfig

#: The first job of a cluster, which is that of ``Driver``.
JOB = b"\0\0\0\1"
DRIVER = b"driver-000000000"
ONE_CPU = (("CPU", 10_000),)
MIB = 1024 * 1024


class Driver:
    """The owner's end of the framed channel."""

    def __init__(self, path: Path, token: str = TOKEN, worker_id: bytes = DRIVER) -> None:
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
    gcs: RestartableGcs
    scheduler: SchedulerApp
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

    async def start_actor(self, actor_id: bytes, incarnation: int = 1, **spec: Any) -> None:
        """By asking the raylet, as a GCS does that has forgotten what it asked before."""
        request = raylet_pb2.StartActorRequest(
            spec=gcs_pb2.ActorSpec(actor_id=actor_id, job_id=JOB, class_name="A", **spec), incarnation=incarnation
        )
        async with self.stub() as stub:
            await stub.StartActor(request)

    async def create_actor(self, creation: bytes = b"", **spec: Any) -> bytes:
        """By asking the GCS, which finds a node for it."""
        return await self.gcs.create(JOB, DRIVER, creation=creation, **spec)

    async def until_gcs_knows_of_end(self, worker_id: bytes) -> None:
        """Of a worker: what it owns dies, although no node has room for it."""
        no_room = common_pb2.ResourceAmounts(grains={"GPU": 10_000})
        owned = await self.gcs.create(JOB, worker_id, placement=no_room)
        assert (await self.gcs.until(owned, gcs_pb2.ACTOR_STATE_DEAD)).owner_died

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
            bus = MemoryBus()
            scheduler = SchedulerApp(SchedulerConfig(token=TOKEN, port=0, cluster_id="test"), bus)
            await scheduler.start()
            stack.push_async_callback(scheduler.stop)
            gcs = RestartableGcs(
                directory / "gcs.sqlite", bus=bus, cluster_id="test", scheduler_addresses=(scheduler.address,)
            )
            await stack.enter_async_context(gcs)
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
                    "gcs_address": gcs.app.address,
                    "scheduler_addresses": (scheduler.address,),
                    "objectstore_address": blobs.address,
                    "cluster_id": "test",
                    "session_dir": directory,
                    "resources": {"CPU": 2},
                    "object_store_bytes": 16 * MIB,
                    **settings,
                }
            )
            raylet = RayletApp(config, bus, ends_cluster=True)
            await raylet.start()
            cluster = Cluster(gcs, scheduler, raylet, bus, directory)
            assert await gcs.start_job(driver_id=DRIVER, node_id=raylet.node_id) == JOB

            async def end() -> None:
                await raylet.stop()
                assert cluster.processes() == []
                assert not raylet.channel_path.exists()
                assert list(config.session_dir.glob("fallback*/*")) == []

            stack.push_async_callback(end)
            return cluster

        yield begin
