"""The GCS as a whole: what it keeps over a restart, its bus, its token, a process of its own."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
from support.gcs import CLUSTER, DRIVER, N1, TOKEN, Cluster, events_of
from support.services import started

from shoal_common import errors
from shoal_common.bus.gcs import GcsBus
from shoal_common.bus.memory import MemoryBus
from shoal_common.metadata.sqlite import SqliteMetadataStore
from shoal_common.rpc.client import aio_channel, service_errors
from shoal_gcs.app import GcsApp
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc
from shoal_proto.v1 import scheduler_pb2


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path / "gcs.sqlite") as cluster:
        yield cluster


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


@pytest.mark.parametrize("value", [b"", b"\xff" * 40, b"foreign"], ids=["empty", "damaged", "foreign"])
async def test_rows_that_cannot_be_read_cost_nothing_but_themselves(cluster: Cluster, value: bytes) -> None:
    await cluster.join()
    job_id = await cluster.start_job()
    alive, _ = await cluster.run(job_id, name="n", namespace="space")
    damaged, half_damaged = [await cluster.create(job_id, name=name, namespace="space") for name in ("d", "h")]
    damaged_job = await cluster.start_job(driver_id=b"e" * 16)
    function_id = job_id + b"f" * 16
    tables = ("config", "job", "node", "actor", "actor_spec", "placement_group", "spill", "copy")
    written = {
        *(f"{table}/{name}" for table in tables for name in ("foreign", "x/y/z/w", "00" * 16)),
        f"job/{damaged_job.hex()}",
        f"actor/{damaged.hex()}",
        f"actor_spec/{half_damaged.hex()}",
        f"function/{job_id.hex()}/{function_id.hex()}",
        "config/cluster",
        "no table/of ours",
    }
    await cluster.stop_gcs()
    store = SqliteMetadataStore(cluster.path)
    for key in written:
        await store.put(f"/shoal/{CLUSTER}/{key}", value)
    await store.close()

    with structlog.testing.capture_logs() as logs:
        await cluster.start_gcs()

    told = [key for line in logs if line["event"] == "rows_not_readable" for key in line["left_as_they_are"]]
    assert f"/shoal/{CLUSTER}/actor/{damaged.hex()}" in told
    assert (await cluster.named("n")).actor.actor_id == alive
    for name in ("d", "h"):
        with pytest.raises(errors.NotFound), service_errors():
            await cluster.named(name)
    with pytest.raises(errors.DataLoss, match="is damaged in the metadata store"), service_errors():
        await cluster.functions.GetFunction(pb.GetFunctionRequest(function_id=function_id))
    assert await cluster.start_job(driver_id=b"f" * 16) > damaged_job, "its id is not given to another"
    for key in written - {"config/cluster"}:
        entry = await cluster.store.get(f"/shoal/{CLUSTER}/{key}")
        assert entry is not None
        assert entry.value == value, f"{key} is left as it is"
    other_half = await cluster.store.get(f"/shoal/{CLUSTER}/actor/{half_damaged.hex()}")
    assert other_half is not None


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


async def test_a_second_gcs_on_the_same_store_overwrites_nothing(cluster: Cluster) -> None:
    await cluster.join()
    actor_id, _ = await cluster.run(await cluster.start_job())
    async with AsyncExitStack() as stack:
        store, bus = SqliteMetadataStore(cluster.path), MemoryBus()
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


async def test_the_bus_for_other_processes(cluster: Cluster) -> None:
    async with events_of(cluster, "shoal.c.log.>") as mailbox:
        await GcsBus(cluster.channel).publish("shoal.c.log.1.2.3", b"line")
        assert await mailbox.take() == ("shoal.c.log.1.2.3", b"line")


async def test_nothing_is_done_without_the_token(cluster: Cluster) -> None:
    async with aio_channel(cluster.app.address, "wrong") as channel:
        stub: Any = rpc.JobServiceStub(channel)
        with pytest.raises(errors.Unauthenticated), service_errors():
            await stub.StartJob(pb.StartJobRequest(driver_id=DRIVER))


async def test_killed_and_started_again_as_a_process(tmp_path: Path) -> None:
    token_path = tmp_path / "token"
    token_path.write_text(TOKEN)
    job_ids = []
    for end in (signal.SIGKILL, signal.SIGTERM):
        async with started("gcs", token_path, port=0, store_path=tmp_path / "gcs.sqlite") as (process, address):
            async with aio_channel(address, TOKEN) as channel:
                stub: Any = rpc.JobServiceStub(channel)
                job_ids.append((await stub.StartJob(pb.StartJobRequest(driver_id=bytes([len(job_ids)]) * 16))).job_id)
            process.send_signal(end)
            await process.wait()
    assert process.returncode == 0
    assert job_ids == [b"\0\0\0\1", b"\0\0\0\2"]
