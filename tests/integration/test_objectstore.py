"""The objectstore service over gRPC: within this process as in the embedded profile, and as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.services import started

from shoal_common import errors
from shoal_common.blob import CHUNK_BYTES
from shoal_common.blob.client import BlobClient
from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.rpc.client import aio_channel, service_errors
from shoal_objectstore.app import ObjectStoreApp
from shoal_objectstore.config import ObjectStoreConfig
from shoal_proto.v1 import objectstore_pb2 as pb
from shoal_proto.v1.objectstore_pb2_grpc import ObjectStoreServiceStub

TOKEN = "token-of-this-test"


@asynccontextmanager
async def service(root: Path, min_free_bytes: int = 0) -> AsyncIterator[str]:
    config = ObjectStoreConfig(token=TOKEN, port=0, directory=root)
    app = ObjectStoreApp(config, DirectoryBlobStore(root, min_free_bytes))
    await app.start()
    try:
        yield app.address
    finally:
        await app.stop()


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    async with service(tmp_path) as address:
        yield address


@pytest.fixture
async def client(address: str) -> AsyncIterator[BlobClient]:
    async with aio_channel(address, TOKEN) as channel:
        yield BlobClient(channel)


async def test_fused_objects_go_out_and_come_back_one_by_one(client: BlobClient) -> None:
    objects = [os.urandom(size) for size in (100, 0, CHUNK_BYTES + 3, 1, 50_000)]
    stored = await client.put("spill/01/aa/1", [memoryview(each) for each in objects])
    assert stored.size_bytes == sum(map(len, objects))
    at = 0
    for each in objects:
        target = bytearray(len(each))
        await client.get_into("spill/01/aa/1", memoryview(target), at)
        assert target == each
        at += len(each)
    assert await client.get("spill/01/aa/1") == b"".join(objects)


async def test_many_small_objects_travel_in_few_messages(tmp_path: Path, client: BlobClient) -> None:
    objects = [bytes([n % 256]) * 1000 for n in range(5000)]
    await client.put("k", objects)
    target = bytearray(1000)
    await client.get_into("k", memoryview(target), 4321 * 1000)
    assert target == objects[4321]


async def test_a_read_only_part_of_the_target_is_filled(client: BlobClient) -> None:
    await client.put("k", [b"0123456789"])
    arena = bytearray(b"." * 10)
    await client.get_into("k", memoryview(arena)[3:6], 4)
    assert arena == b"...456...."


async def test_listing_and_deleting(client: BlobClient) -> None:
    for key in ("spill/01/a", "spill/01/b", "package/c"):
        await client.put(key, [key.encode()])
    assert [blob.key for blob in await client.list("spill/")] == ["spill/01/a", "spill/01/b"]
    assert await client.delete(["package/c"], prefix="spill/") == 3
    assert await client.list() == []


async def test_errors_arrive_as_their_own_classes(tmp_path: Path, client: BlobClient) -> None:
    with pytest.raises(errors.NotFound, match="there is no blob spill/none"):
        await client.get("spill/none")
    with pytest.raises(errors.InvalidRequest, match="is not a blob key"):
        await client.put("../outside", [b"x"])
    await client.put("k", [b"0123456789"])
    with pytest.raises(errors.InvalidRequest, match="k has 10 bytes"):
        await client.get_into("k", memoryview(bytearray(5)), 6)
    path = tmp_path / "k%"
    path.write_bytes(path.read_bytes().replace(b"5", b"6", 1))
    with pytest.raises(errors.DataLoss, match="k is damaged"):
        await client.get("k")


async def test_a_full_disk_is_told_apart_from_other_exhaustion(tmp_path: Path) -> None:
    async with service(tmp_path, min_free_bytes=1 << 60) as address, aio_channel(address, TOKEN) as channel:
        with pytest.raises(errors.OutOfDisk, match="must stay free"):
            await BlobClient(channel).put("k", [b"x" * (3 * CHUNK_BYTES)])
        assert await BlobClient(channel).list() == []


async def test_a_header_without_key_and_an_oversized_chunk_are_refused(address: str) -> None:
    async def messages(*parts: pb.PutBlobRequest) -> AsyncIterator[pb.PutBlobRequest]:
        for part in parts:
            yield part

    async with aio_channel(address, TOKEN) as channel:
        stub = ObjectStoreServiceStub(channel)
        with pytest.raises(errors.InvalidRequest, match="first one must name the key"), service_errors():
            await stub.PutBlob(messages())
        with pytest.raises(errors.InvalidRequest, match="'' is not a blob key"), service_errors():
            await stub.PutBlob(messages(pb.PutBlobRequest(chunk=b"x")))
        with pytest.raises(errors.InvalidRequest, match="go in one message"), service_errors():
            await stub.PutBlob(messages(pb.PutBlobRequest(key="k"), pb.PutBlobRequest(chunk=b"x" * (CHUNK_BYTES + 1))))


async def test_an_uploader_that_vanishes_leaves_nothing(tmp_path: Path, address: str) -> None:
    gate = asyncio.Event()

    async def messages() -> AsyncIterator[pb.PutBlobRequest]:
        yield pb.PutBlobRequest(key="k", section_sizes=[10])
        yield pb.PutBlobRequest(chunk=b"01234")
        gate.set()
        await asyncio.Event().wait()

    async with aio_channel(address, TOKEN) as channel:
        call = ObjectStoreServiceStub(channel).PutBlob(messages())
        await gate.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await BlobClient(channel).list() == []


async def test_a_stranger_gets_nothing(address: str) -> None:
    async with aio_channel(address, "wrong") as channel:
        with pytest.raises(errors.Unauthenticated):
            await BlobClient(channel).list()


@pytest.fixture
def token_path(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


async def test_the_process_serves_and_stops_on_sigterm(tmp_path: Path, token_path: Path) -> None:
    async with started("objectstore", token_path, directory=tmp_path / "blobs", port=0) as (child, address):
        check = await asyncio.create_subprocess_exec(sys.executable, "-m", "shoal_common.service.healthcheck", address)
        assert await check.wait() == 0
        async with aio_channel(address, TOKEN) as channel:
            await BlobClient(channel).put("k", [b"x"])
        child.send_signal(signal.SIGTERM)
        assert await child.wait() == 0


async def test_blobs_survive_kill_9_of_the_service(tmp_path: Path, token_path: Path) -> None:
    async with started("objectstore", token_path, directory=tmp_path / "blobs", port=0) as (child, address):
        async with aio_channel(address, TOKEN) as channel:
            await BlobClient(channel).put("spill/01/aa/1", [b"kept"])
            child.kill()
            await child.wait()
            with pytest.raises(errors.Unavailable):
                await BlobClient(channel).list()
            # The same channel: a raylet does not notice more than a pause.
            port = int(address.rpartition(":")[2])
            async with started("objectstore", token_path, directory=tmp_path / "blobs", port=port):
                assert await BlobClient(channel).get("spill/01/aa/1") == b"kept"


async def test_the_process_without_a_token_says_where_to_put_one(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shoal_objectstore", f"--directory={tmp_path}"),
        env={**os.environ, "SHOAL_AUTH_TOKEN_PATH": str(tmp_path / "none")},
        stderr=asyncio.subprocess.PIPE,
    )
    _out, said = await child.communicate()
    assert child.returncode == 2
    assert f"shoal_objectstore: no cluster token: {tmp_path / 'none'} cannot be read" in said.decode()
