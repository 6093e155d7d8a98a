"""Workers of a raylet: leases, actors, what they print, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.processes import PATIENCE_S, command, descendants
from support.raylet import JOB, MIB, Start, is_running, object_id, raylets, tell, until_gone

from shoal_common.channel import frames
from shoal_common.errors import ResourceExhausted
from shoal_common.ids import JobID, new_actor_id
from shoal_proto.v1 import common_pb2, events_pb2, gcs_pb2, raylet_pb2

CPU = common_pb2.ResourceAmounts(grains={"CPU": 10_000})


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    async with raylets(tmp_path, monkeypatch) as start:
        yield start


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
    await cluster.until_gcs_knows_of_end(granted.worker.worker_id)
    await cluster.until(lambda stats: stats.available.grains["CPU"] == 20_000)
    driver.close()


async def test_an_infeasible_class_is_refused_with_what_is_missing(start: Start) -> None:
    cluster = await start(infeasible_grace_s=0)
    driver = await cluster.driver()
    await driver.demand(1, (("GPU", 10_000),))
    refused = await driver.expect(frames.LeaseRefused)
    assert refused.kind == "infeasible"
    assert "lacks 1 GPU" in refused.reason and cluster.raylet.node_id.hex() in refused.reason
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
    actor_id = await cluster.create_actor(held=CPU)
    actor = await cluster.gcs.until(actor_id, gcs_pb2.ACTOR_STATE_ALIVE)
    assert (actor.incarnation, actor.address.node_id) == (1, cluster.raylet.node_id)
    assert is_running(actor.pid) and actor.address.path
    assert (await cluster.stats()).available.grains["CPU"] == 10_000
    async with cluster.stub() as stub:
        await stub.StopWorker(raylet_pb2.StopWorkerRequest(actor_id=actor_id, force=True, reason="ray.kill"))
    dead = await cluster.gcs.until(actor_id, gcs_pb2.ACTOR_STATE_DEAD)
    assert (dead.exit.kind, dead.exit.detail) == (common_pb2.EXIT_KIND_INTENDED_SYSTEM_EXIT, "ray.kill")
    assert (await cluster.stats()).available.grains["CPU"] == 20_000


async def test_a_later_incarnation_replaces_the_earlier_one(start: Start) -> None:
    cluster = await start()
    actor_id = await cluster.create_actor(held=CPU, max_restarts=1)
    first = await cluster.gcs.until(actor_id, gcs_pb2.ACTOR_STATE_ALIVE)
    with pytest.raises(ResourceExhausted, match="an earlier incarnation has not ended yet"):
        await cluster.start_actor(actor_id, incarnation=2, held=CPU)
    # The GCS hears of the first one's end, and asks for the second.
    second = await cluster.gcs.until(actor_id, gcs_pb2.ACTOR_STATE_ALIVE, incarnation=2)
    assert not is_running(first.pid)
    assert is_running(second.pid)
    assert (await cluster.stats()).available.grains["CPU"] == 10_000


async def test_a_constructor_that_raises_or_crashes(start: Start) -> None:
    cluster = await start()
    raises, crashes = await cluster.create_actor(b"raise"), await cluster.create_actor(b"crash")
    assert (await cluster.gcs.until(raises, gcs_pb2.ACTOR_STATE_DEAD)).creation_error == b"ValueError"
    assert "exited with code 5" in (await cluster.gcs.until(crashes, gcs_pb2.ACTOR_STATE_DEAD)).exit.detail


async def test_an_actor_without_room_is_refused_and_the_room_set_aside(start: Start) -> None:
    cluster = await start(resources={"CPU": 1})
    driver = await cluster.driver()
    await driver.demand(2)
    granted = await driver.expect(frames.LeaseGranted)
    actor_id = new_actor_id(JobID(JOB))
    with pytest.raises(ResourceExhausted, match="free"):
        await cluster.start_actor(actor_id, placement=CPU)
    reclaim = await driver.expect(frames.LeaseReclaim)
    assert reclaim.lease_id == granted.lease_id
    await driver.send(frames.LeaseReturned(granted.lease_id))
    await cluster.until(lambda stats: stats.available.grains["CPU"] == 10_000)
    await cluster.create_actor(actor_id=actor_id)
    await cluster.gcs.until(actor_id, gcs_pb2.ACTOR_STATE_ALIVE)
    # It holds nothing for life, so the task has its turn now.
    await driver.expect(frames.LeaseGranted)
    driver.close()


# --- output ---


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
    await cluster.until_gcs_knows_of_end(granted.worker.worker_id)
    logs = cluster.directory / "logs"
    # Half a line is shown as such after a while.
    assert (logs / f"worker-{granted.worker.worker_id.hex()}.err").read_text().rstrip("\n") == "oops"
    driver.close()


async def test_a_flood_of_output_is_kept_in_bounds_and_loses_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal_raylet.workers.output.MAX_PENDING_LINES", 100)
    monkeypatch.setattr("shoal_raylet.workers.log_files.ROTATE_BYTES", 50_000)
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


# --- ends ---


async def test_a_worker_that_fills_the_memory_is_killed_with_the_reason(start: Start) -> None:
    cluster = await start(memory_usage_threshold=0.0)
    driver = await cluster.driver()
    granted = await driver.lease()
    await tell(granted, "hog = bytearray(os.urandom(1)) * (100 << 20)")
    lost = await driver.expect(frames.LeaseLost)
    assert lost.kind == "NODE_OUT_OF_MEMORY"
    assert "threshold 0%" in lost.detail
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
    ids = [await cluster.create_actor(), await cluster.create_actor(detached=True)]
    actor, detached = [await cluster.gcs.until(actor_id, gcs_pb2.ACTOR_STATE_ALIVE) for actor_id in ids]
    driver.close()
    assert "its job has finished" in (await cluster.gcs.until(ids[0], gcs_pb2.ACTOR_STATE_DEAD)).death_reason
    assert len(children) == 3
    for pid in (granted.pid, actor.pid, *map(int, children)):
        await until_gone(pid)
    await cluster.until(lambda stats: stats.store_objects == 0 and stats.store_used_bytes == 0)
    assert is_running(detached.pid)
