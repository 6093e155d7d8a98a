"""Blobs in a bucket of a real MinIO server, seen with MinIO's own client and with the server's faults."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from minio import Minio
from support.servers import MinioServer, running

from shoal_common import errors
from shoal_common.blob import CHUNK_BYTES
from shoal_common.blob.bucket_store import CONNECTIONS, PART_BYTES, MinioBlobStore
from shoal_common.blob.s3 import S3Bucket

_numbers = itertools.count()


@pytest.fixture
def bucket(minio_server: MinioServer) -> S3Bucket:
    bucket = S3Bucket(minio_server.settings(f"bucket-{next(_numbers)}"), CONNECTIONS)
    bucket.make()
    return bucket


@pytest.fixture
async def store(bucket: S3Bucket) -> AsyncIterator[MinioBlobStore]:
    store = MinioBlobStore(bucket)
    yield store
    await store.close()


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(store: MinioBlobStore, key: str, offset: int = 0, length: int = 0) -> bytes:
    return b"".join([chunk async for chunk in store.get(key, offset, length)])


def names(minio: Minio, bucket: S3Bucket) -> list[str | None]:
    return [each.object_name for each in minio.list_objects(bucket.name, recursive=True)]


async def test_a_blob_is_one_object_that_begins_with_its_bytes(
    store: MinioBlobStore, minio: Minio, bucket: S3Bucket
) -> None:
    data = os.urandom(3 * PART_BYTES + 1)
    await store.put("spill/01/aa/1", stream([data]))
    assert names(minio, bucket) == ["spill/01/aa/1~"]
    with minio.get_object(bucket.name, "spill/01/aa/1~", length=len(data)) as answer:
        assert answer.data == data


async def test_what_was_changed_in_the_bucket_is_noticed(store: MinioBlobStore, minio: Minio, bucket: S3Bucket) -> None:
    sections = [b"a" * 1000, b"b" * 1000]
    await store.put("k", stream(sections), [1000, 1000])
    assert await read(store, "k") == b"".join(sections)
    with minio.get_object(bucket.name, "k~") as answer:
        stored = bytearray(answer.data)
    stored[1500] ^= 1
    minio.put_object(bucket.name, "k~", io.BytesIO(stored), len(stored))
    assert await read(store, "k", 0, 1000) == sections[0]
    with pytest.raises(errors.DataLoss, match="k is damaged"):
        await read(store, "k", 1000)


@pytest.mark.parametrize("kept", [0, 1, 10, 1005])
async def test_what_was_cut_short_in_the_bucket_is_noticed(
    store: MinioBlobStore, minio: Minio, bucket: S3Bucket, kept: int
) -> None:
    await store.put("k", stream([b"a" * 1000]))
    with minio.get_object(bucket.name, "k~") as answer:
        stored = answer.data[:kept]
    minio.put_object(bucket.name, "k~", io.BytesIO(stored), len(stored))
    with pytest.raises(errors.DataLoss, match="damaged"):
        await read(store, "k")


async def test_an_upload_that_breaks_off_leaves_no_parts(store: MinioBlobStore, bucket: S3Bucket) -> None:
    async def chunks(then: BaseException) -> AsyncIterator[bytes]:
        for _ in range(7):
            yield b"x" * CHUNK_BYTES
        assert bucket.uploads()
        raise then

    for fault in (ConnectionResetError("the uploader is gone"), asyncio.CancelledError()):
        with pytest.raises(type(fault)):
            await store.put("k", chunks(fault))
        assert bucket.uploads() == []
    assert await store.list() == []


async def test_uploads_that_a_killed_process_has_begun_are_swept(store: MinioBlobStore, bucket: S3Bucket) -> None:
    old, young = (bucket.begin_upload(name) for name in ("spill/old~", "spill/young~"))
    bucket.put_part("spill/old~", old, 1, [b"x" * CHUNK_BYTES])
    assert await store.sweep_uploads(lambda upload: upload.name == "spill/old~") == 1
    assert [upload.upload_id for upload in bucket.uploads()] == [young]


async def test_others_objects_are_no_blobs(store: MinioBlobStore, minio: Minio, bucket: S3Bucket) -> None:
    minio.put_object(bucket.name, "spill/note.txt", io.BytesIO(b"x"), 1)
    assert await store.list() == []
    assert await store.delete(prefix="spill/") == 0
    assert names(minio, bucket) == ["spill/note.txt"]


async def test_more_blobs_than_one_request_deletes(store: MinioBlobStore, bucket: S3Bucket) -> None:
    for number in range(1100):
        bucket.put(f"spill/{number}~", [b"x"])
    assert await store.delete(prefix="spill/") == 1100
    assert await store.list() == []


async def test_a_blob_that_another_replica_deleted_is_not_found(store: MinioBlobStore, bucket: S3Bucket) -> None:
    await store.put("k", stream([b"x"]))
    assert await read(store, "k") == b"x"
    bucket.delete(["k~"])
    with pytest.raises(errors.NotFound, match="k"):
        await read(store, "k")


async def test_a_killed_server_is_unavailable_and_keeps_what_it_has(
    store: MinioBlobStore, minio_server: MinioServer, bucket: S3Bucket
) -> None:
    data = os.urandom(2 * PART_BYTES)
    await store.put("k", stream([data]))

    async def chunks() -> AsyncIterator[bytes]:
        yield data
        minio_server.kill()
        yield data

    with pytest.raises(errors.Unavailable, match=minio_server.address):
        await store.put("k", chunks())
    for attempt in (read(store, "k"), store.list(), store.delete(["k"]), store.put("small", stream([b"x"]))):
        with pytest.raises(errors.Unavailable, match=minio_server.address):
            await attempt
    minio_server.start()
    assert await read(store, "k") == data
    assert [blob.key for blob in await store.list()] == ["k"]


async def test_a_hung_server_is_given_up_in_time(
    store: MinioBlobStore, minio_server: MinioServer, bucket: S3Bucket
) -> None:
    data = os.urandom(PART_BYTES)
    await store.put("k", stream([data]))
    hasty = MinioBlobStore(S3Bucket(minio_server.settings(bucket.name), CONNECTIONS, read_timeout_s=1))
    minio_server.stop()
    try:
        for attempt in (read(hasty, "k"), hasty.list(), hasty.put("other", stream([b"x"]))):
            with pytest.raises(errors.DeadlineExceeded, match=minio_server.address):
                await attempt
    finally:
        minio_server.resume()
    await hasty.close()
    assert await read(store, "k") == data


async def test_a_copy_of_the_servers_directory_is_a_backup(
    store: MinioBlobStore, minio_server: MinioServer, bucket: S3Bucket, tmp_path: Path
) -> None:
    data = os.urandom(3 * PART_BYTES)
    await store.put("package/1", stream([data]))
    other = MinioServer(tmp_path / "other")
    minio_server.kill()
    shutil.copytree(minio_server.directory / "data", other.directory / "data")
    minio_server.start()
    with running(other):
        restored = MinioBlobStore(S3Bucket(other.settings(bucket.name), CONNECTIONS))
        assert await read(restored, "package/1") == data
        await restored.close()
