"""A raylet as a whole: its channel, its rpcs, functions, heartbeats, its end, a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.processes import PATIENCE_S
from support.raylet import JOB, MIB, TOKEN, Driver, Start, is_running, object_id, raylets, tell

from shoal_common.bus import subjects
from shoal_common.channel import frames, handshake
from shoal_common.errors import DeadlineExceeded, Unavailable
from shoal_common.placement.resources import GRAINS
from shoal_common.rpc.client import aio_channel
from shoal_gcs.jobs.functions import FunctionTable
from shoal_proto.v1 import events_pb2, gcs_pb2, raylet_pb2
from shoal_proto.v1.raylet_pb2_grpc import RayletServiceStub


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    async with raylets(tmp_path, monkeypatch) as start:
        yield start


# --- the channel ---


async def test_a_wrong_token_is_found_out_by_both_sides(start: Start) -> None:
    cluster = await start()
    driver = Driver(cluster.raylet.channel_path, token="another token")
    with pytest.raises(handshake.HandshakeError, match="wrong token"):
        await driver.connect()

    # A process that does not check the raylet's proof and sends its own all the same.
    impostor = Driver(cluster.raylet.channel_path, token="another token")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handshake.Connecting, "check", lambda *_: None)
        await impostor.connect()
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


# --- the node ---


async def test_a_function_is_waited_for_while_there_is_no_gcs(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    away = [DeadlineExceeded("no GCS"), Unavailable("the GCS stops")]
    get = FunctionTable.get

    async def away_first(table: FunctionTable, function_id: bytes, wait_ms: int) -> gcs_pb2.FunctionRow:
        if away:
            raise away.pop(0)
        return await get(table, function_id, wait_ms)

    monkeypatch.setattr(FunctionTable, "get", away_first)
    cluster = await start()
    function_id = JOB + b"k" * 16
    await cluster.gcs.functions.PutFunction(
        gcs_pb2.PutFunctionRequest(job_id=JOB, function_id=function_id, data=b"pickle")
    )
    driver = await cluster.driver()
    await driver.send(frames.FunctionGet(1, function_id))
    answer = await driver.expect(frames.FunctionData)
    assert (answer.data, answer.error, away) == (b"pickle", "", [])
    driver.close()


async def test_functions_are_fetched_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[bytes] = []
    get = FunctionTable.get

    async def counted(table: FunctionTable, function_id: bytes, wait_ms: int) -> gcs_pb2.FunctionRow:
        fetched.append(function_id)
        return await get(table, function_id, 0)

    monkeypatch.setattr(FunctionTable, "get", counted)
    cluster = await start()
    driver = await cluster.driver()
    known, unknown = JOB + b"k" * 16, JOB + b"u" * 16
    put = gcs_pb2.PutFunctionRequest(job_id=JOB, function_id=known, data=b"pickle")
    await cluster.gcs.functions.PutFunction(put)
    await driver.send(*(frames.FunctionGet(request, known) for request in range(5)))
    answers = [await driver.expect(frames.FunctionData) for _ in range(5)]
    assert {answer.data for answer in answers} == {b"pickle"}
    assert fetched == [known]
    await driver.send(frames.FunctionGet(9, unknown))
    assert f"function {unknown.hex()} is not known" in (await driver.expect(frames.FunctionData)).error
    driver.close()


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


async def test_a_stop_ends_everything_and_says_goodbye(start: Start) -> None:
    cluster = await start()
    driver = await cluster.driver()
    granted = await driver.lease()
    # It cannot be asked to exit: it does not listen any more.
    busy = asyncio.create_task(tell(granted, "import time; time.sleep(1000)"))
    await asyncio.sleep(0)
    await cluster.raylet.stop()
    assert not is_running(granted.pid)
    (node,) = (await cluster.gcs.nodes.ListNodes(gcs_pb2.ListNodesRequest())).nodes
    assert node.state == gcs_pb2.NODE_STATE_DEAD
    await busy
    with pytest.raises((EOFError, ConnectionError)):
        await driver.expect(frames.LeaseLost)
    driver.close()


async def test_it_runs_as_a_process_of_its_own(start: Start, tmp_path: Path) -> None:
    cluster = await start()
    events: asyncio.Queue[events_pb2.NodeEvent] = asyncio.Queue()
    await cluster.bus.subscribe(
        subjects.node("test", b"\xab" * 16),
        lambda _, data: events.put_nowait(events_pb2.NodeEvent.FromString(data)),
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "shoal_raylet",
        *("--gcs-address", cluster.gcs.app.address, "--scheduler-addresses", cluster.scheduler.address),
        *("--objectstore-address", cluster.gcs.app.address, "--cluster-id", "test"),
        *("--session-dir", str(tmp_path / "o"), "--object-store-bytes", str(MIB)),
        *("--node-id", "ab" * 16, "--resources", '{"CPU": 1}'),
        env={**os.environ, "SHOAL_AUTH_TOKEN": TOKEN},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        node = (await events.get()).node
    driver = await Driver(Path(node.raylet_path), worker_id=b"own-driver-00000").connect()
    granted = await driver.lease()
    process.terminate()
    _, log = await process.communicate()
    assert process.returncode == 0, log.decode()
    assert not is_running(granted.pid)
    driver.close()


async def test_the_template_starts_before_grpc_is_imported() -> None:
    program = "import sys, shoal_raylet.workers.template_process; sys.exit('grpc' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await process.wait() == 0
