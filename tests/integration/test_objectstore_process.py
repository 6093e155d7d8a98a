"""``python -m shoal_objectstore`` on a real MinIO server: how it starts, what it refuses, replicas that come and go."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from minio import Minio
from support.certificates import Authority
from support.processes import eventually
from support.servers import MinioServer, free_port, running
from support.tcp_proxy import TcpProxy

from shoal_common import errors
from shoal_common.blob.bucket_claim import MARKER
from shoal_common.blob.client import BlobClient
from shoal_common.rpc.client import aio_channel

TOKEN = "token-of-this-test"
_numbers = itertools.count()


@pytest.fixture
def bucket() -> str:
    """A name that no test has used."""
    return f"bucket-{next(_numbers)}"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A folder with the token and MinIO's credentials."""
    for name, secret in (
        ("token", TOKEN),
        ("access", MinioServer.ACCESS_KEY + "\n"),
        ("secret", MinioServer.SECRET_KEY),
    ):
        (tmp_path / name).write_text(secret)
    return tmp_path


class Process:
    """``python -m shoal_objectstore``, whose log is read line by line."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child

    async def event(self, name: str) -> dict[str, str]:
        """The next line that says ``name``."""
        assert self.child.stderr is not None
        async with asyncio.timeout(60):
            while line := await self.child.stderr.readline():
                said = json.loads(line)
                if said["event"] == name:
                    return dict(said)
        raise AssertionError(f"it ended with {await self.child.wait()} and did not say {name}")

    async def ended(self) -> tuple[int, str]:
        """Its exit code, and what it said."""
        async with asyncio.timeout(60):
            _out, said = await self.child.communicate()
        assert self.child.returncode is not None
        return self.child.returncode, said.decode()


@asynccontextmanager
async def process(secrets: Path, endpoint: str, bucket: str, *flags: str, **environment: str) -> AsyncIterator[Process]:
    if "SHOAL_S3_ACCESS_KEY" not in environment:
        flags += (f"--s3-access-key-file={secrets / 'access'}", f"--s3-secret-key-file={secrets / 'secret'}")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shoal_objectstore", "--port=0", f"--s3-endpoint={endpoint}", f"--s3-bucket={bucket}"),
        *flags,
        env={**os.environ, "SHOAL_AUTH_TOKEN_PATH": str(secrets / "token"), **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(child)
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


@asynccontextmanager
async def client_of(process: Process) -> AsyncIterator[BlobClient]:
    """Of a service that was just started."""
    async with client_at((await process.event("service_started"))["address"]) as client:
        yield client


@asynccontextmanager
async def client_at(*addresses: str) -> AsyncIterator[BlobClient]:
    async with aio_channel(",".join(addresses), TOKEN) as channel:
        client = BlobClient(channel)
        try:
            yield client
        finally:
            await client.close()


def direct(client: BlobClient) -> bool:
    """Whether it streams to and from the S3 server itself."""
    return client._direct is not None and client._direct_from == 0


async def test_any_replica_serves_any_blob(secrets: Path, minio_server: MinioServer, minio: Minio, bucket: str) -> None:
    async with (
        process(secrets, minio_server.address, bucket) as one,
        process(secrets, minio_server.address, bucket) as other,
    ):
        async with client_of(one) as first, client_of(other) as second:
            await first.put("spill/01/aa/1", [b"an object", b"another one"])
            target = bytearray(11)
            await second.get_into("spill/01/aa/1", memoryview(target), 9)
            assert target == b"another one"
            assert {each.object_name for each in minio.list_objects(bucket, recursive=True)} == {
                MARKER,
                "spill/01/aa/1~",
            }
            assert await second.delete(prefix="spill/01/") == 1
            for read in (first.get("spill/01/aa/1"), first.get_into("spill/01/aa/1", memoryview(target), 9)):
                with pytest.raises(errors.NotFound, match="there is no blob"):
                    await read
        one.child.send_signal(signal.SIGTERM)
        assert (await one.ended())[0] == 0


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_replica_that_ends_in_mid_transfer_is_replaced_by_another(
    secrets: Path, minio_server: MinioServer, bucket: str, end: signal.Signals
) -> None:
    through = "--s3-direct=false"  # what streams straight does not need the replica any more
    stored, new = ([os.urandom(10 << 20) for _ in range(6)] for _ in range(2))
    async with (
        process(secrets, minio_server.address, bucket, through) as one,
        process(secrets, minio_server.address, bucket, through) as other,
    ):
        addresses = [(await each.event("service_started"))["address"] for each in (one, other)]
        # The connection to the one stands still half way, whichever is faster.
        with TcpProxy(int(addresses[0].rpartition(":")[2])) as link:
            async with client_at(f"127.0.0.1:{link.port}", addresses[1]) as client:
                await client.put("spill/01/aa/1", stored)
                link.hold_after(40 << 20)
                target = bytearray(60 << 20)
                getting = asyncio.create_task(client.get_into("spill/01/aa/1", memoryview(target)))
                putting = asyncio.create_task(client.put("spill/01/aa/2", new))
                await asyncio.to_thread(eventually, lambda: link.holds, "both are in mid-transfer")
                one.child.send_signal(end)
                if end is signal.SIGKILL:
                    link.refuse()
                assert (await putting).size_bytes == len(target)
                await getting
                assert target == b"".join(stored)
                await client.get_into("spill/01/aa/2", memoryview(target))
                assert target == b"".join(new)


async def test_a_bucket_of_others_is_refused_and_left_as_it_is(
    secrets: Path, minio_server: MinioServer, minio: Minio, bucket: str
) -> None:
    minio.make_bucket(bucket)
    minio.put_object(bucket, "holiday.jpg", io.BytesIO(b"x"), 1)
    async with process(secrets, minio_server.address, bucket) as it:
        code, said = await it.ended()
    assert code == 1
    assert f"the bucket {bucket} of {minio_server.address} has objects that no cluster of Shoal has put there" in said
    assert [each.object_name for each in minio.list_objects(bucket, recursive=True)] == ["holiday.jpg"]


async def test_a_name_that_no_bucket_can_have_is_told_at_once(secrets: Path, minio_server: MinioServer) -> None:
    async with process(secrets, minio_server.address, "No_Bucket") as it:
        code, said = await it.ended()
    assert code == 1
    assert "the bucket No_Bucket" in said and "s3_bucket" in said
    assert "waiting_for_s3" not in said


async def test_another_clusters_bucket_is_refused(
    secrets: Path, minio_server: MinioServer, minio: Minio, bucket: str
) -> None:
    async with process(secrets, minio_server.address, bucket, "--cluster-id=one") as owner:
        await owner.event("service_started")
        async with process(secrets, minio_server.address, bucket, "--cluster-id=two") as it:
            code, said = await it.ended()
    assert code == 1
    assert "belongs to the cluster 'one', this is the cluster 'two'" in said
    # The owner itself comes back, and an empty bucket that is there already is as good as none.
    async with process(secrets, minio_server.address, bucket, "--cluster-id=one") as it:
        await it.event("service_started")
    minio.make_bucket(f"{bucket}-empty")
    async with process(secrets, minio_server.address, f"{bucket}-empty") as it:
        await it.event("service_started")


async def test_wrong_credentials_are_told_at_once_and_kept_secret(
    secrets: Path, minio_server: MinioServer, bucket: str
) -> None:
    wrong = {"SHOAL_S3_ACCESS_KEY": minio_server.ACCESS_KEY, "SHOAL_S3_SECRET_KEY": "a-wrong-secret"}
    async with process(secrets, minio_server.address, bucket, **wrong) as it:
        code, said = await it.ended()
    assert code == 1
    assert f"of {minio_server.address} refuses the objectstore service's credentials (SignatureDoesNotMatch)" in said
    assert "waiting_for_s3" not in said
    assert "Traceback" not in said
    assert "a-wrong-secret" not in said


async def test_credentials_in_variables_are_taken_out_of_the_environment(
    secrets: Path, minio_server: MinioServer, bucket: str
) -> None:
    right = {"SHOAL_S3_ACCESS_KEY": minio_server.ACCESS_KEY, "SHOAL_S3_SECRET_KEY": minio_server.SECRET_KEY}
    async with process(secrets, minio_server.address, bucket, **right) as it:
        await it.event("service_started")


async def test_without_credentials_or_a_place_it_says_what_to_give(secrets: Path, minio_server: MinioServer) -> None:
    async with process(secrets, minio_server.address, "b", SHOAL_S3_ACCESS_KEY="") as it:
        code, said = await it.ended()
    assert (code, "give s3_access_key_file, or SHOAL_S3_ACCESS_KEY" in said) == (2, True)
    async with process(secrets, "", "b") as it:
        code, said = await it.ended()
    assert (code, "give a directory, or an s3_endpoint" in said) == (2, True)
    async with process(secrets, "ftp://minio:9000", "b") as it:
        code, said = await it.ended()
    assert (code, "ftp://minio:9000" in said) == (2, True)


async def test_a_server_that_is_not_there_is_waited_for_and_named(
    secrets: Path, minio_server: MinioServer, bucket: str
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    async with process(secrets, nowhere, bucket, "--start-timeout-s=1.5") as it:
        code, said = await it.ended()
    assert code == 1
    events = [json.loads(line)["event"] for line in said.splitlines()]
    assert events == ["waiting_for_s3", "service_start_failed"]
    assert f"no blob store within 1.5 s: {nowhere} is not reached" in said


async def test_a_server_that_comes_later_is_used(tmp_path: Path, secrets: Path, bucket: str) -> None:
    late = MinioServer(tmp_path / "late")
    async with process(secrets, late.address, bucket) as it:
        assert (await it.event("waiting_for_s3"))["endpoint"] == late.address
        with running(late):
            await it.event("service_started")


async def test_tls_to_the_server(tmp_path: Path, secrets: Path, bucket: str) -> None:
    tls = Authority(tmp_path / "authority").issue()
    with running(secure := MinioServer(tmp_path / "secure", tls)):
        async with process(secrets, secure.address, bucket, f"--s3-ca={tls.ca}") as it:
            async with client_of(it) as client:
                await client.put("k", [b"x" * 1000])
                target = bytearray(1000)
                await client.get_into("k", memoryview(target))
                assert target == b"x" * 1000
                assert direct(client)
        async with process(secrets, f"https://{secure.address}", bucket, "--start-timeout-s=0") as it:
            code, said = await it.ended()
    assert code == 1
    assert "certificate verify failed" in said
