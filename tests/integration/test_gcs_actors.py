"""Actors of a GCS: their life, their names, and how each finds a place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.gcs import CLUSTER, DRIVER, N1, STOPPED, Cluster, events_of

from shoal_common import errors
from shoal_common.bus import subjects
from shoal_common.ids import JobID, new_actor_id
from shoal_common.rpc.client import service_errors
from shoal_proto.v1 import common_pb2, events_pb2, scheduler_pb2
from shoal_proto.v1 import gcs_pb2 as pb


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path / "gcs.sqlite") as cluster:
        yield cluster


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


async def test_so_it_is_when_that_is_told_before_the_raylet_has_answered(cluster: Cluster) -> None:
    await cluster.join()
    cluster.raylet.may_answer.clear()
    actor_id = await cluster.create(await cluster.start_job())
    await cluster.raylet.started.take()
    await cluster.report_started(actor_id, 1, failure="no memory for a process")
    cluster.raylet.may_answer.set()
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
