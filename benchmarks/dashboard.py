"""The dashboard before a large cluster: how long its pages take while 100 browsers follow some, and what it weighs.

    python benchmarks/dashboard.py [--attempts N] [--nodes N] [--streams N] [--page-s S]

writes results/dashboard.{md,json}, and fails below what is needed. A real GCS and NATS, 1,000 nodes with 8 workers
each that one process plays (it answers what raylets are asked, tells loads and reports), a dashboard whose store has
1,000,000 attempts, and readers over HTTP: 100 that hold a stream, one that opens each page again and again for
``--page-s``. It gives up after ``LIMIT_S``. Needs ``nats-server``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

from scaling import Finding, report
from scheduler_sim import CLUSTER, TOKEN, Process, amounts, free_port, node_id, process

from shoal_common.bus import subjects
from shoal_common.bus.nats import NatsBus
from shoal_common.channel.frames import PROTOCOL_VERSION
from shoal_common.events.node_events import LOAD_S, NodeLoad, NodeReport, ProcessEvents, ProcessInfo, encode
from shoal_common.events.task_events import Failure, FunctionTally, TaskEvent, TaskKind, TaskState, encode_events
from shoal_common.rpc.client import aio_channel
from shoal_common.rpc.server import create_server, serve
from shoal_dashboard.events.duck_store import DuckTaskStore
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import raylet_pb2, raylet_pb2_grpc
from shoal_proto.v1.gcs_pb2_grpc import NodeServiceStub

WORKERS, OBJECTS = 8, 10
FUNCTIONS = 20
PER_REPORT = 1_000
#: A page is opened so often at most, and not again after ``--page-s``.
ROUNDS = 100
LIMIT_S = 240.0
SETTLE_S = 10.0
PAGE_MS, LIST_S, MEMORY_MB = 300.0, 0.5, 400.0
JOB = b"\0\0\0\1"
PAGES = {
    "overview": "",
    "tasks": "view/tasks",
    "tasks that failed": "view/tasks?state=FAILED",
    "a task": f"view/tasks/{(JOB + (12_345).to_bytes(16, 'big')).hex()}",
    "nodes": "view/nodes",
    "a node": f"view/nodes/{node_id(7).hex()}",
    "workers": "view/workers",
    "objects": "view/objects",
    "actors": "view/actors",
    "jobs": "view/jobs",
    "placement groups": "view/placement_groups",
    "events": "view/events",
    "charts": "view/charts",
    "an hour of charts": "view/charts/data",
    "timeline": f"view/timeline?job_id={JOB.hex()}",
    "task graph": f"view/graph?job_id={JOB.hex()}",
    "logs": "view/logs",
}
#: What is drawn while somebody moves on the timeline; it holds nobody up, and is told by itself.
SHEET = f"view/timeline/sheet?job_id={JOB.hex()}&columns=1600"
LIST = "api/v0/tasks?filter_keys=state&filter_predicates=%3D&filter_values=FAILED&limit=100"
#: Which the streams follow, in turn.
FOLLOWED = ("", "view/tasks", "view/nodes", "view/charts", "", f"view/graph?job_id={JOB.hex()}", "view/workers", "")


# --- a million attempts ----------------------------------------------------------------------------


def worker_id(number: int) -> bytes:
    return b"worker" + number.to_bytes(10, "big")


def attempt(number: int, workers: int, began_ms: int) -> TaskEvent:
    """Tasks of a worker follow one another; one in a hundred has been submitted by the driver, and one fails."""
    worker, turn = number % workers, number // workers
    started = began_ms + turn * 20_000 + worker % 7 * 100
    task = JOB + number.to_bytes(16, "big")
    parent = b"" if number % 100 == 0 else JOB + (number - number % 100).to_bytes(16, "big")
    function = f"function_{number % FUNCTIONS if number % 100 else 0}"
    event = TaskEvent(task, 0, TaskState.FINISHED, started + 5_000 + number % 14_000, TaskKind.NORMAL_TASK, function)
    event.parent, event.worker_id, event.submitted_ms, event.started_ms = (
        parent,
        worker_id(worker),
        started - 5,
        started,
    )
    event.node_id = node_id(worker // WORKERS)
    if number % 100 == 99:
        event.state = TaskState.FAILED
        event.failure = Failure("TASK_EXECUTION_EXCEPTION", "ValueError", f"no {number % 7}\nin line {number}")
    return event


async def fill(path: Path, attempts: int, workers: int) -> None:
    store = DuckTaskStore(path)
    began = int(time.time() * 1_000) - attempts // workers * 20_000 - 60_000
    for first in range(0, attempts, 20 * PER_REPORT):
        reports = []
        for start in range(first, min(attempts, first + 20 * PER_REPORT), PER_REPORT):
            made = NodeReport(b"filler", 1, start // PER_REPORT + 1, 1, 0)
            events = [attempt(n, workers, began) for n in range(start, min(attempts, start + PER_REPORT))]
            made.events = [ProcessEvents(b"driver", encode_events(events))]
            reports.append(made)
        await store.take(reports)
    last = NodeReport(b"filler", 1, attempts // PER_REPORT + 1, 1, 0)
    share = attempts // FUNCTIONS
    last.tallies = [FunctionTally(JOB, f"function_{n}", 0, share, share - 500) for n in range(FUNCTIONS)]
    for tally in last.tallies:
        tally.failed = 500
    await store.take([last])
    await store.close()


# --- nodes -----------------------------------------------------------------------------------------


class Raylets(raylet_pb2_grpc.RayletServiceServicer):
    """All of them, on one port of different addresses."""

    async def GetStats(self, request: raylet_pb2.GetStatsRequest, context: Any) -> raylet_pb2.GetStatsResponse:
        workers = [
            raylet_pb2.WorkerStats(worker_id=os.urandom(16), pid=1_000 + n, state="idle", name="f", job_id=JOB)
            for n in range(WORKERS)
        ]
        return raylet_pb2.GetStatsResponse(workers=workers, store_bytes=16 << 30, store_used_bytes=1 << 30)

    async def ListObjects(self, request: raylet_pb2.ListObjectsRequest, context: Any) -> raylet_pb2.ListObjectsResponse:
        objects = [
            raylet_pb2.ObjectStats(object_id=os.urandom(24), size_bytes=1 << 20, owner_id=b"o" * 16, sealed=True)
            for _ in range(OBJECTS)
        ]
        return raylet_pb2.ListObjectsResponse(objects=objects, total=OBJECTS)


async def play(count: int, gcs: str, nats: str, port: int) -> None:
    """The nodes, until it is ended."""
    server = create_server(TOKEN)
    raylet_pb2_grpc.add_RayletServiceServicer_to_server(Raylets(), server)  # type: ignore[abstract]  # no other calls
    await serve(server, "0.0.0.0", port)
    total = amounts({"CPU": 16, "GPU": 1, "memory": 64e9, "object_store_memory": 16e9})
    async with aio_channel(gcs, TOKEN) as channel:
        stub: Any = NodeServiceStub(channel)
        for number in range(count):
            info = pb.NodeInfo(
                node_id=node_id(number),
                host=f"node-{number}",
                raylet_address=f"127.0.{number // 250 + 1}.{number % 250 + 1}:{port}",
                incarnation=1,
                total=total,
                available=total,
                object_store_bytes=16 << 30,
                protocol_version=PROTOCOL_VERSION,
            )
            await stub.RegisterNode(pb.RegisterNodeRequest(node=info), wait_for_ready=True)
        print("registered", flush=True)
        bus = await NatsBus.connect(nats, TOKEN)
        began = time.monotonic()
        loads_per_s = count / LOAD_S
        for sent in itertools.count():
            number = sent % count
            load = NodeLoad(node_id(number), number % 100, 16, sent, 64 << 30, 1 << 30, 16 << 30, number % 16, sent % 3)
            await bus.publish(subjects.load(CLUSTER, load.node_id), encode(load))
            made = NodeReport(load.node_id, 1, sent // count + 1, 1, int(time.time() * 1_000))
            function = f"function_{sent % FUNCTIONS}"
            event = TaskEvent(JOB + os.urandom(16), 0, TaskState.FINISHED, made.at_ms, TaskKind.NORMAL_TASK, function)
            event.submitted_ms, event.started_ms, event.worker_id = made.at_ms - 5, made.at_ms - 3, worker_id(number)
            made.events = [ProcessEvents(worker_id(number), encode_events([event]))]
            made.tallies = [FunctionTally(JOB, "live", 0, sent // count + 1, sent // count + 1)]
            made.workers = [ProcessInfo(worker_id(number), 1_000, JOB, b"", 0)]
            await bus.publish(subjects.events(CLUSTER, load.node_id), encode(made))
            await asyncio.sleep(max(0.0, began + sent / loads_per_s - time.monotonic()))


# --- readers ---------------------------------------------------------------------------------------


def asked(path: str, accept: str = "text/html") -> bytes:
    return f"GET /{path} HTTP/1.1\r\nHost: d\r\nAuthorization: Bearer {TOKEN}\r\nAccept: {accept}\r\n\r\n".encode()


class Streams:
    """Browsers that follow pages."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.events = 0
        self.bytes = 0
        self.ended = 0

    async def follow(self, path: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(asked(path, "text/event-stream"))
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head:
                raise RuntimeError(head.decode())
            while data := await reader.read(1 << 16):
                self.bytes += len(data)
                self.events += data.count(b"event: page")
        finally:
            self.ended += 1
            writer.close()


async def get(port: int, path: str) -> tuple[float, int]:
    """Seconds to the last byte, and bytes."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(asked(path).replace(b"Host: d\r\n", b"Host: d\r\nConnection: close\r\n"))
        data = await reader.read(-1)
    finally:
        writer.close()
    took = time.perf_counter() - began
    if b" 200 " not in data[:20]:
        raise RuntimeError(f"/{path}: {data[:300].decode()}")
    return took, len(data)


@contextlib.asynccontextmanager
async def cluster(directory: Path, attempts: int, nodes: int) -> AsyncIterator[tuple[Process, int]]:
    """A dashboard of it, and its port."""
    server = shutil.which("nats-server", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if server is None:
        sys.exit("nats-server is not installed, which carries what nodes tell: apt-get install nats-server")
    data = directory / "data"
    data.mkdir()
    filling = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "fill", str(data / f"tasks-{CLUSTER}.duckdb"), str(attempts), str(nodes * WORKERS)
    )
    try:
        failed = await filling.wait()
    finally:
        if filling.returncode is None:
            filling.kill()
    if failed:
        sys.exit("the store was not filled")
    async with contextlib.AsyncExitStack() as stack:
        nats, gcs_port, port = f"127.0.0.1:{free_port()}", free_port(), free_port()
        settings = directory / "nats.conf"
        settings.write_text(f'listen: "{nats}"\nauthorization {{ token: "{TOKEN}" }}\n')
        await stack.enter_async_context(process(directory, "nats", server, "--config", str(settings)))
        gcs = (
            *(sys.executable, "-m", "shoal_gcs", f"--port={gcs_port}", f"--nats-address={nats}", "--silence-s=3600"),
            f"--store-path={directory / 'gcs.sqlite'}",
        )
        await stack.enter_async_context(process(directory, "gcs", *gcs))
        played = await stack.enter_async_context(
            process(
                directory,
                "nodes",
                *(sys.executable, __file__, "play", str(nodes), f"127.0.0.1:{gcs_port}", nats, str(free_port())),
            )
        )
        await answers(lambda: registered(played))
        dashboard = await stack.enter_async_context(
            process(
                directory,
                "dashboard",
                *(sys.executable, "-m", "shoal_dashboard", f"--port={port}", f"--gcs-address=127.0.0.1:{gcs_port}"),
                *(f"--nats-address={nats}", f"--data-dir={data}", "--host=127.0.0.1"),
            )
        )
        await answers(lambda: get(port, "view/timeline"))
        yield dashboard, port


async def answers(ask: Callable[[], Awaitable[object]]) -> None:
    """Asks until it does. ``LIMIT_S`` ends it."""
    while True:
        with contextlib.suppress(OSError, RuntimeError):
            await ask()
            return
        await asyncio.sleep(0.5)


async def registered(played: Process) -> None:
    if "registered" not in played.log.read_text():
        raise RuntimeError("not all nodes are there")


async def command(port: int) -> float:
    """Seconds that ``shoal list tasks`` takes with a filter, the start of its process included."""
    began = time.perf_counter()
    listing = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).parent / "shoal"), "list", "tasks", "--filter", "state=FAILED"),
        *("--address", f"http://127.0.0.1:{port}"),
        stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, "SHOAL_AUTH_TOKEN": TOKEN},
    )
    if await listing.wait():
        raise RuntimeError("shoal list tasks failed")
    return time.perf_counter() - began


async def measure(dashboard: Process, port: int, followers: int, page_s: float) -> list[Finding]:
    streams = Streams(port)
    following = [asyncio.create_task(streams.follow(FOLLOWED[number % len(FOLLOWED)])) for number in range(followers)]
    await asyncio.sleep(SETTLE_S)
    events, cpu, began = streams.events, dashboard.cpu_s(), time.monotonic()
    await asyncio.sleep(SETTLE_S)
    passed = time.monotonic() - began
    share, rate = (dashboard.cpu_s() - cpu) / passed, (streams.events - events) / passed
    findings = [Finding(f"{followers} streams: events a second; share of a core", f"{rate:.0f}; {share:.0%}", "", True)]
    print(findings[-1], flush=True)
    for title, path in PAGES.items():
        await get(port, path)
        times: list[float] = []
        size, until = 0, time.monotonic() + page_s
        while not times or (len(times) < ROUNDS and time.monotonic() < until):
            took, size = await get(port, path)
            times.append(1_000 * took)
            await asyncio.sleep(0.02)
        times.sort()
        p99 = times[int(0.99 * len(times))]
        told = f"{median(times):.0f} ms, p99 {p99:.0f} ms of {len(times)} ({size / 1_000:,.0f} KB)"
        findings.append(Finding(title, told, f"p99 ≤ {PAGE_MS:.0f} ms", p99 <= PAGE_MS))
        print(findings[-1], flush=True)
    sheets = sorted([(await get(port, SHEET))[0] for _ in range(9)])
    findings.append(Finding("a sheet of the whole timeline", f"{1_000 * median(sheets):.0f} ms", "", True))
    listed = sorted([(await get(port, LIST))[0] for _ in range(21)])
    lists = sorted([await command(port) for _ in range(7)])
    told = f"{median(lists):.2f} s, of which the answer {median(listed):.3f} s"
    findings.append(
        Finding("`shoal list tasks --filter state=FAILED`", told, f"≤ {LIST_S:g} s", median(lists) <= LIST_S)
    )
    memory = dashboard.peak_rss_mb()
    findings.append(
        Finding("memory of the service at its peak", f"{memory:.0f} MB", f"≤ {MEMORY_MB:.0f} MB", memory <= MEMORY_MB)
    )
    findings.append(Finding("streams that have ended meanwhile", str(streams.ended), "0", not streams.ended))
    for each in following:
        each.cancel()
    await asyncio.wait(following)
    return findings


async def main(attempts: int, nodes: int, followers: int, page_s: float) -> int:
    with tempfile.TemporaryDirectory(prefix="dashboard-bench-", dir="/tmp") as name:
        async with asyncio.timeout(LIMIT_S), cluster(Path(name), attempts, nodes) as (dashboard, port):
            findings = await measure(dashboard, port, followers, page_s)
    return report(findings, f"The dashboard: {nodes:,} nodes, {attempts:,} attempts, {followers} streams", "dashboard")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["play", count, gcs, nats, port]:
            asyncio.run(play(int(count), gcs, nats, int(port)))
        case ["fill", path, attempts, workers]:
            asyncio.run(fill(Path(path), int(attempts), int(workers)))
        case _:
            parser = argparse.ArgumentParser(description="The dashboard before a large cluster.")
            parser.add_argument("--attempts", type=int, default=1_000_000)
            parser.add_argument("--nodes", type=int, default=1_000)
            parser.add_argument("--streams", type=int, default=100)
            parser.add_argument("--page-s", type=float, default=4.0)
            told = parser.parse_args()
            sys.exit(asyncio.run(main(told.attempts, told.nodes, told.streams, told.page_s)))
