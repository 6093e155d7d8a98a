"""A real raylet on real sockets, with fake workers (raylet_fakes/) and a fake GCS and scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.processes import command, descendants

from shoal_common import frames, handshake
from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.bus.memory import MemoryBus
from shoal_common.errors import NotFound, ResourceExhausted
from shoal_common.grpc_channel import aio_channel, service_errors
from shoal_common.grpc_server import create_server, serve
from shoal_common.resources import GRAINS
from shoal_objectstore.app import ObjectStoreApp
from shoal_objectstore.config import ObjectStoreConfig
from shoal_proto.v1 import common_pb2, events_pb2, gcs_pb2, gcs_pb2_grpc, raylet_pb2, scheduler_pb2, scheduler_pb2_grpc
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
        self._decoder = frames.FrameDecoder(frames.RayletMessage)
        return self

    def _connect(self, changes: dict[str, Any]) -> None:
        hello = frames.Hello(
            version=frames.PROTOCOL_VERSION,
            nonce=handshake.new_nonce(),
            role="driver",
            node_id=b"",
            worker_id=self.worker_id,
            job_id=JOB,
            pid=os.getpid(),
            python=handshake.python_minor(),
        )
        for name, value in changes.items():
            setattr(hello, name, value)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(os.fspath(self._path))
        self.sock.sendall(frames.encode_frame(hello))
        data, fds, _, _ = socket.recv_fds(self.sock, 65536, 1)
        reply = frames.FrameDecoder(frames.HelloReply).feed(data)[0]
        if fds:
            self.arena = mmap.mmap(fds[0], reply.arena_size)
            os.close(fds[0])
        try:
            handshake.check_reply(self._token, hello.nonce, reply)
        except BaseException:
            self.close()
            raise
        proof = handshake.prove(self._token, b"connecting", hello.nonce, reply.nonce)
        self.sock.sendall(frames.encode_frame(frames.HelloProof(proof)))

    def close(self) -> None:
        self.sock.close()
        if hasattr(self, "arena"):
            self.arena.close()

    async def send(self, *messages: frames.Message) -> None:
        data = b"".join(map(frames.encode_frame, messages))
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


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Starts a cluster with the given settings of its raylet; everything of it has ended after the test."""
    monkeypatch.setenv("PYTHONPATH", os.fspath(Path(__file__).with_name("raylet_fakes")))
    monkeypatch.setenv("SHOAL_TEST_DIRECTORY", os.fspath(tmp_path))
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
            directory = tmp_path / "blobs"
            blobs = ObjectStoreApp(
                ObjectStoreConfig(token=TOKEN, port=0, directory=directory), blob_store or DirectoryBlobStore(directory)
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
                    "session_dir": tmp_path,
                    "resources": {"CPU": 2},
                    "object_store_bytes": 16 * MIB,
                    **settings,
                }
            )
            bus = MemoryBus()
            raylet = RayletApp(config, bus, ends_cluster=True)
            await raylet.start()
            cluster = Cluster(gcs, gcs_address, raylet, bus, tmp_path)

            async def end() -> None:
                await raylet.stop()
                assert cluster.processes() == []
                assert not raylet.channel_path.exists()
                assert list(config.session_dir.glob("fallback*/*")) == []

            stack.push_async_callback(end)
            return cluster

        yield begin


# --- the channel ---


async def test_a_wrong_token_is_found_out_by_both_sides(start: Start) -> None:
    cluster = await start()
    driver = Driver(cluster.raylet.channel_path, token="another token")
    with pytest.raises(handshake.HandshakeError, match="wrong token"):
        await driver.connect()

    # A process that does not check the raylet's proof and sends its own all the same.
    impostor = Driver(cluster.raylet.channel_path, token="another token")
    original, handshake.check_reply = handshake.check_reply, lambda *_: None
    try:
        await impostor.connect()
    finally:
        handshake.check_reply = original
    with pytest.raises((EOFError, ConnectionError)):
        await impostor.send(frames.ObjectGet(1, object_id(1)))
        await impostor.expect(frames.ObjectLocated)
    impostor.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"python": "3.7"}, r"Python 3\.7 cannot join"),
        ({"version": 99}, "protocol version 99"),
        ({"job_id": b""}, "must have a job"),
        ({"role": "worker"}, "not expected"),
        ({"role": "raylet"}, "no business here"),
    ],
)
async def test_a_peer_that_cannot_be_served_is_told_why(start: Start, changes: dict[str, Any], reason: str) -> None:
    cluster = await start()
    with pytest.raises(handshake.HandshakeError, match=reason):
        await cluster.driver(**changes)


async def test_garbage_ends_the_connection_and_nothing_else(start: Start) -> None:
    cluster = await start()
    driver, other = await cluster.driver(), await cluster.driver(worker_id=b"other-0000000000")
    await asyncio.get_running_loop().sock_sendall(driver.sock, b"\xff" * 64)
    with pytest.raises((EOFError, ConnectionError)):
        await driver.expect(frames.LogsFlushed)
    await other.put(object_id(1), b"still here")
    assert await other.read(object_id(1)) == b"still here"
    driver.close()
    other.close()


# --- worker leases ---


async def test_a_lease_is_granted_returned_and_its_worker_used_again(start: Start) -> None:
    cluster = await start()
    driver = await cluster.driver()
    first = await driver.lease()
    assert first.worker.worker_id and is_running(first.pid)
    await driver.send(frames.LeaseReturned(first.lease_id))
    await driver.demand(2)
    second = await driver.expect(frames.LeaseGranted)
    assert (second.pid, second.lease_id != first.lease_id) == (first.pid, True)
    driver.close()


async def test_no_more_leases_than_cpus_until_one_blocks(start: Start) -> None:
    cluster = await start()
    driver = await cluster.driver()
    await driver.demand(3)
    granted = [await driver.expect(frames.LeaseGranted) for _ in range(2)]
    await cluster.until(lambda stats: stats.queued_leases == 1)
    await tell(granted[0], "raylet.send(frames.Blocked())")
    granted.append(await driver.expect(frames.LeaseGranted))
    assert len({lease.pid for lease in granted}) == 3
    driver.close()


@pytest.mark.parametrize(
    ("statements", "kind", "detail"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SYSTEM_ERROR", "killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SYSTEM_ERROR", "killed by SIGSEGV"),
        ("os._exit(3)", "SYSTEM_ERROR", "exited with code 3"),
        (
            "raylet.send(frames.ExitIntent('INTENDED_USER_EXIT', 'max_calls reached')); os._exit(0)",
            "INTENDED_USER_EXIT",
            "max_calls reached",
        ),
    ],
)
async def test_a_lost_lease_names_the_reason(start: Start, statements: str, kind: str, detail: str) -> None:
    cluster = await start()
    driver = await cluster.driver()
    granted = await driver.lease()
    await tell(granted, statements)
    lost = await driver.expect(frames.LeaseLost)
    assert (lost.lease_id, lost.kind) == (granted.lease_id, kind)
    assert detail in lost.detail
    report = await cluster.gcs.wait_for(gcs_pb2.ReportWorkerDeathRequest)
    assert report.worker_id == granted.worker.worker_id
    assert detail in report.exit.detail
    await cluster.until(lambda stats: stats.available.grains["CPU"] == 20_000)
    driver.close()


async def test_an_infeasible_class_is_refused_with_what_is_missing(start: Start) -> None:
    cluster = await start(infeasible_grace_s=0)
    driver = await cluster.driver()
    await driver.demand(1, (("GPU", 10_000),))
    refused = await driver.expect(frames.LeaseRefused)
    assert refused.kind == "infeasible"
    assert "1 GPU" in refused.reason and "node 00ff is closest" in refused.reason
    driver.close()


async def test_workers_that_do_not_start_are_told_with_their_error(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_WORKER_FAILS", "1")
    cluster = await start()
    driver = await cluster.driver()
    await driver.demand(1)
    refused = await driver.expect(frames.LeaseRefused)
    assert refused.kind == "worker_start"
    assert "ModuleNotFoundError" in refused.reason
    driver.close()


async def test_without_a_template_workers_start_plainly(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_TEMPLATE_FAILS", "1")
    cluster = await start()
    driver = await cluster.driver()
    granted = await driver.lease()
    await tell(granted, "os._exit(4)")
    assert "code 4" in (await driver.expect(frames.LeaseLost)).detail
    driver.close()


async def test_idle_workers_beyond_the_cpus_exit(start: Start) -> None:
    cluster = await start(resources={"CPU": 1})
    driver = await cluster.driver()
    leases = [await driver.lease()]
    await tell(leases[0], "raylet.send(frames.Blocked())")
    await driver.demand(2)
    leases.append(await driver.expect(frames.LeaseGranted))
    await driver.send(*(frames.LeaseReturned(lease.lease_id) for lease in leases))
    await until_gone(leases[0].pid)
    assert is_running(leases[1].pid)
    driver.close()


# --- actors ---


async def test_an_actor_is_started_and_its_end_reported(start: Start) -> None:
    cluster = await start()
    await cluster.start_actor(b"actor", held=common_pb2.ResourceAmounts(grains={"CPU": 10_000}))
    started = await cluster.gcs.wait_for(gcs_pb2.ReportActorStartedRequest)
    assert (started.actor_id, started.incarnation, started.failure) == (b"actor", 1, "")
    assert is_running(started.pid) and started.address.path
    assert (await cluster.stats()).available.grains["CPU"] == 10_000
    async with cluster.stub() as stub:
        await stub.StopWorker(raylet_pb2.StopWorkerRequest(actor_id=b"actor", force=True, reason="ray.kill"))
    report = await cluster.gcs.wait_for(gcs_pb2.ReportWorkerDeathRequest)
    assert (report.actor_id, report.incarnation) == (b"actor", 1)
    assert (report.exit.kind, report.exit.detail) == (common_pb2.EXIT_KIND_INTENDED_SYSTEM_EXIT, "ray.kill")
    assert (await cluster.stats()).available.grains["CPU"] == 20_000


async def test_a_later_incarnation_replaces_the_earlier_one(start: Start) -> None:
    cluster = await start()
    held = common_pb2.ResourceAmounts(grains={"CPU": 10_000})
    await cluster.start_actor(b"actor", held=held)
    first = await cluster.gcs.wait_for(gcs_pb2.ReportActorStartedRequest)
    with pytest.raises(ResourceExhausted, match="an earlier incarnation has not ended yet"):
        await cluster.start_actor(b"actor", held=held, incarnation=2)
    await cluster.gcs.wait_for(gcs_pb2.ReportWorkerDeathRequest)
    assert not is_running(first.pid)
    await cluster.start_actor(b"actor", held=held, incarnation=2)
    second = await cluster.gcs.wait_for(gcs_pb2.ReportActorStartedRequest, lambda report: report.incarnation == 2)
    assert is_running(second.pid)
    assert (await cluster.stats()).available.grains["CPU"] == 10_000


async def test_a_constructor_that_raises_or_crashes(start: Start) -> None:
    cluster = await start()
    await cluster.start_actor(b"raises", b"raise")
    await cluster.start_actor(b"crashes", b"crash")
    started = await cluster.gcs.wait_for(gcs_pb2.ReportActorStartedRequest)
    assert (started.actor_id, started.creation_error) == (b"raises", b"ValueError")
    crash = await cluster.gcs.wait_for(gcs_pb2.ReportWorkerDeathRequest, lambda r: r.actor_id == b"crashes")
    assert "exited with code 5" in crash.exit.detail


async def test_an_actor_without_room_is_refused_and_the_room_set_aside(start: Start) -> None:
    cluster = await start(resources={"CPU": 1})
    driver = await cluster.driver()
    await driver.demand(2)
    granted = await driver.expect(frames.LeaseGranted)
    placement = common_pb2.ResourceAmounts(grains={"CPU": 10_000})
    with pytest.raises(ResourceExhausted, match="free"):
        await cluster.start_actor(b"actor", placement=placement)
    reclaim = await driver.expect(frames.LeaseReclaim)
    assert reclaim.lease_id == granted.lease_id
    await driver.send(frames.LeaseReturned(granted.lease_id))
    await cluster.until(lambda stats: stats.available.grains["CPU"] == 10_000)
    await cluster.start_actor(b"actor", placement=placement)
    # It holds nothing for life, so the task has its turn now.
    await driver.expect(frames.LeaseGranted)
    driver.close()


# --- objects ---


async def test_an_object_is_written_read_and_freed(start: Start) -> None:
    cluster = await start()
    driver, reader = await cluster.driver(), await cluster.driver(worker_id=b"reader-000000000")
    data = os.urandom(3 * MIB)
    await driver.put(object_id(1), data)
    assert await reader.read(object_id(1)) == data
    assert (await cluster.stats()).store_objects == 1
    await driver.send(frames.ObjectFree([object_id(1)]))
    # The reader still has it pinned, and is asked to let go.
    assert (await reader.expect(frames.ObjectUncache)).object_ids == [object_id(1)]
    assert (await cluster.stats()).store_used_bytes == len(data)
    await reader.send(frames.ObjectUnpin(object_id(1)))
    await cluster.until(lambda stats: stats.store_used_bytes == 0)
    assert "ObjectLostError" in (await reader.locate(object_id(1))).error
    driver.close()
    reader.close()


async def test_more_data_than_the_store_is_spilled_and_restored(start: Start) -> None:
    cluster = await start()
    driver = await cluster.driver()
    contents = {object_id(i): os.urandom(3 * MIB) for i in range(16)}
    for key, data in contents.items():
        await driver.put(key, data)
    stats = await cluster.stats()
    assert stats.spilled_bytes >= 48 * MIB - 16 * MIB
    for key, data in contents.items():
        assert await driver.read(key) == data
        await driver.send(frames.ObjectUnpin(key))
    assert (await cluster.stats()).restored_bytes > 0
    await driver.send(frames.ObjectFree(list(contents)))
    await cluster.until(lambda stats: stats.spilled_bytes == 0 and stats.store_used_bytes == 0)

    def blobs() -> list[Path]:
        # Unlike rglob, it does not mind that directories go meanwhile.
        walk = os.walk(cluster.directory / "blobs")
        return [Path(directory, name) for directory, _, names in walk for name in names]

    async with asyncio.timeout(PATIENCE_S):
        while blobs():  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(0.01)
    driver.close()


async def test_a_store_full_of_pinned_objects_goes_on_in_files(start: Start, tmp_path: Path) -> None:
    cluster = await start(store_full_grace_s=0.2)
    driver = await cluster.driver()
    for i in range(4):
        await driver.put(object_id(i), bytes(4 * MIB - 4096))
        await driver.locate(object_id(i))
    sizes = {8: 4 * MIB, 9: 17 * MIB}
    for i, size in sizes.items():
        await driver.put(object_id(i), bytes([i]) * size)
    for i, size in sizes.items():
        assert await driver.read(object_id(i)) == bytes([i]) * size
    assert len(list(tmp_path.glob("fallback*/*"))) == 2
    await driver.send(frames.ObjectUnpin(object_id(8)), frames.ObjectUnpin(object_id(9)))
    await driver.send(frames.ObjectFree([object_id(8), object_id(9)]))
    async with asyncio.timeout(PATIENCE_S):
        while list(tmp_path.glob("fallback*/*")):  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(0.01)
    driver.close()


async def test_a_spilled_object_is_restored_to_a_file_when_the_store_is_full(start: Start) -> None:
    cluster = await start(store_full_grace_s=0.2)
    driver = await cluster.driver()
    await driver.put(object_id(1), b"1" * 12 * MIB)
    await driver.put(object_id(2), b"2" * 12 * MIB)
    await driver.locate(object_id(2))
    assert await driver.read(object_id(1)) == b"1" * 12 * MIB
    driver.close()


async def test_a_process_keeps_its_bytes_when_the_raylet_has_removed_the_file(start: Start) -> None:
    cluster = await start()
    driver = await cluster.driver()
    await driver.put(object_id(1), b"x" * 17 * MIB)
    located = await driver.locate(object_id(1))
    with driver.mapping(located, located.size) as mapping:
        driver.close()
        async with asyncio.timeout(PATIENCE_S):
            while os.path.exists(located.path):  # noqa: ASYNC110 - files tell nobody
                await asyncio.sleep(0.01)
        assert mapping[-1:] == b"x"


async def test_creators_wait_while_pinned_objects_hold_the_room(start: Start) -> None:
    cluster = await start(store_full_grace_s=PATIENCE_S)
    driver = await cluster.driver()
    await driver.put(object_id(1), bytes(12 * MIB))
    await driver.locate(object_id(1))
    waiting = asyncio.create_task(driver.create(object_id(2), 8 * MIB))
    other = await cluster.driver(worker_id=b"other-0000000000")
    assert not waiting.done()
    await driver.send(frames.ObjectUnpin(object_id(1)))
    created = await waiting
    assert not created.error and not created.path
    driver.close()
    other.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 8 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "shoal-test", path], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


async def test_a_full_disk_is_named_and_nothing_is_lost(start: Start, small_disk: Path) -> None:
    full = DirectoryBlobStore(small_disk / "blobs", min_free_bytes=1 << 60)
    cluster = await start(blob_store=full, store_full_grace_s=0.2, fallback_dir=small_disk)
    driver = await cluster.driver()
    await driver.put(object_id(1), b"1" * 12 * MIB)
    await driver.put(object_id(2), b"2" * 6 * MIB)
    for size in (6 * MIB, 17 * MIB):
        created = await driver.create(object_id(3), size)
        assert created.error.startswith("OutOfDiskError: ")
        assert "2.0 MiB left" in created.error
    assert await driver.read(object_id(1)) == b"1" * 12 * MIB
    assert await driver.read(object_id(2)) == b"2" * 6 * MIB
    await driver.send(frames.ObjectUnpin(object_id(2)), frames.ObjectFree([object_id(2)]))
    await driver.put(object_id(3), b"3" * 6 * MIB)
    driver.close()


# --- functions and output ---


async def test_functions_are_fetched_once(start: Start) -> None:
    cluster = await start()
    driver = await cluster.driver()
    await driver.send(*(frames.FunctionGet(request, b"function") for request in range(5)))
    answers = [await driver.expect(frames.FunctionData) for _ in range(5)]
    assert {answer.data for answer in answers} == {b"pickle"}
    assert cluster.gcs.fetches == 1
    await driver.send(frames.FunctionGet(9, b"unknown"))
    assert "no such function" in (await driver.expect(frames.FunctionData)).error
    driver.close()


async def test_what_workers_print_is_published_under_its_name(start: Start) -> None:
    cluster = await start()
    batches: list[events_pb2.LogBatch] = []
    await cluster.bus.subscribe(
        "shoal.test.log.>", lambda _, data: batches.append(events_pb2.LogBatch.FromString(data))
    )
    driver = await cluster.driver()
    granted = await driver.lease()
    await tell(granted, "print('one'); print('\\x01shoal-name:g'); print('two', flush=True); os.write(2, b'oops')")
    await driver.send(frames.LeaseReturned(granted.lease_id), frames.FlushLogs(7))
    assert (await driver.expect(frames.LogsFlushed)).request == 7
    await asyncio.sleep(0)
    out = [(batch.name, line) for batch in batches if not batch.is_stderr for line in batch.lines]
    assert out == [("f", "one"), ("g", "two")]
    assert batches[0].pid == granted.pid and batches[0].job_id == JOB
    os.kill(granted.pid, signal.SIGKILL)
    await until_gone(granted.pid)
    await cluster.gcs.wait_for(gcs_pb2.ReportWorkerDeathRequest)
    logs = cluster.directory / "logs"
    assert (logs / f"worker-{granted.worker.worker_id.hex()}.err").read_text() == "oops\n"
    driver.close()


# --- memory ---


async def test_a_worker_that_fills_the_memory_is_killed_with_the_reason(start: Start) -> None:
    cluster = await start(memory_usage_threshold=0.0)
    driver = await cluster.driver()
    granted = await driver.lease()
    await tell(granted, "hog = bytearray(os.urandom(1)) * (100 << 20)")
    lost = await driver.expect(frames.LeaseLost)
    assert lost.kind == "NODE_OUT_OF_MEMORY"
    assert "threshold 0%" in lost.detail
    driver.close()


# --- ends ---


async def test_the_end_of_a_driver_is_the_end_of_its_job(start: Start) -> None:
    cluster = await start()
    driver = await cluster.driver()
    granted = await driver.lease()
    await tell(
        granted,
        "import subprocess; subprocess.Popen(['sleep', '1000']);"
        " subprocess.Popen(['env', '-i', 'sleep', '1001']);"
        " subprocess.Popen(['sleep', '1002'], start_new_session=True)",
    )
    children = Path(f"/proc/{granted.pid}/task/{granted.pid}/children").read_text().split()
    await driver.put(object_id(1), bytes(MIB))
    await cluster.start_actor(b"actor")
    await cluster.start_actor(b"detached", detached=True)
    actor = await cluster.gcs.wait_for(gcs_pb2.ReportActorStartedRequest, lambda r: r.actor_id == b"actor")
    detached = await cluster.gcs.wait_for(gcs_pb2.ReportActorStartedRequest, lambda r: r.actor_id == b"detached")
    driver.close()
    finished = await cluster.gcs.wait_for(gcs_pb2.FinishJobRequest)
    assert finished.job_id == JOB
    assert len(children) == 3
    for pid in (granted.pid, actor.pid, *map(int, children)):
        await until_gone(pid)
    await cluster.until(lambda stats: stats.store_objects == 0 and stats.store_used_bytes == 0)
    assert is_running(detached.pid)


async def test_a_stop_ends_everything_and_says_goodbye(start: Start) -> None:
    cluster = await start()
    driver = await cluster.driver()
    granted = await driver.lease()
    # It cannot be asked to exit: it does not listen any more.
    busy = asyncio.create_task(tell(granted, "import time; time.sleep(1000)"))
    await asyncio.sleep(0)
    await cluster.raylet.stop()
    assert not is_running(granted.pid)
    await cluster.gcs.wait_for(gcs_pb2.UnregisterNodeRequest)
    await busy
    with pytest.raises((EOFError, ConnectionError)):
        await driver.expect(frames.LeaseLost)
    driver.close()


async def test_a_stop_deletes_what_was_spilled(start: Start) -> None:
    cluster = await start()
    driver = await cluster.driver()
    for i in range(8):
        await driver.put(object_id(i), bytes(4 * MIB - 4096))
    assert (await cluster.stats()).spilled_bytes > 0
    blobs = [path for path in (cluster.directory / "blobs").rglob("*") if path.is_file()]
    assert blobs
    await cluster.raylet.stop()
    assert not any(path.exists() for path in blobs)
    driver.close()


async def test_a_template_that_dies_is_replaced_and_its_workers_live_on(start: Start) -> None:
    cluster = await start()
    driver = await cluster.driver()
    granted = await driver.lease()
    # Its forks have its command line, and were started after it.
    template = min(pid for pid in descendants(os.getpid()) if "shoal.worker_template" in command(pid))
    os.kill(template, signal.SIGKILL)
    await until_gone(template)
    os.kill(granted.pid, signal.SIGTERM)
    lost = await driver.expect(frames.LeaseLost)
    assert "killed by SIGTERM" in lost.detail
    # Until the template is back, workers start plainly.
    await driver.demand(3)
    again = [await driver.expect(frames.LeaseGranted) for _ in range(2)]
    assert granted.pid not in {lease.pid for lease in again}
    driver.close()


async def test_a_flood_of_output_is_kept_in_bounds_and_loses_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal_raylet.worker_output.MAX_PENDING_LINES", 100)
    monkeypatch.setattr("shoal_raylet.worker_output.ROTATE_BYTES", 50_000)
    cluster = await start()
    lines: list[str] = []
    await cluster.bus.subscribe(
        "shoal.test.log.>", lambda _, data: lines.extend(events_pb2.LogBatch.FromString(data).lines)
    )
    driver = await cluster.driver()
    granted = await driver.lease()
    await tell(granted, "[print(i) for i in range(30_000)]; sys.stdout.flush()")
    async with asyncio.timeout(PATIENCE_S):
        while len(lines) < 30_000:
            await driver.send(frames.FlushLogs(1))
            await driver.expect(frames.LogsFlushed)
    assert lines == [str(i) for i in range(30_000)]
    files = list((cluster.directory / "logs").glob("worker-*.out*"))
    assert any(path.suffix == ".1" for path in files) and len(files) <= 2
    driver.close()


async def test_it_runs_as_a_process_of_its_own(start: Start, tmp_path: Path) -> None:
    cluster = await start()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "shoal_raylet",
        *("--gcs-address", cluster.gcs_address, "--scheduler-addresses", cluster.gcs_address),
        *("--objectstore-address", cluster.gcs_address, "--cluster-id", "test"),
        *("--session-dir", str(tmp_path / "o"), "--object-store-bytes", str(MIB)),
        *("--node-id", "ab" * 16, "--resources", '{"CPU": 1}'),
        env={**os.environ, "SHOAL_AUTH_TOKEN": TOKEN},
        stderr=asyncio.subprocess.PIPE,
    )
    registered = await cluster.gcs.wait_for(gcs_pb2.RegisterNodeRequest, lambda r: r.node.node_id == b"\xab" * 16)
    driver = await Driver(Path(registered.node.raylet_path), worker_id=b"own-driver-00000").connect()
    granted = await driver.lease()
    process.terminate()
    _, log = await process.communicate()
    assert process.returncode == 0, log.decode()
    assert not is_running(granted.pid)
    driver.close()


async def test_the_template_starts_before_grpc_is_imported() -> None:
    program = "import sys, shoal_raylet.worker_template_process; sys.exit('grpc' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await process.wait() == 0


async def test_heartbeats_follow_the_load(start: Start) -> None:
    cluster = await start()
    available: asyncio.Queue[int] = asyncio.Queue()

    def note(_: str, data: bytes) -> None:
        available.put_nowait(events_pb2.Heartbeat.FromString(data).available.grains["CPU"])

    await cluster.bus.subscribe("shoal.test.heartbeat.*", note)
    driver = await cluster.driver()
    await driver.lease()
    async with asyncio.timeout(PATIENCE_S):
        while await available.get() != 10_000:
            pass
    driver.close()


async def test_heartbeats_tell_what_the_object_store_has_free(start: Start) -> None:
    cluster = await start()
    available: asyncio.Queue[int] = asyncio.Queue()

    def note(_: str, data: bytes) -> None:
        heartbeat = events_pb2.Heartbeat.FromString(data)
        assert heartbeat.total.grains["object_store_memory"] == 16 * MIB * GRAINS
        available.put_nowait(heartbeat.available.grains["object_store_memory"])

    await cluster.bus.subscribe("shoal.test.heartbeat.*", note)
    driver = await cluster.driver()
    async with asyncio.timeout(PATIENCE_S):
        await driver.put(object_id(1), bytes(4 * MIB))
        while await available.get() != 12 * MIB * GRAINS:
            pass
        await driver.send(frames.ObjectFree([object_id(1)]))
        while await available.get() != 16 * MIB * GRAINS:
            pass
    driver.close()


async def test_the_token_is_needed_for_rpcs(start: Start) -> None:
    cluster = await start()
    async with aio_channel(cluster.raylet.address, "another token") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await RayletServiceStub(channel).GetStats(raylet_pb2.GetStatsRequest())
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
