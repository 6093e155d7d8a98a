"""Jobs of a GCS, and what ends with them: actors, functions, blobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.gcs import CLUSTER, DRIVER, N1, N2, TOKEN, Cluster, until_not_found

from shoal_common import errors
from shoal_common.blob.client import BlobClient
from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.metadata import Fenced
from shoal_common.rpc.client import aio_channel, service_errors
from shoal_objectstore.app import ObjectStoreApp
from shoal_objectstore.config import ObjectStoreConfig
from shoal_proto.v1 import gcs_pb2 as pb


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path / "gcs.sqlite") as cluster:
        yield cluster


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


@pytest.mark.parametrize("what", ["job", "actor"])
async def test_a_repeat_is_not_answered_by_what_an_overtaken_gcs_could_not_store(
    cluster: Cluster, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call waits in a GCS that is paused until another one leads, and is sent again meanwhile. The repeat was
    answered, nobody sent it to the new leader, and there the job never ended."""
    await cluster.join()
    job_id = await cluster.start_job()
    actor_id, worker_id = await cluster.run(job_id)
    writing, followed = asyncio.Event(), asyncio.Event()
    put = cluster.store.put

    async def fenced(key: str, value: bytes, *, expected_revision: int | None = None) -> int:
        if f"/{what}/" not in key:
            return await put(key, value, expected_revision=expected_revision)
        writing.set()
        await followed.wait()
        raise Fenced(1, "its lease has ended")

    monkeypatch.setattr(cluster.store, "put", fenced)

    async def tell() -> None:
        await (cluster.finish(job_id) if what == "job" else cluster.report_death(worker_id, actor_id))

    first = asyncio.create_task(tell())
    await writing.wait()
    repeat = asyncio.create_task(tell())
    followed.set()
    for call in (first, repeat):
        with pytest.raises(errors.Unavailable, match="another GCS has taken over"), service_errors():
            await call


async def test_a_named_job(cluster: Cluster) -> None:
    async def job(driver_id: bytes) -> bytes:
        request = pb.StartJobRequest(driver_id=driver_id * 16, namespace="space", pid=7)
        return (await cluster.jobs.StartJob(request)).job_id

    async def hold(job_id: bytes, name: str = "nightly", *, attach: bool = True) -> int:
        request = pb.HoldJobNameRequest(job_id=job_id, name=name, attach=attach, keep_ms=600_000, host="here")
        with service_errors():
            return (await cluster.jobs.HoldJobName(request)).generation

    async def listed() -> list[pb.JobInfo]:
        return list((await cluster.jobs.ListJobs(pb.ListJobsRequest())).jobs)

    await cluster.join()
    first = await job(b"d")
    assert [await hold(first) for _ in range(2)] == [1, 1], "asked again, as the answer may be lost"
    with pytest.raises(errors.PreconditionFailed, match="has the name 'nightly' already"):
        await hold(first, "another")
    with pytest.raises(errors.InvalidRequest, match="1 to 512 bytes"):
        await hold(first, "")
    kept, _ = await cluster.run(first, detached=True, of_named_job=True, name="kept", namespace="space")
    second = await job(b"e")
    with pytest.raises(errors.AlreadyExists, match="has a driver, process 7 on here"):
        await hold(second)
    await cluster.finish(first)
    assert [(info.name, info.kept_until_unix_ms > 0) for info in await listed()] == [("nightly", True), ("", False)]
    with pytest.raises(errors.PreconditionFailed, match="has ended"):
        await hold(first)
    assert await hold(second) == 2
    assert [(info.name, info.kept_until_unix_ms) for info in await listed()] == [("nightly", 0), ("nightly", 0)]
    assert (await cluster.actor(kept)).state == pb.ACTOR_STATE_ALIVE
    await cluster.jobs.CompleteJob(pb.CompleteJobRequest(job_id=second))
    assert (await cluster.actor(kept)).state == pb.ACTOR_STATE_ALIVE, "the driver is still there"
    await cluster.finish(second)
    dead = await cluster.actor(kept)
    assert (dead.state, dead.death_reason) == (pb.ACTOR_STATE_DEAD, "its job is over")
    assert await hold(await job(b"f"), attach=False) == 1


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


# --- functions ---


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


async def test_the_functions_of_a_job_that_ended_unseen_are_forgotten(cluster: Cluster) -> None:
    job_id = await cluster.start_job()
    function_id = job_id + b"f" * 16
    await cluster.finish(job_id)
    await cluster.functions.PutFunction(pb.PutFunctionRequest(job_id=job_id, function_id=function_id, data=b"late"))
    await cluster.restart_gcs()
    request = pb.GetFunctionRequest(function_id=function_id)
    await until_not_found(lambda: cluster.functions.GetFunction(request))


# --- blobs ---


@asynccontextmanager
async def objectstore(root: Path, port: int = 0) -> AsyncIterator[str]:
    app = ObjectStoreApp(ObjectStoreConfig(token=TOKEN, port=port), DirectoryBlobStore(root))
    await app.start()
    try:
        yield app.address
    finally:
        await app.stop()


@asynccontextmanager
async def with_objectstore(cluster: Cluster, directory: Path) -> AsyncIterator[str]:
    """A node of the cluster has joined, and its GCS knows the objectstore service at this address."""
    async with objectstore(directory / "blobs") as address:
        await cluster.restart_gcs(objectstore_addresses=(address,))
        await cluster.join()
        yield address


async def blobs_of(address: str, prefix: str = "") -> list[str]:
    async with aio_channel(address, TOKEN) as channel:
        return [blob.key for blob in await BlobClient(channel).list(prefix)]


async def until_none(address: str, prefix: str = "") -> None:
    async with asyncio.timeout(60):
        while await blobs_of(address, prefix):
            pass


async def test_what_a_dead_job_has_spilled_is_deleted(cluster: Cluster, tmp_path: Path) -> None:
    async with with_objectstore(cluster, tmp_path) as address:
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


async def test_what_a_node_stored_before_it_knew_that_it_was_given_up_is_deleted(
    cluster: Cluster, tmp_path: Path
) -> None:
    async with with_objectstore(cluster, tmp_path) as address:
        job, other = await cluster.start_job(), await cluster.start_job(driver_id=b"e" * 16)
        dead, _ = await cluster.run(job)
        living, _ = await cluster.run(other, max_restarts=1)
        await cluster.nodes.UnregisterNode(pb.UnregisterNodeRequest(node_id=N1, reason="silent"))
        await cluster.finish(job)
        # By now whatever was there has been swept.
        key = f"spill/{job.hex()}/{N1.hex()}/1"
        kept = [f"checkpoint/{living.hex()}/1", f"spill/{other.hex()}/{N1.hex()}/1"]
        async with aio_channel(address, TOKEN) as channel:
            for late in (key, f"checkpoint/{dead.hex()}/1", f"checkpoint/{dead.hex()}/2", *kept):
                await BlobClient(channel).put(late, [b"x"])
        await cluster.objects.ReportSpilled(
            pb.ReportSpilledRequest(
                job_id=job, node_id=N1, key=key, objects=[pb.SpilledObject(object_id=b"o" * 20, size_bytes=1)]
            )
        )
        await cluster.join(incarnation=2)
        for gone in (f"spill/{job.hex()}/", f"checkpoint/{dead.hex()}/"):
            await until_none(address, gone)
        assert await blobs_of(address) == kept
    assert not await cluster.store.keys(f"/shoal/{CLUSTER}/spill/")


async def test_blobs_of_a_dead_job_are_deleted_when_the_objectstore_or_the_gcs_is_back(
    cluster: Cluster, tmp_path: Path
) -> None:
    async with with_objectstore(cluster, tmp_path) as address:
        job = await cluster.start_job()
        async with aio_channel(address, TOKEN) as channel:
            await BlobClient(channel).put(f"spill/{job.hex()}/{N1.hex()}/1", [b"x"])
    await cluster.finish(job)
    await cluster.stop_gcs()
    async with objectstore(tmp_path / "blobs", int(address.rpartition(":")[2])):
        await cluster.start_gcs()
        await until_none(address)
