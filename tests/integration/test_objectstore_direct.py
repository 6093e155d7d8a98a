"""Blobs straight between a client and a real MinIO server, past the service that signs the requests."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from unittest import mock

import pytest
from minio import Minio
from support.processes import eventually
from support.servers import MinioServer, free_port
from support.tcp_proxy import TcpProxy

from shoal_common import errors
from shoal_common.blob import CHUNK_BYTES
from shoal_common.blob import direct as direct_module
from shoal_common.blob.bucket_claim import claim
from shoal_common.blob.bucket_store import CONNECTIONS, MinioBlobStore
from shoal_common.blob.client import BlobClient
from shoal_common.blob.s3 import S3Bucket
from shoal_common.rpc.client import aio_channel
from shoal_objectstore.app import ObjectStoreApp
from shoal_objectstore.config import ObjectStoreConfig

TOKEN = "token-of-this-test"
_numbers = itertools.count()


class OnlyDirect(MinioBlobStore):
    """Blobs do not come and go through it."""

    def put(self, *_arguments: object) -> object:  # type: ignore[override]
        raise errors.InternalError("the blob came through the service")

    def get(self, *_arguments: object) -> object:  # type: ignore[override]
        raise errors.InternalError("the blob went through the service")


@asynccontextmanager
async def service(
    minio_server: MinioServer, make: type[MinioBlobStore], endpoint_for_clients: str = "", read_timeout_s: float = 15
) -> AsyncIterator[tuple[BlobClient, S3Bucket]]:
    bucket = S3Bucket(minio_server.settings(f"bucket-{next(_numbers)}"), CONNECTIONS, read_timeout_s)
    await asyncio.to_thread(claim, bucket, "tests")
    store = signing = make(bucket)
    if endpoint_for_clients:
        elsewhere = replace(minio_server.settings(bucket.name), endpoint=endpoint_for_clients)
        signing = MinioBlobStore(S3Bucket(elsewhere, CONNECTIONS))
        signing.locate = store.locate  # type: ignore[method-assign]
        # The library asks the server for its region before it signs; this one is not there.
        signing._bucket._client._region_map[bucket.name] = "us-east-1"
    app = ObjectStoreApp(ObjectStoreConfig(token=TOKEN, port=0), store, signing)
    await app.start()
    try:
        async with aio_channel(app.address, TOKEN) as channel:
            client = BlobClient(channel)
            yield client, bucket
            await client.close()
    finally:
        await app.stop()
        await store.close()
        await signing.close()


async def test_objects_go_and_come_past_the_service(minio_server: MinioServer) -> None:
    objects = [os.urandom(size) for size in (100, 0, CHUNK_BYTES + 3, 1, 200_000)]
    async with service(minio_server, OnlyDirect) as (client, _bucket):
        stored = await client.put("spill/01/aa/1", objects)
        assert stored.size_bytes == sum(map(len, objects))
        at = 0
        for each in objects:
            target = bytearray(len(each))
            await client.get_into("spill/01/aa/1", memoryview(target), at)
            assert target == each
            at += len(each)
        # What cuts sections is read, too.
        target = bytearray(CHUNK_BYTES)
        await client.get_into("spill/01/aa/1", memoryview(target), 50)
        assert target == b"".join(objects)[50 : 50 + CHUNK_BYTES]


async def test_what_was_stored_directly_is_read_through_the_service_too(minio_server: MinioServer) -> None:
    objects = [bytes([n % 256]) * 1000 for n in range(5000)]
    async with service(minio_server, MinioBlobStore) as (client, _bucket):
        await client.put("k", objects)
        assert await client.get("k") == b"".join(objects)


async def test_a_refused_key_and_range(minio_server: MinioServer) -> None:
    async with service(minio_server, OnlyDirect) as (client, _bucket):
        with pytest.raises(errors.InvalidRequest, match="is not a blob key"):
            await client.put("../outside", [b"x"])
        await client.put("k", [b"0123456789"])
        with pytest.raises(errors.InvalidRequest, match="k has 10 bytes"):
            await client.get_into("k", memoryview(bytearray(5)), 6)


async def test_a_blob_changed_in_the_bucket_is_noticed(minio_server: MinioServer, minio: Minio) -> None:
    async with service(minio_server, MinioBlobStore) as (client, bucket):
        await client.put("k", [b"a" * 1000, b"b" * 1000])
        target = memoryview(bytearray(1000))
        await client.get_into("k", target)
        with minio.get_object(bucket.name, "k~") as answer:
            stored = bytearray(answer.data)
        stored[1500] ^= 1
        minio.put_object(bucket.name, "k~", io.BytesIO(stored), len(stored))
        await client.get_into("k", target)
        assert bytes(target) == b"a" * 1000
        with pytest.raises(errors.DataLoss, match="k is damaged"):
            await client.get_into("k", target, 1000)


async def test_a_full_bucket_is_out_of_disk_and_keeps_what_it_has(minio_server: MinioServer) -> None:
    async with service(minio_server, MinioBlobStore) as (client, bucket):
        minio_server.limit(bucket.name, 1_000_000)
        await client.put("small", [b"x"])
        with pytest.raises(errors.OutOfDisk, match=f"the bucket {bucket.name} of {minio_server.address} is full"):
            await client.put("large", [b"x" * 1_500_000])
        assert [blob.key for blob in await client.list()] == ["small"]
        assert bucket.uploads() == []


async def test_a_server_that_clients_do_not_reach_is_reached_through_the_service(minio_server: MinioServer) -> None:
    async with service(minio_server, MinioBlobStore, f"127.0.0.1:{free_port()}") as (client, _bucket):
        data = os.urandom(CHUNK_BYTES + 1)
        await client.put("k", [data])
        target = bytearray(len(data))
        await client.get_into("k", memoryview(target))
        assert target == data


async def test_a_server_that_dies_and_returns(minio_server: MinioServer) -> None:
    async with service(minio_server, MinioBlobStore) as (client, _bucket):
        await client.put("k", [b"kept"])
        minio_server.kill()
        for attempt in (client.put("other", [b"x"]), client.get_into("k", memoryview(bytearray(4)))):
            with pytest.raises(errors.Unavailable, match=minio_server.address):
                await attempt
        minio_server.start()
        target = bytearray(4)
        await client.get_into("k", memoryview(target))
        assert target == b"kept"


async def test_a_hung_server_is_given_up_in_time(minio_server: MinioServer) -> None:
    with mock.patch.object(direct_module, "TIMEOUT_S", 1.0):
        async with service(minio_server, MinioBlobStore, read_timeout_s=1) as (client, _bucket):
            await client.put("k", [b"kept"])
            minio_server.stop()
            try:
                for attempt in (client.put("other", [b"x"]), client.get_into("k", memoryview(bytearray(4)))):
                    with pytest.raises(errors.DeadlineExceeded, match=minio_server.address):
                        await attempt
            finally:
                minio_server.resume()


async def test_memory_is_not_touched_after_a_cancelled_read(minio_server: MinioServer) -> None:
    with TcpProxy(minio_server.port) as proxy:
        async with service(minio_server, OnlyDirect, f"127.0.0.1:{proxy.port}") as (client, _bucket):
            data = os.urandom(8 * CHUNK_BYTES)
            await client.put("k", [data])
            for chunks in (1, 4, 7):
                target = bytearray(len(data))
                proxy.hold_after(chunks * CHUNK_BYTES)
                reading = asyncio.create_task(client.get_into("k", memoryview(target)))
                await asyncio.to_thread(eventually, lambda: proxy.holds, "the proxy holds")
                reading.cancel()
                await asyncio.wait({reading})
                assert reading.cancelled() and any(target)
                proxy.heal()
                target[:] = bytes(len(target))
                await client.get_into("k", memoryview(bytearray(len(data))))
                assert not any(target)


async def test_a_hung_server_does_not_hold_a_cancelled_transfer(minio_server: MinioServer) -> None:
    with TcpProxy(minio_server.port) as proxy:
        async with service(minio_server, OnlyDirect, f"127.0.0.1:{proxy.port}") as (client, _bucket):
            await client.put("k", [b"x"])
            proxy.hold_after(2 * CHUNK_BYTES)
            writing = asyncio.create_task(client.put("k", [b"x" * (8 * CHUNK_BYTES)]))
            await asyncio.to_thread(eventually, lambda: proxy.holds, "the proxy holds")
            writing.cancel()
            done, _ = await asyncio.wait({writing}, timeout=5)
            assert done and writing.cancelled()
