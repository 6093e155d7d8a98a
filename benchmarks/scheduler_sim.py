"""One scheduler replica, as a process of its own, and a cluster of simulated nodes that send heartbeats through NATS.

    python benchmarks/scheduler_sim.py                  all parts; writes results/scheduler.{md,json}
    python benchmarks/scheduler_sim.py beat NATS NODES RATE   only publishes heartbeats, until it is ended

Every heartbeat tells another load, so that the node changes its place in every order of nodes that the scheduler keeps:
the worst case. Requests ask for several kinds of resources, strategies and labels in turn. Needs ``nats-server``.
"""

# ruff: noqa: ASYNC110, ASYNC220 - nothing else runs in this process meanwhile
from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from scaling import Finding, report

from shoal_common import auth
from shoal_common.bus import subjects
from shoal_common.bus.nats import NatsBus
from shoal_common.ids import NodeID
from shoal_common.placement.labels import labels_of_node
from shoal_common.placement.resources import ResourceSet
from shoal_common.rpc.client import aio_channel
from shoal_proto.v1 import common_pb2, events_pb2
from shoal_proto.v1 import scheduler_pb2 as pb
from shoal_proto.v1.scheduler_pb2_grpc import SchedulerServiceStub

CLUSTER = "default"
TOKEN = "scheduler-sim"
NODES = 1_000
#: What one replica must reach with NODES that send a heartbeat every second.
PLACEMENTS_PER_S = 5_000
P99_MS = 20.0
RSS_MB = 300.0
#: Places that a raylet asks for at once, on average, when its queue is long.
BATCH = 16
MEASURE_S = 3.0
ROUNDS = 3
#: A call that is not answered by then counts with this time.
DEADLINE_S = 2.0
#: Heartbeats a second at which larger clusters are tried, until something breaks.
RAMP = (1_000, 2_500, 5_000, 10_000)
LARGE = 10_000
PLACEMENTS_PER_S_LARGE = 5_000

KINDS: tuple[tuple[dict[str, float], str], ...] = (
    ({"CPU": 1}, ""),
    ({"CPU": 2}, ""),
    ({"CPU": 1}, "SPREAD"),
    ({"CPU": 1, "memory": 4e9}, ""),
    ({"CPU": 1, "GPU": 1}, ""),
    ({"CPU": 0}, ""),
    ({"CPU": 1}, ";zone=in(a,b)"),
    ({"CPU": 1}, ";zone=c|zone=d"),
)


def node_id(number: int) -> NodeID:
    return NodeID(number.to_bytes(16, "big"))


def amounts(units: dict[str, float]) -> common_pb2.ResourceAmounts:
    return common_pb2.ResourceAmounts(grains=ResourceSet.of(units).grains)


# --- heartbeats ------------------------------------------------------------------------------------


def heartbeat(number: int, rng: random.Random) -> bytes:
    total = {"CPU": 16, "GPU": 2 * (number % 4 == 0), "memory": 64e9, "object_store_memory": 16e9}
    free = {name: amount * rng.random() for name, amount in total.items()}
    free["CPU"] = float(rng.randrange(17))
    return events_pb2.Heartbeat(
        node_id=node_id(number),
        incarnation=1,
        total=amounts(total),
        available=amounts(free),
        queued_leases=rng.randrange(32) if not free["CPU"] else 0,
        mean_task_us=rng.randrange(1_000, 2_000_000),
        labels=labels_of_node(node_id(number), {"zone": "abcd"[number % 4]}),
        raylet_address=f"10.0.{number // 256}.{number % 256}:6400",
    ).SerializeToString()


async def beat(nats: str, nodes: int, rate: float) -> None:
    """Each node in turn, ``rate`` heartbeats a second in all."""
    rng = random.Random(0)
    bodies = [[heartbeat(number, rng) for _ in range(3)] for number in range(nodes)]
    names = [subjects.heartbeat(CLUSTER, node_id(number)) for number in range(nodes)]
    bus = await NatsBus.connect(nats, TOKEN)
    start = time.monotonic()
    for sent in itertools.count():
        if sent % 50 == 0:
            await asyncio.sleep(max(0.0, start + sent / rate - time.monotonic()))
            # Concatenated messages are merged.
            now = events_pb2.Heartbeat(sent_unix_ms=time.time_ns() // 1_000_000).SerializeToString()
        await bus.publish(names[sent % nodes], rng.choice(bodies[sent % nodes]) + now)


# --- processes -------------------------------------------------------------------------------------


@dataclass
class Process:
    pid: int
    log: Path

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_rss_mb(self) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

    def lost_events(self) -> int:
        """As the bus warns of them, at most every ten seconds."""
        words = [
            line.rpartition(" events lost")[0].split()[-1]
            for line in self.log.read_text().splitlines()
            if " events lost" in line
        ]
        return int(words[-1]) if words else 0


@contextlib.asynccontextmanager
async def process(directory: Path, name: str, *command: str) -> AsyncIterator[Process]:
    log = directory / f"{name}.log"
    with log.open("wb") as file:
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            stderr=file, stdout=file, env={**os.environ, auth.TOKEN_VARIABLE: TOKEN},
        )  # fmt: skip
    try:
        yield Process(child.pid, log)
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def cluster(nodes: int, beats_per_s: float) -> AsyncIterator[tuple[Process, Any]]:
    """A scheduler that has heard all nodes, and a stub to it."""
    server = shutil.which("nats-server", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if server is None:
        sys.exit("nats-server is not installed, which carries the heartbeats: apt-get install nats-server")
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nats, port = f"127.0.0.1:{free_port()}", free_port()
        settings = directory / "nats.conf"
        settings.write_text(f'listen: "{nats}"\nauthorization {{ token: "{TOKEN}" }}\n')
        await stack.enter_async_context(process(directory, "nats", server, "--config", str(settings)))
        scheduler = await stack.enter_async_context(
            process(
                directory,
                "scheduler",
                *(sys.executable, "-m", "shoal_scheduler", f"--port={port}", f"--nats-address={nats}"),
            )
        )
        await stack.enter_async_context(
            process(directory, "beat", sys.executable, __file__, "beat", nats, str(nodes), str(beats_per_s))
        )
        channel = await stack.enter_async_context(aio_channel(f"127.0.0.1:{port}", TOKEN))
        stub = SchedulerServiceStub(channel)
        async with asyncio.timeout(60):
            # The last node that sends: all others were heard before it.
            last = pb.PickNodeRequest(strategy=f"node:{node_id(nodes - 1).hex()}")
            while not (await stub.PickNode(last, wait_for_ready=True)).node_id:
                await asyncio.sleep(0.1)
        yield scheduler, stub


# --- requests --------------------------------------------------------------------------------------


def requests(nodes: int, batch: int) -> Callable[[], pb.PickNodeRequest]:
    """``batch`` 0: single ones."""
    rng = random.Random(1)
    kinds = itertools.cycle(KINDS)

    def make() -> pb.PickNodeRequest:
        units, strategy = next(kinds)
        return pb.PickNodeRequest(
            resources=amounts(units),
            strategy=strategy,
            asking_node_id=node_id(rng.randrange(nodes)),
            count=rng.randint(1, 2 * batch - 1) if batch else 0,
        )

    return make


@dataclass
class Measured:
    calls: float
    placements: float
    p50_ms: float
    p99_ms: float
    #: Share of one CPU that the scheduler took.
    cpu: float

    def __str__(self) -> str:
        return (
            f"{self.placements:,.0f} placements/s in {self.calls:,.0f} calls/s, median {self.p50_ms:.1f} ms, "
            f"p99 {self.p99_ms:.1f} ms, {self.cpu:.0%} of a CPU"
        )


async def median_of_rounds(
    scheduler: Process, stub: Any, make: Callable[[], pb.PickNodeRequest], calls_per_s: float = 0.0
) -> Measured:
    """By the 99th percentile; other programs on the machine are felt there first."""
    rounds = [await measure(scheduler, stub, make, calls_per_s) for _ in range(ROUNDS)]
    return sorted(rounds, key=lambda measured: measured.p99_ms)[ROUNDS // 2]


async def measure(
    scheduler: Process, stub: Any, make: Callable[[], pb.PickNodeRequest], calls_per_s: float
) -> Measured:
    """Calls come at this rate whether those before are answered or not; 0: 16 callers, each without a pause."""
    latencies: list[float] = []
    placements = 0

    async def call() -> None:
        nonlocal placements
        request = make()
        start = time.perf_counter()
        try:
            answer = await stub.PickNode(request, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError:
            answer = pb.PickNodeResponse()
        latencies.append(time.perf_counter() - start)
        placements += sum(placement.count for placement in answer.placements) or bool(answer.node_id)

    async def caller(end: float) -> None:
        while time.monotonic() < end:
            await call()

    for _ in KINDS:
        await call()  # the first of a kind
    latencies.clear()
    placements = 0
    start, cpu = time.monotonic(), scheduler.cpu_s()
    if calls_per_s:
        under_way = set()
        for number in range(int(calls_per_s * MEASURE_S)):
            await asyncio.sleep(max(0.0, start + number / calls_per_s - time.monotonic()))
            task = asyncio.create_task(call())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
    else:
        await asyncio.gather(*(caller(start + MEASURE_S) for _ in range(16)))
    elapsed = time.monotonic() - start
    latencies.sort()
    return Measured(
        calls=len(latencies) / elapsed,
        placements=placements / elapsed,
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p99_ms=latencies[int(len(latencies) * 0.99)] * 1e3,
        cpu=(scheduler.cpu_s() - cpu) / elapsed,
    )


async def thousand_nodes() -> list[Finding]:
    async with cluster(NODES, NODES) as (scheduler, stub):
        # A little more is asked for, as not every request finds a place.
        offered = await median_of_rounds(scheduler, stub, requests(NODES, BATCH), 1.25 * PLACEMENTS_PER_S / BATCH)
        most = await median_of_rounds(scheduler, stub, requests(NODES, BATCH))
        single = await median_of_rounds(scheduler, stub, requests(NODES, 0))
        rss, lost = scheduler.peak_rss_mb(), scheduler.lost_events()
    what = f"{NODES:,} nodes, a heartbeat a second each"
    return [
        Finding(
            f"{what}, {BATCH} places a request",
            str(offered),
            f"≥ {PLACEMENTS_PER_S:,}/s, p99 ≤ {P99_MS:g} ms",
            offered.placements >= PLACEMENTS_PER_S and offered.p99_ms <= P99_MS,
        ),
        Finding(f"{what}, as many as it can", str(most), "", True),
        Finding(f"{what}, single places, as many as it can", str(single), "", True),
        Finding(f"{what}, memory at its highest", f"{rss:.0f} MB", f"≤ {RSS_MB:g} MB", rss <= RSS_MB),
        Finding(f"{what}, heartbeats lost", f"{lost}", "0", lost == 0),
    ]


async def what_breaks() -> list[Finding]:
    findings = []
    for beats in RAMP:
        async with cluster(LARGE, beats) as (scheduler, stub):
            offered = await median_of_rounds(scheduler, stub, requests(LARGE, BATCH), PLACEMENTS_PER_S_LARGE / BATCH)
            rss, lost = scheduler.peak_rss_mb(), scheduler.lost_events()
        findings.append(
            Finding(
                f"{LARGE:,} nodes, {beats:,} heartbeats/s, {BATCH} places a request",
                f"{offered}, {rss:.0f} MB, {lost} heartbeats lost",
                "",
                True,
            )
        )
    return findings


async def run_all() -> int:
    return report([*await thousand_nodes(), *await what_breaks()], "One scheduler replica", "scheduler")


if __name__ == "__main__":
    if sys.argv[1:2] == ["beat"]:
        asyncio.run(beat(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
    else:
        sys.exit(asyncio.run(run_all()))
