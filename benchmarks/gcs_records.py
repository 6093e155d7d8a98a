"""Durable records a second of the GCS on sharded etcd.

    python benchmarks/gcs_records.py [--etcd PROGRAM] [--rounds N] [--seconds S]

Three questions, each in rounds that take turns:

- How many rows does the GCS's own row writer make durable on 2 shards? That is what all its tables write through:
  compare-and-swap, fenced by the leader's epoch, group-committed. As many callers wait for their row at any time as a
  busy cluster has calls under way.
- How many through the front door, by gRPC from another process? Spilled objects, of which a raylet reports a blob's at
  once, and actors, two rows each, which nobody batches but the writer.
- What does a second shard bring when etcd is the bottleneck? Every etcd server has the same small share of a CPU then
  (a cgroup of its own; needs root, and is left out without).

Writes results/gcs_records.{md,json}; fails below what is required.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import grpc.aio
from report import describe_machine

from shoal_common.errors import Unavailable
from shoal_common.metadata.etcd import EtcdMetadataStore
from shoal_common.rpc.client import aio_channel
from shoal_common.service.background import Background
from shoal_gcs.store.rows import Rows
from shoal_proto.v1 import gcs_pb2, gcs_pb2_grpc

RESULTS = Path(__file__).resolve().parent / "results"
REQUIRED_PER_S = 5_000
REQUIRED_GAIN = 1.6
#: Callers that wait for their row at any time.
ROWS_IN_FLIGHT = 1_000
CALLS_IN_FLIGHT = 200
#: Objects in a spilled blob, of a megabyte or so each.
BLOB_OBJECTS = 40
#: About what an actor's row has.
VALUE = secrets.token_bytes(300)
#: Share of one CPU that each etcd gets where it is to be the bottleneck.
CPU_SHARE = 0.05
PERIOD_US = 20_000
CPU_GROUPS = Path("/sys/fs/cgroup/cpu")
DEADLINE_S = 30.0


class Etcd:
    """One server of a shard. ``group``: the cgroup that holds it back; None = it runs freely."""

    def __init__(self, program: str, directory: Path, group: Path | None = None) -> None:
        self.port, peer = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        client, peer_url = f"http://{self.address}", f"http://127.0.0.1:{peer}"
        directory.mkdir()
        self._log = (directory / "log").open("wb")
        self._process = subprocess.Popen(
            [
                program,
                f"--data-dir={directory / 'data'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer_url}",
                f"--initial-advertise-peer-urls={peer_url}",
                f"--initial-cluster=default={peer_url}",
            ],
            stdout=self._log,
            stderr=self._log,
        )
        self._wait()
        self._group = group
        if group is not None:
            group.mkdir()
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(int(CPU_SHARE * PERIOD_US)))
            # The share is what it gets, also on a busy machine.
            (group / "cpu.shares").write_text("100000")
            (group / "cgroup.procs").write_text(str(self._process.pid))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        if self._group is not None:
            self._group.rmdir()

    def _wait(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(urllib.error.URLError, OSError):
                with urllib.request.urlopen(f"http://{self.address}/health", timeout=1) as answer:
                    if b'"true"' in answer.read():
                        return
            if time.monotonic() > deadline:
                raise RuntimeError(f"etcd does not answer on {self.address}")
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def shards(program: str, directory: Path, count: int, *, held_back: bool = False) -> Iterator[list[Etcd]]:
    with contextlib.ExitStack() as stack:
        servers = []
        for number in range(count):
            group = CPU_GROUPS / f"shoal-{os.getpid()}-{directory.name}-{number}" if held_back else None
            servers.append(Etcd(program, directory.with_name(f"{directory.name}-{number}"), group))
            stack.callback(servers[-1].close)
        yield servers


@contextlib.asynccontextmanager
async def led(servers: Sequence[Etcd]) -> AsyncIterator[EtcdMetadataStore]:
    """As the active GCS has it: the writes are fenced."""
    store = EtcdMetadataStore([server.address for server in servers], deadline_s=DEADLINE_S)
    await store.join("bench", DEADLINE_S)
    leadership = await store.lead("the benchmark", DEADLINE_S)
    try:
        yield store
    finally:
        await leadership.resign()
        await store.close()


async def write_rows(store: EtcdMetadataStore, seconds: float) -> float:
    """Rows a second, counted when they are durable."""
    background = Background()
    rows = Rows(store, "/shoal/bench/row/", background)
    written = 0
    start = time.monotonic()

    async def caller() -> None:
        nonlocal written
        while time.monotonic() < start + seconds:
            await rows.put(secrets.token_hex(16), VALUE)
            written += 1

    await asyncio.gather(*(caller() for _ in range(ROWS_IN_FLIGHT)))
    rate = written / (time.monotonic() - start)
    await background.stop()
    return rate


async def report_spilled(channel: grpc.aio.Channel, job_id: bytes, seconds: float) -> float:
    """Objects a second, a row for each blob of them."""
    stub: Any = gcs_pb2_grpc.ObjectServiceStub(channel)
    node_id = secrets.token_bytes(16)
    objects = [gcs_pb2.SpilledObject(owner_id=node_id, offset=i << 20, size_bytes=1 << 20) for i in range(BLOB_OBJECTS)]
    reported = 0
    start = time.monotonic()

    async def raylet() -> None:
        nonlocal reported
        while time.monotonic() < start + seconds:
            for spilled in objects:
                spilled.object_id = job_id + secrets.token_bytes(20)
            key = f"spill/{job_id.hex()}/{node_id.hex()}/{secrets.token_hex(8)}"
            request = gcs_pb2.ReportSpilledRequest(job_id=job_id, node_id=node_id, key=key, objects=objects)
            await stub.ReportSpilled(request, timeout=DEADLINE_S)
            reported += BLOB_OBJECTS

    await asyncio.gather(*(raylet() for _ in range(CALLS_IN_FLIGHT)))
    return reported / (time.monotonic() - start)


@contextlib.asynccontextmanager
async def gcs_process(servers: Sequence[Etcd], token: str) -> AsyncIterator[str]:
    """``host:port`` of a GCS of its own on these shards."""
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shoal_gcs", "--port", address.rpartition(":")[2], "--cluster-id", "bench"),
        *("--etcd", ",".join(server.address for server in servers), "--log-level", "error"),
        env={**os.environ, "SHOAL_AUTH_TOKEN": token},
    )
    try:
        yield address
    finally:
        process.terminate()
        await process.wait()


async def create_actors(channel: grpc.aio.Channel, job_id: bytes, seconds: float) -> float:
    """Rows a second: an actor has two, what it is made of and how it is. No scheduler runs, so none gets a node."""
    actors: Any = gcs_pb2_grpc.ActorServiceStub(channel)
    created = 0
    start = time.monotonic()

    async def caller() -> None:
        nonlocal created
        while time.monotonic() < start + seconds:
            spec = gcs_pb2.ActorSpec(
                actor_id=secrets.token_bytes(16), job_id=job_id, owner_id=bytes(16), creation=VALUE
            )
            await actors.CreateActor(gcs_pb2.CreateActorRequest(spec=spec), timeout=DEADLINE_S)
            created += 1

    await asyncio.gather(*(caller() for _ in range(CALLS_IN_FLIGHT)))
    return 2 * created / (time.monotonic() - start)


async def measure(program: str, directory: Path, rounds: int, seconds: float) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {}

    def keep(name: str, rate: float) -> None:
        rates.setdefault(name, []).append(rate)
        print(f"{name}: {rate:,.0f}/s", flush=True)

    with shards(program, directory / "free", 2) as servers:
        async with led(servers) as store:
            await write_rows(store, 1.0)
            for _ in range(rounds):
                keep("rows", await write_rows(store, seconds))
        token = secrets.token_hex(16)
        async with gcs_process(servers, token) as address, aio_channel(address, token, patient=True) as channel:
            jobs: Any = gcs_pb2_grpc.JobServiceStub(channel)
            job_id = (await jobs.StartJob(gcs_pb2.StartJobRequest(driver_id=bytes(16)))).job_id
            for _ in range(rounds):
                keep("spilled objects", await report_spilled(channel, job_id, seconds))
                keep("actors", await create_actors(channel, job_id, seconds))
    if not os.access(CPU_GROUPS, os.W_OK):
        print(f"{CPU_GROUPS} cannot be written: etcd is not held back, and 1 and 2 shards are not compared")
        return rates
    with (
        shards(program, directory / "one", 1, held_back=True) as one,
        shards(program, directory / "two", 2, held_back=True) as two,
    ):
        async with led(one) as alone, led(two) as both:
            for _ in range(rounds):
                keep("1 shard held back", await write_rows(alone, seconds))
                keep("2 shards held back", await write_rows(both, seconds))
    return rates


def report(rates: dict[str, list[float]]) -> bool:
    """Write it down; False = less than required."""
    medians = {name: median(values) for name, values in rates.items()}
    rate = medians["rows"]
    table = [
        (f"the row writer, 2 shards, {ROWS_IN_FLIGHT:,} callers wait", f"{rate:,.0f}", f"≥ {REQUIRED_PER_S:,}"),
        (
            f"by gRPC: spilled objects, {BLOB_OBJECTS} a blob, {CALLS_IN_FLIGHT} calls under way",
            f"{medians['spilled objects']:,.0f}",
            f"≥ {REQUIRED_PER_S:,}",
        ),
        (f"by gRPC: actors created, {CALLS_IN_FLIGHT} calls under way", f"{medians['actors']:,.0f}", ""),
    ]
    passed = [rate >= REQUIRED_PER_S, medians["spilled objects"] >= REQUIRED_PER_S, None]
    if "2 shards held back" in medians:
        one, two = medians["1 shard held back"], medians["2 shards held back"]
        table += [
            (f"1 shard, {CPU_SHARE:.0%} of a CPU for each etcd", f"{one:,.0f}", ""),
            (
                f"2 shards, {CPU_SHARE:.0%} of a CPU for each etcd",
                f"{two:,.0f}, {two / one:.2f}×",
                f"≥ {REQUIRED_GAIN:g}×",
            ),
        ]
        passed += [None, two / one >= REQUIRED_GAIN]
    verdict = {True: "pass", False: "FAIL", None: ""}
    lines = ["# Durable records of the GCS on etcd", "", "| | records/s | required | |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cells)} | {verdict[result]} |" for cells, result in zip(table, passed, strict=True)]
    text = "\n".join(lines) + "\n"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gcs_records.md").write_text(text)
    (RESULTS / "gcs_records.json").write_text(
        json.dumps({"machine": describe_machine(), "records_per_s": rates}, indent=2) + "\n"
    )
    return False not in passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--etcd", default=shutil.which("etcd") or "", help="etcd's program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    arguments = parser.parse_args()
    if not arguments.etcd:
        parser.error("etcd is not installed: apt-get install etcd-server, or name its program with --etcd")
    with tempfile.TemporaryDirectory(prefix="gcs-records-") as directory:
        try:
            rates = asyncio.run(measure(arguments.etcd, Path(directory), arguments.rounds, arguments.seconds))
        except Unavailable as error:
            print(f"etcd did not keep up: {error}", file=sys.stderr)
            return 1
    return 0 if report(rates) else 1


if __name__ == "__main__":
    sys.exit(main())
