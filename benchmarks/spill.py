"""Spilling to MinIO and restoring from it, against what MinIO's own client reaches with the same bytes.

    python benchmarks/spill.py [--minio PROGRAM] [--data FOLDER] [--rounds N]

Starts a MinIO server and two objectstore services, of which one lets its clients stream straight to MinIO, as by
default, and one does not. Blobs of 100 MiB, made of objects of 1 to 25 MiB, are stored whole and read object by
object, several at once, in rounds in which all take turns. Writes results/spill.{md,json}; fails below `REQUIRED`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from minio import Minio
from report import describe_machine

from shoal_common.blob.client import BlobClient
from shoal_common.rpc.client import aio_channel

RESULTS = Path(__file__).resolve().parent / "results"
#: Where MinIO's program is looked for: on the path, or where `make images-local` has built it.
PROGRAMS = os.pathsep.join([os.environ["PATH"], str(RESULTS.parents[1] / ".cache" / "images" / "servers")])
#: Of the client's own rate.
REQUIRED = 0.7
MIB = 1024 * 1024
BLOB_BYTES = 100 * MIB
BLOBS = 8
IN_FLIGHT = 4

#: One step: does something with BLOBS × BLOB_BYTES.
Step = Callable[[], Awaitable[None]]


def object_sizes() -> list[int]:
    """In bytes; the same in each run."""
    rng = random.Random(3)
    sizes: list[int] = []
    while (left := BLOB_BYTES - sum(sizes)) > 25 * MIB:
        sizes.append(min(rng.randint(MIB, 25 * MIB), left - MIB))
    return [*sizes, left]


class OwnClient:
    """MinIO's library as its documentation uses it, in threads."""

    def __init__(self, client: Minio, objects: Sequence[bytes]) -> None:
        self._client = client
        self._blob = b"".join(objects)
        self._ranges = _ranges(objects)
        self._threads = ThreadPoolExecutor(IN_FLIGHT)
        client.make_bucket("own-client")

    async def put(self) -> None:
        await self._each(self._put, range(BLOBS))

    async def get(self) -> None:
        await self._each(self._get, [(blob, *part) for blob in range(BLOBS) for part in self._ranges])

    async def _each(self, call: Callable[[Any], None], arguments: Sequence[Any]) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self._threads, call, argument) for argument in arguments))

    def _put(self, number: int) -> None:
        self._client.put_object("own-client", f"{number}", io.BytesIO(self._blob), len(self._blob))

    def _get(self, wanted: tuple[int, int, int]) -> None:
        number, offset, length = wanted
        answer = self._client.get_object("own-client", f"{number}", offset, length)
        try:
            assert len(answer.read()) == length
        finally:
            answer.close()
            answer.release_conn()


class Shoal:
    """What a raylet does, through one objectstore service."""

    def __init__(self, blobs: BlobClient, name: str, objects: Sequence[bytes]) -> None:
        self._blobs = blobs
        self._name = name
        self._objects = objects
        self._ranges = _ranges(objects)
        # As the arena: memory that is there before.
        self._targets = [bytearray(os.urandom(max(map(len, objects)))) for _ in range(IN_FLIGHT)]
        self._turn = asyncio.Semaphore(IN_FLIGHT)

    async def put(self) -> None:
        await asyncio.gather(*(self._put(number) for number in range(BLOBS)))

    async def get(self) -> None:
        await asyncio.gather(*(self._get(blob, *part) for blob in range(BLOBS) for part in self._ranges))

    async def _put(self, number: int) -> None:
        async with self._turn:
            await self._blobs.put(f"spill/{self._name}/{number}", self._objects)

    async def _get(self, number: int, offset: int, length: int) -> None:
        async with self._turn:
            target = self._targets.pop()
            await self._blobs.get_into(f"spill/{self._name}/{number}", memoryview(target)[:length], offset)
            self._targets.append(target)


def _ranges(objects: Sequence[bytes]) -> list[tuple[int, int]]:
    """Offset and length of each object in its blob."""
    ranges = []
    at = 0
    for each in objects:
        ranges.append((at, len(each)))
        at += len(each)
    return ranges


async def measure(minio: Minio, direct: BlobClient, through: BlobClient, rounds: int) -> dict[str, list[float]]:
    """MiB/s of each round, after one that does not count."""
    objects = [os.urandom(size) for size in object_sizes()]
    own, straight, served = OwnClient(minio, objects), Shoal(direct, "straight", objects), Shoal(through, "s", objects)
    steps: dict[str, Step] = {
        "put, minio client": own.put,
        "put, Shoal": straight.put,
        "put, Shoal through the service": served.put,
        "get, minio client": own.get,
        "get, Shoal": straight.get,
        "get, Shoal through the service": served.get,
    }
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            await step()
            if number:
                rates[name].append(BLOBS * BLOB_BYTES / MIB / (time.perf_counter() - start))
    return rates


def report(rates: dict[str, list[float]]) -> bool:
    """Whether the requirement is met. The ratio is that of each round, so that a slow minute is bad for both."""
    machine = {key: value for key, value in describe_machine().items() if key != "ray"}
    lines = [
        "# Spill and restore",
        "",
        f"Blobs of 100 MiB of objects of 1 to 25 MiB, {IN_FLIGHT} at once; medians of "
        f"{len(rates['put, Shoal'])} rounds in turn. " + ", ".join(f"{k}: {v}" for k, v in machine.items()),
        "",
        "| | MiB/s | of the minio client | required | |",
        "|---|---|---|---|---|",
    ]
    passed = True
    for name, rounds in rates.items():
        ratio = median(a / b for a, b in zip(rounds, rates[f"{name[:3]}, minio client"], strict=True))
        verdict = "| |"
        if name.endswith("Shoal"):
            passed &= ratio >= REQUIRED
            verdict = f"| ≥ {REQUIRED:.0%} | {'pass' if ratio >= REQUIRED else 'FAIL'}"
        lines.append(f"| {name} | {median(rounds):,.0f} | {ratio:.0%} {verdict} |")
    table = "\n".join(lines) + "\n"
    print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "spill.md").write_text(table)
    (RESULTS / "spill.json").write_text(json.dumps({"machine": machine, "MiB/s": rates}, indent=1) + "\n")
    return passed


@contextlib.contextmanager
def minio_server(program: str, data: Path, access_key: str, secret_key: str) -> Iterator[str]:
    """A server with its data in ``data``; gives its address."""
    address, console = f"127.0.0.1:{_free_port()}", f"127.0.0.1:{_free_port()}"
    environment = {"MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key, "MINIO_BROWSER": "off"}
    command = [program, "server", "--quiet", f"--address={address}", f"--console-address={console}", str(data)]
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://{address}/minio/health/ready", timeout=1):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{program} does not serve") from None
                time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def objectstore(minio: str, access_key: str, secret_key: str, *, direct: bool) -> AsyncIterator[BlobClient]:
    """A client of ``python -m shoal_objectstore`` on that server."""
    token = secrets.token_hex(16)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shoal_objectstore", "--port=0", f"--s3-endpoint={minio}", f"--s3-direct={direct}"),
        env={
            **os.environ,
            "SHOAL_AUTH_TOKEN": token,
            "SHOAL_S3_ACCESS_KEY": access_key,
            "SHOAL_S3_SECRET_KEY": secret_key,
        },
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stderr is not None
    try:
        said: dict[str, str] = {}
        while said.get("event") != "service_started":
            said = json.loads(await child.stderr.readline())
        async with aio_channel(said["address"], token) as channel:
            client = BlobClient(channel)
            try:
                yield client
            finally:
                await client.close()
    finally:
        child.kill()
        await child.communicate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minio", default=shutil.which("minio", path=PROGRAMS), help="MinIO's server program")
    parser.add_argument(
        "--data", type=Path, default=Path(tempfile.gettempdir()), help="its data go into a folder in here"
    )
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if not arguments.minio:
        parser.error("there is no minio: name the server program with --minio")
    access_key, secret_key = secrets.token_hex(8), secrets.token_hex(16)
    with tempfile.TemporaryDirectory(dir=arguments.data) as data:
        with minio_server(arguments.minio, Path(data), access_key, secret_key) as address:
            async with (
                objectstore(address, access_key, secret_key, direct=True) as direct,
                objectstore(address, access_key, secret_key, direct=False) as through,
            ):
                client = Minio(address, access_key, secret_key, secure=False)
                rates = await measure(client, direct, through, arguments.rounds)
    return 0 if report(rates) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
