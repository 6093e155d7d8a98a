"""What every ``BlobStore`` does. Another implementation is one more parameter of ``store``."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager

import pytest
from support.servers import MinioServer, running

from shoal_common.blob import CHUNK_BYTES, BlobStore
from shoal_common.blob.bucket_store import CONNECTIONS, MinioBlobStore
from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.blob.s3 import S3Bucket
from shoal_common.errors import InvalidRequest, NotFound

_numbers = itertools.count()


@asynccontextmanager
async def directory_store(request: pytest.FixtureRequest) -> AsyncIterator[BlobStore]:
    yield DirectoryBlobStore(request.getfixturevalue("tmp_path") / "blobs")


@asynccontextmanager
async def minio_store(request: pytest.FixtureRequest) -> AsyncIterator[BlobStore]:
    server: MinioServer = request.getfixturevalue("minio")
    bucket = S3Bucket(server.settings(f"bucket-{next(_numbers)}"), CONNECTIONS)
    await asyncio.to_thread(bucket.make)
    store = MinioBlobStore(bucket)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    server = MinioServer(tmp_path_factory.mktemp("minio"))
    with running(server):
        yield server


@pytest.fixture(params=[directory_store, minio_store])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[BlobStore]:
    async with request.param(request) as made:
        yield made


async def stream(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(store: BlobStore, key: str, offset: int = 0, length: int = 0) -> bytes:
    return b"".join([chunk async for chunk in store.get(key, offset, length)])


async def keys(store: BlobStore, prefix: str = "") -> list[str]:
    return [blob.key for blob in await store.list(prefix)]


async def test_what_was_put_is_read_back(store: BlobStore) -> None:
    stored = await store.put("spill/01/aa/1", stream([b"hello ", b"world"]))
    assert (stored.key, stored.size_bytes, stored.checksum) == ("spill/01/aa/1", 11, "crc32:0d4a1185")
    assert await read(store, "spill/01/aa/1") == b"hello world"


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 1])
async def test_any_size_is_streamed_in_chunks(store: BlobStore, size: int) -> None:
    data = os.urandom(size)
    await store.put("k", stream([data]))
    chunks = [chunk async for chunk in store.get("k")]
    assert b"".join(chunks) == data
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 0, b"0123456789"), (3, 4, b"3456"), (3, 0, b"3456789"), (9, 1, b"9"), (10, 0, b""), (0, 10, b"0123456789")],
)
async def test_ranges(store: BlobStore, offset: int, length: int, expected: bytes) -> None:
    await store.put("k", stream([b"01234", b"56789"]), [2, 3, 5])
    assert await read(store, "k", offset, length) == expected


@pytest.mark.parametrize(("offset", "length"), [(0, 11), (11, 0), (5, 6)])
async def test_a_range_beyond_the_blob_is_refused(store: BlobStore, offset: int, length: int) -> None:
    await store.put("k", stream([b"0123456789"]))
    with pytest.raises(InvalidRequest, match="k has 10 bytes"):
        await read(store, "k", offset, length)


async def test_each_section_of_a_fused_blob_can_be_read_by_itself(store: BlobStore) -> None:
    sections = [os.urandom(1000), b"", os.urandom(CHUNK_BYTES), b"x"]
    await store.put("k", stream([b"".join(sections[:2]), *sections[2:]]), [len(section) for section in sections])
    at = 0
    for section in sections:
        if section:
            assert await read(store, "k", at, len(section)) == section
        at += len(section)


@pytest.mark.parametrize("sizes", [[3], [3, 3], [6]])
async def test_sections_that_do_not_add_up_leave_nothing(store: BlobStore, sizes: list[int]) -> None:
    with pytest.raises(InvalidRequest, match="sections"):
        await store.put("k", stream([b"01234"]), sizes)
    assert await keys(store) == []


async def test_a_blob_that_was_read_and_replaced_is_read_as_it_is_now(store: BlobStore) -> None:
    await store.put("k", stream([b"a short one"]))
    assert await read(store, "k") == b"a short one"
    await store.put("k", stream([b"", b"another, and longer"]), [8, 11])
    assert await read(store, "k", 8) == b" and longer"


async def test_reads_and_writes_at_the_same_time_do_not_mix(store: BlobStore) -> None:
    blobs = {f"spill/{n}": os.urandom(CHUNK_BYTES + n) for n in range(12)}

    async def there_and_back(key: str, data: bytes) -> None:
        await store.put(key, stream([data[:100], data[100:]]))
        assert await read(store, key) == data

    await asyncio.gather(*(there_and_back(*blob) for blob in blobs.items()))


async def test_many_small_sections(store: BlobStore) -> None:
    sections = [os.urandom(20) for _ in range(20_000)]
    await store.put("k", stream([b"".join(sections)]), [20] * len(sections))
    assert await read(store, "k", 20 * 12_345, 20) == sections[12_345]


async def test_a_second_put_replaces_the_blob(store: BlobStore) -> None:
    await store.put("k", stream([b"first and long"]))
    await store.put("k", stream([b"second"]))
    assert await read(store, "k") == b"second"
    assert await keys(store) == ["k"]


async def test_a_blob_is_not_visible_before_it_is_complete(store: BlobStore) -> None:
    seen: list[list[str]] = []

    async def chunks() -> AsyncIterator[bytes]:
        yield b"begin"
        seen.append(await keys(store))
        yield b"end"

    await store.put("k", chunks())
    assert seen == [[]]
    assert await keys(store) == ["k"]


async def test_an_upload_that_breaks_off_leaves_the_earlier_blob(store: BlobStore) -> None:
    await store.put("k", stream([b"earlier"]))

    async def chunks() -> AsyncIterator[bytes]:
        yield b"half of"
        raise ConnectionResetError("the uploader is gone")

    with pytest.raises(ConnectionResetError):
        await store.put("k", chunks())
    assert await read(store, "k") == b"earlier"


async def test_a_missing_blob_is_not_found(store: BlobStore) -> None:
    with pytest.raises(NotFound, match="there is no blob spill/x"):
        await read(store, "spill/x")


async def test_listing_is_by_prefix_and_sorted(store: BlobStore) -> None:
    for key in ("spill/02/b", "spill/01/a", "spill/01/c/d", "package/f", "spill/010"):
        await store.put(key, stream([key.encode()]))
    assert await keys(store) == ["package/f", "spill/01/a", "spill/01/c/d", "spill/010", "spill/02/b"]
    assert await keys(store, "spill/01") == ["spill/01/a", "spill/01/c/d", "spill/010"]
    assert await keys(store, "spill/01/") == ["spill/01/a", "spill/01/c/d"]
    assert await keys(store, "nothing/here") == []
    [package] = await store.list("package/")
    assert len("package/f") < package.size_bytes < len("package/f") + 100  # the checksums count


async def test_a_key_may_be_the_beginning_of_another(store: BlobStore) -> None:
    for key in ("a/b", "a", "a/b/c"):
        await store.put(key, stream([key.encode()]))
    assert await keys(store) == ["a", "a/b", "a/b/c"]
    assert await store.delete(["a/b"]) == 1
    assert await read(store, "a") == b"a"
    assert await read(store, "a/b/c") == b"a/b/c"


async def test_deleting_is_by_key_or_prefix_and_idempotent(store: BlobStore) -> None:
    for key in ("spill/01/a", "spill/01/b", "spill/02/c", "package/f"):
        await store.put(key, stream([b"x"]))
    assert await store.delete(["package/f", "package/none"]) == 1
    assert await store.delete(prefix="spill/01/") == 2
    assert await store.delete(["package/f"], prefix="spill/01/") == 0
    assert await keys(store) == ["spill/02/c"]


async def test_an_empty_prefix_deletes_nothing(store: BlobStore) -> None:
    await store.put("k", stream([b"x"]))
    assert await store.delete() == 0
    assert await keys(store) == ["k"]


@pytest.mark.parametrize(
    "key", ["", "/", "/etc/passwd", "..", "a/../b", "a//b", "a/", ".hidden", "a/.b", "a b", "a\0", "ü", "a%", "x" * 513]
)
async def test_an_impossible_key_is_refused_everywhere(store: BlobStore, key: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a blob key"):
        await store.put(key, stream([b"x"]))
    with pytest.raises(InvalidRequest, match="is not a blob key"):
        await read(store, key)
    with pytest.raises(InvalidRequest, match="is not a blob key"):
        await store.delete([key])


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", ".uploads/"])
async def test_an_impossible_prefix_is_refused(store: BlobStore, prefix: str) -> None:
    with pytest.raises(InvalidRequest):
        await store.list(prefix)
    with pytest.raises(InvalidRequest):
        await store.delete(prefix=prefix)
