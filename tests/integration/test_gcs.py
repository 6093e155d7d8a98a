"""The GCS over gRPC on SQLite, with raylets that record and a scheduler that answers as told; all sockets are real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from shoal_common import errors
from shoal_common.blob.client import BlobClient
from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.bus import subjects
from shoal_common.bus.gcs import GcsBus
from shoal_common.bus.memory import MemoryBus
from shoal_common.frames import PROTOCOL_VERSION
from shoal_common.grpc_channel import aio_channel, service_errors
from shoal_common.grpc_server import create_server, serve
from shoal_common.ids import JobID, new_actor_id
from shoal_common.metadata import MetadataStoreError
from shoal_common.metadata.sqlite import SqliteMetadataStore
from shoal_gcs.app import GcsApp
from shoal_gcs.config import GcsConfig
from shoal_objectstore.app import ObjectStoreApp
from shoal_objectstore.config import ObjectStoreConfig
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
        async with asyncio.timeout(30):
            return await self._queue.get()

    def is_empty(self) -> bool:
        return self._queue.empty()


class FakeRaylet(raylet_pb2_grpc.RayletServiceServicer):
    """Starts and stops nothing: it writes down what it is asked."""

    def __init__(self, node_id: bytes) -> None:
        self.node_id = node_id
        self.started, self.stopped, self.ended = Mailbox(), Mailbox(), Mailbox()
        #: Errors that the next StartActor calls answer with.
        self.refusals: list[errors.ServiceError] = []
        #: True: it does not understand any request to end something.
        self.is_deaf = False
        self.address = ""
        self.server = create_server(TOKEN)
        raylet_pb2_grpc.add_RayletServiceServicer_to_server(self, self.server)

    async def listen(self) -> None:
        self.address = f"127.0.0.1:{await serve(self.server, '127.0.0.1', 0)}"

    def info(self, incarnation: int = 1) -> pb.NodeInfo:
        total = common_pb2.ResourceAmounts(grains={"CPU": 40_000})
        return pb.NodeInfo(
            node_id=self.node_id,
            host="h",
            raylet_address=self.address,
            incarnation=incarnation,
            total=total,
            protocol_version=PROTOCOL_VERSION,
        )

    def _check_hearing(self) -> None:
        if self.is_deaf:
            raise errors.Unavailable("deaf")

    async def StartActor(self, request: raylet_pb2.StartActorRequest, context: Any) -> raylet_pb2.StartActorResponse:
        if self.refusals:
            raise self.refusals.pop(0)
        self.started.put(request)
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


class FakeScheduler(scheduler_pb2_grpc.SchedulerServiceServicer):
    """Answers ``answer``, whatever it is asked."""

    def __init__(self) -> None:
        #: True: it refuses to answer, as one that is being started.
        self.is_away = False
        self.asked = Mailbox()
        self.answer = scheduler_pb2.PickNodeResponse(node_id=N1)
        self.address = ""
        self.server = create_server(TOKEN)
        scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(self, self.server)

    async def listen(self) -> None:
        self.address = f"127.0.0.1:{await serve(self.server, '127.0.0.1', 0)}"

    async def PickNode(self, request: scheduler_pb2.PickNodeRequest, context: Any) -> scheduler_pb2.PickNodeResponse:
        self.asked.put(request)
        if self.is_away:
            raise errors.Unavailable("away")
        return self.answer


class Cluster:
    """One GCS that can be stopped and started again on the same store, two raylets, one scheduler."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.scheduler = FakeScheduler()
        self.raylet, self.raylet_2 = FakeRaylet(N1), FakeRaylet(N2)
        self.config = GcsConfig(token=TOKEN, port=0, cluster_id=CLUSTER, session_name="the-session", silence_s=600.0)

    async def open(self) -> None:
        for fake in (self.scheduler, self.raylet, self.raylet_2):
            await fake.listen()
        self.config = replace(self.config, scheduler_addresses=(self.scheduler.address,))
        await self.start_gcs()

    async def close(self) -> None:
        await self.stop_gcs()
        for fake in (self.scheduler, self.raylet, self.raylet_2):
            await fake.server.stop(None)

    async def start_gcs(self, **settings: Any) -> None:
        self.config = replace(self.config, **settings)
        self.store = SqliteMetadataStore(self._path)
        self.bus = MemoryBus()
        self.app = GcsApp(self.config, self.store, self.bus)
        await self.app.start()
        self.channel = aio_channel(self.app.address, TOKEN)
        self.jobs: Any = rpc.JobServiceStub(self.channel)
        self.nodes: Any = rpc.NodeServiceStub(self.channel)
        self.actors: Any = rpc.ActorServiceStub(self.channel)
        self.functions: Any = rpc.FunctionServiceStub(self.channel)
        self.objects: Any = rpc.ObjectServiceStub(self.channel)

    async def stop_gcs(self) -> None:
        await self.channel.close()
        await self.app.stop()
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

    async def join(self, raylet: FakeRaylet | None = None, incarnation: int = 1) -> None:
        info = (raylet or self.raylet).info(incarnation)
        await self.nodes.RegisterNode(pb.RegisterNodeRequest(node=info))

    async def create(self, job_id: bytes, owner_id: bytes = DRIVER, **spec: Any) -> bytes:
        actor_id = new_actor_id(JobID(job_id))
        await self.actors.CreateActor(
            pb.CreateActorRequest(
                spec=pb.ActorSpec(
                    actor_id=actor_id,
                    job_id=job_id,
                    owner_id=owner_id,
                    class_name="Counter",
                    placement=common_pb2.ResourceAmounts(grains={"CPU": 10_000}),
                    creation=b"creation",
                    handle=b"handle",
                    **spec,
                )
            )
        )
        return actor_id

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

    async def actor(self, actor_id: bytes, known_version: int = 0, wait_ms: int = 0) -> pb.ActorInfo:
        request = pb.WaitActorRequest(actor_id=actor_id, known_version=known_version, wait_ms=wait_ms)
        with service_errors():
            return (await self.actors.WaitActor(request)).actor  # type: ignore[no-any-return]

    async def until(self, actor_id: bytes, state: pb.ActorState.ValueType) -> pb.ActorInfo:
        async with asyncio.timeout(30):
            info = await self.actor(actor_id, 0, 5_000)
            while info.state != state:
                info = await self.actor(actor_id, info.version, 5_000)
            return info

    async def named(self, name: str, namespace: str = "space") -> pb.GetNamedActorResponse:
        with service_errors():
            return await self.actors.GetNamedActor(  # type: ignore[no-any-return]
                pb.GetNamedActorRequest(name=name, namespace=namespace)
            )

    async def kill(self, actor_id: bytes, no_restart: bool = True) -> None:
        with service_errors():
            await self.actors.KillActor(pb.KillActorRequest(actor_id=actor_id, no_restart=no_restart))

    async def finish(self, job_id: bytes) -> None:
        await self.jobs.FinishJob(pb.FinishJobRequest(job_id=job_id))

    async def node(self, node_id: bytes) -> pb.NodeInfo:
        nodes = (await self.nodes.ListNodes(pb.ListNodesRequest())).nodes
        return next(node for node in nodes if node.node_id == node_id)  # type: ignore[no-any-return]

    async def beat(self, sent_unix_ms: int, free: int = 10_000) -> None:
        beat = events_pb2.Heartbeat(
            node_id=N1,
            incarnation=1,
            sent_unix_ms=sent_unix_ms,
            total=common_pb2.ResourceAmounts(grains={"CPU": 40_000}),
            available=common_pb2.ResourceAmounts(grains={"CPU": free}),
        )
        await self.bus.publish(subjects.heartbeat(CLUSTER, N1), beat.SerializeToString())


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path / "gcs.sqlite")
    await cluster.open()
    yield cluster
    await cluster.close()


@asynccontextmanager
async def events_of(cluster: Cluster, pattern: str) -> AsyncIterator[Mailbox]:
    mailbox = Mailbox()
    bus = GcsBus(cluster.channel)
    await bus.subscribe(pattern, lambda subject, data: mailbox.put((subject, data)))
    yield mailbox
    await bus.close()


# --- jobs ---


async def test_jobs_count_up_and_are_listed(cluster: Cluster) -> None:
    request = pb.StartJobRequest(driver_id=DRIVER, pid=7, entrypoint="python a.py", metadata={"k": "v"})
    first = await cluster.jobs.StartJob(request)
    second = await cluster.jobs.StartJob(pb.StartJobRequest(driver_id=b"e" * 16, namespace="mine"))
    assert (await cluster.jobs.StartJob(request)).job_id == first.job_id, "asked again, as the answer may be lost"
    assert (first.job_id, second.job_id) == (b"\0\0\0\1", b"\0\0\0\2")
    assert (first.cluster_id, first.session_name) == (CLUSTER, "the-session")
    assert second.namespace == "mine"
    assert len(first.namespace) == 36, "a fresh anonymous one"
    await cluster.finish(first.job_id)
    jobs = (await cluster.jobs.ListJobs(pb.ListJobsRequest())).jobs
    assert [job.job_id for job in jobs] == [first.job_id, second.job_id]
    assert (jobs[0].entrypoint, dict(jobs[0].metadata), jobs[0].pid) == ("python a.py", {"k": "v"}, 7)
    assert jobs[0].end_unix_ms >= jobs[0].start_unix_ms > 0
    assert jobs[1].end_unix_ms == 0


async def test_the_end_of_a_job(cluster: Cluster) -> None:
    await cluster.join()
    await cluster.join(cluster.raylet_2)
    job_id = await cluster.start_job()
    plain, plain_worker = await cluster.run(job_id)
    detached, _ = await cluster.run(job_id, detached=True, name="kept", namespace="space")
    function_id = job_id + b"f" * 16
    await cluster.functions.PutFunction(pb.PutFunctionRequest(job_id=job_id, function_id=function_id, data=b"code"))

    await cluster.finish(job_id)
    dead = await cluster.actor(plain)
    assert (dead.state, dead.owner_died) == (pb.ACTOR_STATE_DEAD, True)
    assert (await cluster.named("kept")).actor.state == pb.ACTOR_STATE_ALIVE
    assert (await cluster.raylet.stopped.take()).worker_id == plain_worker
    for raylet in (cluster.raylet, cluster.raylet_2):
        ended = await raylet.ended.take()
        assert (ended.job_id, list(ended.keep_actor_ids)) == (job_id, [detached])
    request = pb.GetFunctionRequest(function_id=function_id)
    assert (await cluster.functions.GetFunction(request)).data == b"code", "the detached actor may need it"

    await cluster.kill(detached)
    await until_not_found(lambda: cluster.functions.GetFunction(request))


async def until_not_found(call: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(errors.NotFound):
            while True:
                with service_errors():
                    await call()


async def test_a_finished_job_gets_no_new_actors(cluster: Cluster) -> None:
    job_id = await cluster.start_job()
    await cluster.finish(job_id)
    late = await cluster.create(job_id)
    assert (await cluster.actor(late)).state == pb.ACTOR_STATE_DEAD
    with service_errors(), pytest.raises(errors.PreconditionFailed, match="not known"):
        with service_errors():
            await cluster.create(b"\0\0\0\x63")


async def test_a_detached_actor_may_create_actors_after_its_job(cluster: Cluster) -> None:
    await cluster.join()
    job_id = await cluster.start_job()
    _, worker_id = await cluster.run(job_id, detached=True)
    await cluster.finish(job_id)
    child, _ = await cluster.run(job_id, worker_id)
    assert (await cluster.actor(child)).state == pb.ACTOR_STATE_ALIVE


# --- nodes ---


async def test_nodes_join_beat_and_leave(cluster: Cluster) -> None:
    async with events_of(cluster, subjects.all_nodes(CLUSTER)) as mailbox:
        await cluster.join()
        await cluster.join()
        assert (await cluster.node(N1)).available.grains["CPU"] == 40_000
        await cluster.beat(1, free=30_000)
        async with asyncio.timeout(30):
            while (await cluster.node(N1)).available.grains["CPU"] != 30_000:
                pass
        await cluster.nodes.UnregisterNode(pb.UnregisterNodeRequest(node_id=N1, reason="drained"))
        node = await cluster.node(N1)
        assert (node.state, node.death_reason) == (pb.NODE_STATE_DEAD, "drained")
        assert node.end_unix_ms >= node.start_unix_ms > 0
        subject, data = await mailbox.take()
        assert subject == subjects.node(CLUSTER, N1)
        assert events_pb2.NodeEvent.FromString(data).node.state == pb.NODE_STATE_ALIVE


async def test_who_wants_to_join_is_told_what_there_is(cluster: Cluster) -> None:
    await cluster.restart_gcs(objectstore_addresses=("store:6383",))
    told = await cluster.nodes.GetCluster(pb.GetClusterRequest())
    assert (told.cluster_id, told.session_name, told.nats_address) == (CLUSTER, "the-session", "")
    assert list(told.objectstore_addresses) == ["store:6383"]
    assert list(told.scheduler_addresses) == list(cluster.config.scheduler_addresses)


async def test_what_the_cluster_is_lies_in_the_store_as_its_latest_gcs_says(cluster: Cluster) -> None:
    await cluster.restart_gcs(objectstore_addresses=("store:6383",))
    with capture_logs() as logs:
        await cluster.restart_gcs(objectstore_addresses=("another-store:6383",))
    changes = [line["settings"] for line in logs if line["event"] == "cluster_config_changed"]
    assert changes == [["objectstore_addresses"]]
    kept = await cluster.store.get(f"/shoal/{CLUSTER}/config/cluster")
    assert kept is not None
    assert pb.GetClusterResponse.FromString(kept.value) == await cluster.nodes.GetCluster(pb.GetClusterRequest())


async def test_a_node_id_in_use_is_refused(cluster: Cluster) -> None:
    await cluster.join()
    cluster.raylet_2.node_id = N1
    with pytest.raises(errors.AlreadyExists), service_errors():
        await cluster.join(cluster.raylet_2)


async def test_a_raylet_of_another_release_is_refused(cluster: Cluster) -> None:
    info = cluster.raylet.info()
    info.protocol_version = PROTOCOL_VERSION + 1
    with pytest.raises(errors.PreconditionFailed, match="install the same Shoal release"), service_errors():
        await cluster.nodes.RegisterNode(pb.RegisterNodeRequest(node=info))
    assert not (await cluster.nodes.ListNodes(pb.ListNodesRequest())).nodes


async def test_the_jobs_of_a_dead_nodes_drivers_end(cluster: Cluster) -> None:
    await cluster.join()
    await cluster.join(cluster.raylet_2)
    theirs = await cluster.start_job(node_id=N1)
    other = await cluster.start_job(driver_id=b"e" * 16, node_id=N2)
    async with events_of(cluster, subjects.all_jobs(CLUSTER)) as events:
        await cluster.nodes.UnregisterNode(pb.UnregisterNodeRequest(node_id=N1, reason="gone"))
        _, data = await events.take()
    ended = events_pb2.JobEvent.FromString(data).job
    assert (ended.job_id, ended.node_id) == (theirs, N1) and ended.end_unix_ms
    assert (await cluster.raylet_2.ended.take()).job_id == theirs
    jobs = (await cluster.jobs.ListJobs(pb.ListJobsRequest())).jobs
    assert [job.job_id for job in jobs if not job.end_unix_ms] == [other]


async def test_a_job_whose_node_died_unseen_by_this_gcs_ends(cluster: Cluster) -> None:
    await cluster.start_job(node_id=N1)
    await cluster.restart_gcs()
    (job,) = (await cluster.jobs.ListJobs(pb.ListJobsRequest())).jobs
    assert job.end_unix_ms


async def test_actors_die_with_their_owners_node(cluster: Cluster) -> None:
    await cluster.join()
    await cluster.join(cluster.raylet_2)
    job_id = await cluster.start_job()
    owned, _ = await cluster.run(job_id, b"w" * 16, owner_node_id=N2)
    detached, _ = await cluster.run(job_id, b"w" * 16, owner_node_id=N2, detached=True)
    other, _ = await cluster.run(job_id, b"v" * 16, owner_node_id=N1)
    await cluster.nodes.UnregisterNode(pb.UnregisterNodeRequest(node_id=N2, reason="gone"))
    assert (await cluster.until(owned, pb.ACTOR_STATE_DEAD)).owner_died
    assert (await cluster.actor(detached)).state == pb.ACTOR_STATE_ALIVE
    assert (await cluster.actor(other)).state == pb.ACTOR_STATE_ALIVE


async def test_a_silent_node_that_answers_is_alive_and_one_that_does_not_is_dead(cluster: Cluster) -> None:
    await cluster.restart_gcs(silence_s=0.05, checks=1)
    await cluster.join()
    await cluster.join(cluster.raylet_2)
    job_id = await cluster.start_job()
    moved, _ = await cluster.run(job_id, max_restarts=1)
    async with events_of(cluster, subjects.all_nodes(CLUSTER)) as mailbox:
        cluster.scheduler.answer = scheduler_pb2.PickNodeResponse(node_id=N2)
        await cluster.raylet.server.stop(None)
        _, data = await mailbox.take()
        event = events_pb2.NodeEvent.FromString(data).node
        assert (event.node_id, event.state) == (N1, pb.NODE_STATE_DEAD)
        assert "direct checks failed" in event.death_reason
    assert (await cluster.raylet_2.started.take()).incarnation == 2
    await cluster.report_started(moved, 2, N2)
    info = await cluster.until(moved, pb.ACTOR_STATE_ALIVE)
    assert (info.restarts, info.address.node_id) == (1, N2)
    assert (await cluster.node(N2)).state == pb.NODE_STATE_ALIVE, "as silent as the other, but it answers"


async def test_a_node_that_dies_while_the_store_does_not_answer_is_told_later(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def put(*_: object, **__: object) -> int:
        raise MetadataStoreError("no answer")

    await cluster.restart_gcs(silence_s=0.05, checks=1)
    await cluster.join()
    await cluster.start_job(node_id=N1)
    async with events_of(cluster, subjects.all_nodes(CLUSTER)) as mailbox:
        with capture_logs() as logs, monkeypatch.context() as away:
            away.setattr(cluster.store, "put", put)
            await cluster.raylet.server.stop(None)
            async with asyncio.timeout(30):
                while (await cluster.node(N1)).state != pb.NODE_STATE_DEAD:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.01)
        assert "background_task_failed" not in [line["event"] for line in logs]
        _, data = await mailbox.take()
        assert events_pb2.NodeEvent.FromString(data).node.state == pb.NODE_STATE_DEAD
    (job,) = (await cluster.jobs.ListJobs(pb.ListJobsRequest())).jobs
    assert job.end_unix_ms


async def test_a_raylet_started_again_has_lost_its_actors(cluster: Cluster) -> None:
    await cluster.join()
    actor_id, _ = await cluster.run(await cluster.start_job())
    await cluster.join(incarnation=2)
    info = await cluster.actor(actor_id)
    assert info.state == pb.ACTOR_STATE_DEAD
    assert "started again" in info.death_reason
    assert (await cluster.node(N1)).incarnation == 2


# --- the life of an actor ---


async def test_from_creation_to_alive(cluster: Cluster) -> None:
    await cluster.join()
    job_id = await cluster.start_job()
    async with events_of(cluster, subjects.all_actors(CLUSTER)) as mailbox:
        actor_id = await cluster.create(job_id, name="n", namespace="space", strategy="SPREAD")
        asked = await cluster.scheduler.asked.take()
        assert (dict(asked.resources.grains), asked.strategy) == ({"CPU": 10_000}, "SPREAD")
        start = await cluster.raylet.started.take()
        assert (start.incarnation, start.spec.actor_id, start.spec.creation) == (1, actor_id, b"creation")
        pending = await cluster.actor(actor_id)
        assert pending.state == pb.ACTOR_STATE_PENDING_CREATION
        waiting = asyncio.ensure_future(cluster.actor(actor_id, pending.version, 30_000))
        worker_id = await cluster.report_started(actor_id)
        info = await waiting
        assert (info.state, info.incarnation, info.pid) == (pb.ACTOR_STATE_ALIVE, 1, 99)
        assert (info.address.worker_id, info.address.path, info.address.node_id) == (worker_id, "/socket", N1)
        states = [events_pb2.ActorEvent.FromString((await mailbox.take())[1]).actor.state for _ in range(2)]
        assert states == [pb.ACTOR_STATE_PENDING_CREATION, pb.ACTOR_STATE_ALIVE]


async def test_creation_is_idempotent_and_so_are_reports(cluster: Cluster) -> None:
    await cluster.join()
    job_id = await cluster.start_job()
    actor_id, _ = await cluster.run(job_id)
    info = await cluster.actor(actor_id)
    spec = pb.ActorSpec(actor_id=actor_id, job_id=job_id, owner_id=DRIVER)
    await cluster.actors.CreateActor(pb.CreateActorRequest(spec=spec))
    await cluster.report_started(actor_id)
    assert await cluster.actor(actor_id) == info
    assert cluster.raylet.started.is_empty()
    assert cluster.raylet.stopped.is_empty()


async def test_a_long_poll_without_news_answers_with_what_is(cluster: Cluster) -> None:
    await cluster.join()
    actor_id, _ = await cluster.run(await cluster.start_job())
    info = await cluster.actor(actor_id)
    assert await cluster.actor(actor_id, info.version, 10) == info


async def test_an_actor_that_is_waited_for_before_it_is_created(cluster: Cluster) -> None:
    job_id = await cluster.start_job()
    actor_id = new_actor_id(JobID(job_id))
    waiting = asyncio.ensure_future(cluster.actor(actor_id, 0, 30_000))
    await cluster.jobs.ListJobs(pb.ListJobsRequest())
    spec = pb.ActorSpec(actor_id=actor_id, job_id=job_id, owner_id=DRIVER)
    await cluster.actors.CreateActor(pb.CreateActorRequest(spec=spec))
    assert (await waiting).actor_id == actor_id


async def test_unknown_actors(cluster: Cluster) -> None:
    with pytest.raises(errors.NotFound, match="not known"):
        await cluster.actor(b"x" * 16)
    with pytest.raises(errors.NotFound, match="not known"):
        await cluster.kill(b"x" * 16)
    await cluster.report_started(b"x" * 16)
    with pytest.raises(errors.InvalidRequest), service_errors():
        await cluster.actors.CreateActor(pb.CreateActorRequest(spec=pb.ActorSpec(actor_id=b"short")))


async def test_the_process_of_an_unknown_actor_is_stopped(cluster: Cluster) -> None:
    await cluster.join()
    worker_id = await cluster.report_started(b"x" * 16)
    stop = await cluster.raylet.stopped.take()
    assert (stop.worker_id, stop.force) == (worker_id, True)


async def test_a_name_that_is_taken_is_found(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the row of its actor is still being written."""
    await cluster.join()
    job_id = await cluster.start_job()
    put, began, may_go_on = cluster.store.put, asyncio.Event(), asyncio.Event()

    async def put_late(*args: Any, **options: Any) -> int:
        began.set()
        await may_go_on.wait()
        return await put(*args, **options)

    monkeypatch.setattr(cluster.store, "put", put_late)
    creating = asyncio.create_task(cluster.create(job_id, name="n", namespace="space"))
    await began.wait()
    with pytest.raises(errors.AlreadyExists), service_errors():
        await cluster.create(job_id, name="n", namespace="space")
    finding = asyncio.create_task(cluster.named("n"))
    done, _ = await asyncio.wait([finding], timeout=0.05)
    assert not done
    may_go_on.set()
    assert (await finding).actor.actor_id == await creating


async def test_names(cluster: Cluster) -> None:
    await cluster.join()
    job_id = await cluster.start_job()
    with pytest.raises(errors.NotFound, match="'n' in namespace 'space'"):
        await cluster.named("n")
    actor_id, _ = await cluster.run(job_id, name="n", namespace="space")
    found = await cluster.named("n")
    assert (found.actor.actor_id, found.handle) == (actor_id, b"handle")
    with pytest.raises(errors.AlreadyExists), service_errors():
        await cluster.create(job_id, name="n", namespace="space")
    other = await cluster.create(job_id, name="n", namespace="elsewhere")
    unnamed = await cluster.create(job_id)

    async def listed(**request: Any) -> list[bytes]:
        return [info.actor_id for info in (await cluster.actors.ListActors(pb.ListActorsRequest(**request))).actors]

    assert await listed() == [unnamed, other, actor_id], "the newest first"
    assert await listed(named_only=True) == [other, actor_id]
    assert await listed(named_only=True, namespace="space") == [actor_id]
    await cluster.kill(actor_id)
    assert await listed(named_only=True) == [other]
    assert await listed() == [unnamed, other, actor_id]
    with pytest.raises(errors.NotFound):
        await cluster.named("n")
    await cluster.create(job_id, name="n", namespace="space")


async def test_crash_restart_crash_death(cluster: Cluster) -> None:
    await cluster.join()
    actor_id, worker_id = await cluster.run(await cluster.start_job(), max_restarts=1)
    await cluster.report_death(worker_id, actor_id)
    await cluster.report_death(worker_id, actor_id)
    assert (await cluster.actor(actor_id)).state == pb.ACTOR_STATE_RESTARTING
    assert (await cluster.raylet.started.take()).incarnation == 2
    second = await cluster.report_started(actor_id, 2)
    info = await cluster.actor(actor_id)
    assert (info.state, info.incarnation, info.restarts) == (pb.ACTOR_STATE_ALIVE, 2, 1)
    await cluster.report_death(second, actor_id, 2)
    info = await cluster.actor(actor_id)
    assert (info.state, info.exit.detail) == (pb.ACTOR_STATE_DEAD, "killed by SIGKILL")
    assert info.exit.kind == common_pb2.EXIT_KIND_SYSTEM_ERROR
    assert "killed by SIGKILL" in info.death_reason


async def test_a_constructor_that_raises(cluster: Cluster) -> None:
    await cluster.join()
    actor_id = await cluster.create(await cluster.start_job(), max_restarts=-1)
    await cluster.raylet.started.take()
    await cluster.report_started(actor_id, creation_error=b"pickled")
    info = await cluster.actor(actor_id)
    assert (info.state, info.creation_error) == (pb.ACTOR_STATE_DEAD, b"pickled")


async def test_kill_stops_the_process_and_its_end_is_noted(cluster: Cluster) -> None:
    await cluster.join()
    actor_id, worker_id = await cluster.run(await cluster.start_job(), max_restarts=5)
    await cluster.kill(actor_id)
    await cluster.kill(actor_id)
    info = await cluster.actor(actor_id)
    assert (info.state, info.killed) == (pb.ACTOR_STATE_DEAD, True)
    stop = await cluster.raylet.stopped.take()
    assert (stop.worker_id, stop.actor_id, stop.force) == (worker_id, actor_id, True)
    await cluster.report_death(worker_id, actor_id, exit=STOPPED)
    assert (await cluster.actor(actor_id)).exit == STOPPED


async def test_kill_with_restart(cluster: Cluster) -> None:
    await cluster.join()
    actor_id, worker_id = await cluster.run(await cluster.start_job(), max_restarts=1)
    await cluster.kill(actor_id, no_restart=False)
    assert (await cluster.raylet.stopped.take()).force
    await cluster.report_death(worker_id, actor_id, exit=STOPPED)
    assert (await cluster.raylet.started.take()).incarnation == 2


async def test_the_last_handle_ends_it_gracefully(cluster: Cluster) -> None:
    await cluster.join()
    actor_id, worker_id = await cluster.run(await cluster.start_job())
    for _ in range(2):
        await cluster.actors.ReleaseActor(pb.ReleaseActorRequest(actor_id=actor_id))
    stop = await cluster.raylet.stopped.take()
    assert (stop.worker_id, stop.force) == (worker_id, False)
    assert cluster.raylet.stopped.is_empty()
    await cluster.report_death(worker_id, actor_id, exit=STOPPED)
    info = await cluster.actor(actor_id)
    assert (info.state, info.out_of_scope) == (pb.ACTOR_STATE_DEAD, True)


async def test_the_death_of_a_worker_ends_the_actors_it_owned(cluster: Cluster) -> None:
    await cluster.join()
    job_id = await cluster.start_job()
    child, child_worker = await cluster.run(job_id, b"task worker 0001")
    grandchild, _ = await cluster.run(job_id, child_worker)
    await cluster.report_death(b"task worker 0001")
    for actor_id in (child, grandchild):
        info = await cluster.actor(actor_id)
        assert (info.state, info.owner_died) == (pb.ACTOR_STATE_DEAD, True)


# --- finding a place ---


async def test_a_busy_cluster_is_asked_again_until_there_is_room(cluster: Cluster) -> None:
    await cluster.join()
    cluster.scheduler.answer = scheduler_pb2.PickNodeResponse()
    actor_id = await cluster.create(await cluster.start_job())
    for _ in range(3):
        await cluster.scheduler.asked.take()
    assert (await cluster.actor(actor_id)).state == pb.ACTOR_STATE_PENDING_CREATION
    cluster.scheduler.answer = scheduler_pb2.PickNodeResponse(node_id=N1)
    await cluster.raylet.started.take()


async def test_a_raylet_without_room_is_asked_again_with_the_same_incarnation(cluster: Cluster) -> None:
    await cluster.join()
    cluster.raylet.refusals = [errors.ResourceExhausted("no room")] * 3
    await cluster.create(await cluster.start_job())
    assert (await cluster.raylet.started.take()).incarnation == 1


async def test_a_raylet_that_fails_gets_a_new_incarnation(cluster: Cluster) -> None:
    await cluster.join()
    cluster.raylet.refusals = [errors.InternalError("a defect")]
    actor_id = await cluster.create(await cluster.start_job())
    assert (await cluster.raylet.started.take()).incarnation == 2
    await cluster.report_started(actor_id, 1)
    assert (await cluster.raylet.stopped.take()).worker_id == actor_id[:15] + b"\x01", "the first came up after all"
    await cluster.report_started(actor_id, 2)
    info = await cluster.actor(actor_id)
    assert (info.state, info.incarnation, info.restarts) == (pb.ACTOR_STATE_ALIVE, 2, 0)


async def test_a_process_that_does_not_start_is_started_again(cluster: Cluster) -> None:
    await cluster.join()
    actor_id = await cluster.create(await cluster.start_job())
    assert (await cluster.raylet.started.take()).incarnation == 1
    await cluster.report_started(actor_id, 1, failure="no memory for a process")
    assert (await cluster.raylet.started.take()).incarnation == 2


async def test_what_fits_nowhere_dies_at_once_without_grace(cluster: Cluster) -> None:
    await cluster.restart_gcs(infeasible_grace_s=0.0)
    await cluster.join()
    cluster.scheduler.answer = scheduler_pb2.PickNodeResponse(infeasible=True, reason="1 GPU is missing")
    actor_id = await cluster.create(await cluster.start_job())
    info = await cluster.until(actor_id, pb.ACTOR_STATE_DEAD)
    assert "1 GPU is missing" in info.death_reason


async def test_what_fits_nowhere_waits_for_a_node_that_joins(cluster: Cluster) -> None:
    await cluster.restart_gcs(infeasible_grace_s=-1.0)
    cluster.scheduler.answer = scheduler_pb2.PickNodeResponse(infeasible=True, reason="1 GPU is missing")
    await cluster.create(await cluster.start_job())
    for _ in range(3):
        await cluster.scheduler.asked.take()
    cluster.scheduler.answer = scheduler_pb2.PickNodeResponse(node_id=N1)
    await cluster.join()
    await cluster.raylet.started.take()


async def test_without_a_scheduler_actors_wait_for_one(cluster: Cluster) -> None:
    await cluster.join()
    cluster.scheduler.is_away = True
    await cluster.create(await cluster.start_job())
    await cluster.scheduler.asked.take()
    assert cluster.raylet.started.is_empty()
    cluster.scheduler.is_away = False
    await cluster.raylet.started.take()


async def test_one_scheduler_of_several_is_enough(cluster: Cluster) -> None:
    await cluster.restart_gcs(scheduler_addresses=("127.0.0.1:1", cluster.scheduler.address))
    await cluster.join()
    await cluster.create(await cluster.start_job())
    await cluster.raylet.started.take()


async def test_an_actor_killed_while_it_waits_is_never_started(cluster: Cluster) -> None:
    await cluster.join()
    job_id = await cluster.start_job()
    cluster.scheduler.answer = scheduler_pb2.PickNodeResponse()
    killed = await cluster.create(job_id)
    await cluster.kill(killed)
    cluster.scheduler.answer = scheduler_pb2.PickNodeResponse(node_id=N1)
    other = await cluster.create(job_id)
    assert (await cluster.raylet.started.take()).spec.actor_id == other
    assert cluster.raylet.started.is_empty()


# --- functions and events ---


async def test_functions_are_stored_once_and_waited_for(cluster: Cluster) -> None:
    job_id = await cluster.start_job()
    function_id = job_id + b"f" * 16
    get = pb.GetFunctionRequest(function_id=function_id, wait_ms=30_000)
    with pytest.raises(errors.NotFound), service_errors():
        await cluster.functions.GetFunction(pb.GetFunctionRequest(function_id=function_id))
    waiting = asyncio.ensure_future(cluster.functions.GetFunction(get))
    await cluster.jobs.ListJobs(pb.ListJobsRequest())
    put = pb.PutFunctionRequest(job_id=job_id, function_id=function_id, data=b"code")
    await cluster.functions.PutFunction(put)
    await cluster.functions.PutFunction(put)
    assert (await waiting).data == b"code"
    with pytest.raises(errors.InvalidRequest), service_errors():
        await cluster.functions.PutFunction(pb.PutFunctionRequest(job_id=job_id, function_id=b"other job's", data=b""))
    await cluster.finish(job_id)
    request = pb.GetFunctionRequest(function_id=function_id)
    await until_not_found(lambda: cluster.functions.GetFunction(request))


async def test_the_bus_for_other_processes(cluster: Cluster) -> None:
    async with events_of(cluster, "shoal.c.log.>") as mailbox:
        await GcsBus(cluster.channel).publish("shoal.c.log.1.2.3", b"line")
        assert await mailbox.take() == ("shoal.c.log.1.2.3", b"line")


async def test_nothing_is_done_without_the_token(cluster: Cluster) -> None:
    async with aio_channel(cluster.app.address, "wrong") as channel:
        stub: Any = rpc.JobServiceStub(channel)
        with pytest.raises(errors.Unauthenticated), service_errors():
            await stub.StartJob(pb.StartJobRequest(driver_id=DRIVER))


# --- restarts of the GCS ---


async def test_everything_is_there_after_a_restart(cluster: Cluster) -> None:
    await cluster.join()
    job_id = await cluster.start_job()
    alive, _ = await cluster.run(job_id, name="n", namespace="space", max_restarts=3)
    dead, dead_worker = await cluster.run(job_id)
    await cluster.report_death(dead_worker, dead)
    function_id = job_id + b"f" * 16
    await cluster.functions.PutFunction(pb.PutFunctionRequest(job_id=job_id, function_id=function_id, data=b"code"))
    finished = await cluster.start_job(driver_id=b"e" * 16)
    await cluster.finish(finished)
    before = {actor_id: await cluster.actor(actor_id) for actor_id in (alive, dead)}

    await cluster.restart_gcs()

    assert {actor_id: await cluster.actor(actor_id) for actor_id in (alive, dead)} == before
    found = await cluster.named("n")
    assert (found.actor.actor_id, found.handle) == (alive, b"handle")
    assert (await cluster.node(N1)).state == pb.NODE_STATE_ALIVE
    assert (await cluster.functions.GetFunction(pb.GetFunctionRequest(function_id=function_id))).data == b"code"
    jobs = (await cluster.jobs.ListJobs(pb.ListJobsRequest())).jobs
    assert [(job.job_id, job.end_unix_ms > 0) for job in jobs] == [(job_id, False), (finished, True)]
    assert await cluster.start_job(driver_id=b"f" * 16) == b"\0\0\0\3"
    assert cluster.raylet.started.is_empty()

    await cluster.report_death(before[alive].address.worker_id, alive)
    start = await cluster.raylet.started.take()
    assert (start.incarnation, start.spec.creation) == (2, b"creation"), "it restarts from what the store has"


async def test_a_creation_goes_on_after_a_restart(cluster: Cluster) -> None:
    await cluster.join()
    job_id = await cluster.start_job()
    starting = await cluster.create(job_id)
    await cluster.raylet.started.take()
    cluster.scheduler.answer = scheduler_pb2.PickNodeResponse()
    waiting = await cluster.create(job_id)
    await cluster.scheduler.asked.take()

    cluster.scheduler.answer = scheduler_pb2.PickNodeResponse(node_id=N1)
    await cluster.restart_gcs()

    asked = [await cluster.raylet.started.take() for _ in range(2)]
    assert {(start.spec.actor_id, start.incarnation) for start in asked} == {(starting, 1), (waiting, 1)}


async def test_ends_go_on_after_a_restart(cluster: Cluster) -> None:
    """The raylet could not be told that an actor was killed and a job had ended; then the GCS went away."""
    await cluster.join()
    job_id = await cluster.start_job()
    _, worker_id = await cluster.run(job_id)
    cluster.raylet.is_deaf = True
    await cluster.finish(job_id)
    await cluster.stop_gcs()
    cluster.raylet.is_deaf = False

    await cluster.start_gcs()
    assert (await cluster.raylet.stopped.take()).worker_id == worker_id
    assert (await cluster.raylet.ended.take()).job_id == job_id


async def test_the_functions_of_a_job_that_ended_unseen_are_forgotten(cluster: Cluster) -> None:
    job_id = await cluster.start_job()
    function_id = job_id + b"f" * 16
    await cluster.finish(job_id)
    await cluster.functions.PutFunction(pb.PutFunctionRequest(job_id=job_id, function_id=function_id, data=b"late"))
    await cluster.restart_gcs()
    request = pb.GetFunctionRequest(function_id=function_id)
    await until_not_found(lambda: cluster.functions.GetFunction(request))


@asynccontextmanager
async def objectstore(root: Path, port: int = 0) -> AsyncIterator[str]:
    app = ObjectStoreApp(ObjectStoreConfig(token=TOKEN, port=port), DirectoryBlobStore(root))
    await app.start()
    try:
        yield app.address
    finally:
        await app.stop()


async def blobs_of(address: str, prefix: str = "") -> list[str]:
    async with aio_channel(address, TOKEN) as channel:
        return [blob.key for blob in await BlobClient(channel).list(prefix)]


async def until_none(address: str, prefix: str = "") -> None:
    async with asyncio.timeout(30):
        while await blobs_of(address, prefix):
            pass


async def test_what_a_dead_job_has_spilled_is_deleted(cluster: Cluster, tmp_path: Path) -> None:
    async with objectstore(tmp_path / "blobs") as address:
        await cluster.restart_gcs(objectstore_addresses=(address,))
        await cluster.join()
        job, other = await cluster.start_job(), await cluster.start_job(driver_id=b"e" * 16)
        doomed = f"spill/{job.hex()}/{N1.hex()}/"
        # Of a job that runs; no spilled object; of another cluster's job 1, in the same bucket; not Shoal's.
        kept = [f"spill/{other.hex()}/{N1.hex()}/1", f"checkpoint/{job.hex()}/1"]
        kept += [f"spill/{job.hex()}/{N2.hex()}/1", f"spill/{job.hex()}/something"]
        async with aio_channel(address, TOKEN) as channel:
            for key in [doomed + "1", doomed + "2", *kept]:
                await BlobClient(channel).put(key, [b"x"])
        await cluster.finish(job)
        await until_none(address, doomed)
        assert await blobs_of(address) == sorted(kept)


async def test_blobs_of_a_dead_job_are_deleted_when_the_objectstore_or_the_gcs_is_back(
    cluster: Cluster, tmp_path: Path
) -> None:
    async with objectstore(tmp_path / "blobs") as address:
        await cluster.restart_gcs(objectstore_addresses=(address,))
        await cluster.join()
        job = await cluster.start_job()
        async with aio_channel(address, TOKEN) as channel:
            await BlobClient(channel).put(f"spill/{job.hex()}/{N1.hex()}/1", [b"x"])
    await cluster.finish(job)
    await cluster.stop_gcs()
    async with objectstore(tmp_path / "blobs", int(address.rpartition(":")[2])):
        await cluster.start_gcs()
        await until_none(address)


async def test_only_so_many_dead_actors_are_remembered(cluster: Cluster) -> None:
    await cluster.restart_gcs(dead_actors_kept=2)
    await cluster.join()
    job_id = await cluster.start_job()
    ids = [(await cluster.run(job_id))[0] for _ in range(4)]
    for actor_id in ids:
        await cluster.kill(actor_id)
    for _ in range(2):
        listed = (await cluster.actors.ListActors(pb.ListActorsRequest())).actors
        assert [info.actor_id for info in listed] == [ids[3], ids[2]]
        await cluster.restart_gcs()
    assert len(await cluster.store.keys(f"/shoal/{CLUSTER}/actor/")) == 2
    assert await cluster.store.keys(f"/shoal/{CLUSTER}/actor_spec/") == []


async def test_a_second_gcs_on_the_same_store_overwrites_nothing(cluster: Cluster) -> None:
    await cluster.join()
    actor_id, _ = await cluster.run(await cluster.start_job())
    async with AsyncExitStack() as stack:
        store, bus = SqliteMetadataStore(cluster._path), MemoryBus()
        stack.push_async_callback(store.close)
        stack.push_async_callback(bus.close)
        second = GcsApp(cluster.config, store, bus)
        await second.start()
        stack.push_async_callback(second.stop)
        channel = await stack.enter_async_context(aio_channel(second.address, TOKEN))
        stub: Any = rpc.ActorServiceStub(channel)
        await stub.KillActor(pb.KillActorRequest(actor_id=actor_id, no_restart=True))
        with pytest.raises(errors.Unavailable, match="another GCS has taken over"), service_errors():
            await cluster.actors.ReleaseActor(pb.ReleaseActorRequest(actor_id=actor_id))
        entry = await store.get(f"/shoal/{CLUSTER}/actor/{actor_id.hex()}")
        assert entry is not None
        assert pb.ActorInfo.FromString(entry.value).killed


# --- a process of its own ---


async def test_killed_and_started_again_as_a_process(tmp_path: Path) -> None:
    job_ids = []
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "shoal_gcs", "--port", "0", "--store-path", str(tmp_path / "gcs.sqlite"),
            env={**os.environ, "SHOAL_AUTH_TOKEN": TOKEN},
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            address = ""
            async with asyncio.timeout(60):
                while not address:
                    line = json.loads(await process.stderr.readline())
                    address = line.get("address", "") if line["event"] == "service_started" else ""
            async with aio_channel(address, TOKEN) as channel:
                stub: Any = rpc.JobServiceStub(channel)
                job_ids.append((await stub.StartJob(pb.StartJobRequest(driver_id=bytes([len(job_ids)]) * 16))).job_id)
        finally:
            process.send_signal(signal.SIGKILL if len(job_ids) < 2 else signal.SIGTERM)
            await process.communicate()
    assert process.returncode == 0
    assert job_ids == [b"\0\0\0\1", b"\0\0\0\2"]


# --- objects of a dead node ---


async def test_an_object_is_not_lost_before_all_nodes_have_told_what_they_have(cluster: Cluster) -> None:
    await cluster.join()
    await cluster.join(cluster.raylet_2)
    object_id = await cluster.start_job() + b"o" * 20
    await cluster.nodes.UnregisterNode(pb.UnregisterNodeRequest(node_id=N1))
    question = pb.LocateObjectRequest(object_id=object_id, wait_ms=10)
    with pytest.raises(errors.DeadlineExceeded, match=N2.hex()), service_errors():
        await cluster.objects.LocateObject(question)
    report = pb.ReportCopiesRequest(node_id=N2, home_node_id=N1, object_ids=[object_id])
    await cluster.objects.ReportCopies(report)
    assert (await cluster.objects.LocateObject(question)).node_id == N2
    nowhere = pb.LocateObjectRequest(object_id=object_id[::-1], wait_ms=10)
    await until_not_found(lambda: cluster.objects.LocateObject(nowhere))
