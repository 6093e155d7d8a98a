"""Nodes of a GCS: how they join, and what is lost with them: actors, jobs, objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.gcs import CLUSTER, N1, N2, Cluster, events_of, until_not_found

from shoal_common import errors
from shoal_common.bus import subjects
from shoal_common.channel.frames import PROTOCOL_VERSION
from shoal_common.metadata import MetadataStoreError
from shoal_common.rpc.client import service_errors
from shoal_gcs.nodes import manager
from shoal_gcs.peers import Raylets
from shoal_proto.v1 import events_pb2, scheduler_pb2
from shoal_proto.v1 import gcs_pb2 as pb


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path / "gcs.sqlite") as cluster:
        yield cluster


async def test_nodes_join_beat_and_leave(cluster: Cluster) -> None:
    async with events_of(cluster, subjects.all_nodes(CLUSTER)) as mailbox:
        await cluster.join()
        await cluster.join()
        assert (await cluster.node(N1)).available.grains["CPU"] == 40_000
        await cluster.beat(N1, 30_000)
        async with asyncio.timeout(60):
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
            async with asyncio.timeout(60):
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


async def test_a_copy_that_is_told_of_after_its_object_was_freed_is_deleted(cluster: Cluster) -> None:
    await cluster.join(cluster.raylet_2)
    object_id = await cluster.start_job() + b"o" * 20
    answer = await cluster.objects.FreeObjects(pb.FreeObjectsRequest(object_ids=[object_id]))
    assert not answer.copies, "nobody has told of one"
    report = pb.ReportCopiesRequest(node_id=N2, home_node_id=N1, object_ids=[object_id])
    assert list((await cluster.objects.ReportCopies(report)).freed_object_ids) == [object_id]
    await until_not_found(lambda: cluster.objects.LocateObject(pb.LocateObjectRequest(object_id=object_id)))


async def test_what_was_freed_of_a_blob_is_known_to_the_next_gcs(cluster: Cluster) -> None:
    job_id = await cluster.start_job()
    ids = [job_id + bytes([number]) * 20 for number in range(2)]
    key = f"spill/{job_id.hex()}/{N1.hex()}/1-1"
    spilled = pb.ReportSpilledRequest(job_id=job_id, node_id=N1, key=key)
    for number, object_id in enumerate(ids):
        spilled.objects.add(object_id=object_id, offset=number * 10, size_bytes=10)
    await cluster.objects.ReportSpilled(spilled)
    assert not (await cluster.objects.FreeObjects(pb.FreeObjectsRequest(object_ids=ids[:1]))).blob_keys
    await cluster.restart_gcs()
    place = await cluster.objects.LocateObject(pb.LocateObjectRequest(object_id=ids[1]))
    assert (place.blob_key, place.offset, place.size_bytes) == (key, 10, 10)
    assert list((await cluster.objects.FreeObjects(pb.FreeObjectsRequest(object_ids=ids[1:]))).blob_keys) == [key]


async def test_a_gcs_that_was_kept_from_running_itself_declares_nobody_dead(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: asyncio.Queue[None] = asyncio.Queue()

    async def check_health(raylets: Raylets, address: str) -> str:
        asked.put_nowait(None)
        return "it does not answer"

    monkeypatch.setattr(Raylets, "check_health", check_health)
    # As if each answer had come long after the deadline.
    monkeypatch.setattr(manager, "HELD_UP_S", -manager.HEALTH_DEADLINE_S)
    await cluster.restart_gcs(silence_s=0.05, checks=1)
    await cluster.join()
    async with asyncio.timeout(60):
        for _ in range(3):
            await asked.get()
        assert (await cluster.node(N1)).state == pb.NODE_STATE_ALIVE
        async with events_of(cluster, subjects.all_nodes(CLUSTER)) as mailbox:
            monkeypatch.setattr(manager, "HELD_UP_S", 60.0)
            _, data = await mailbox.take()
        assert events_pb2.NodeEvent.FromString(data).node.state == pb.NODE_STATE_DEAD
