from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shoal_common.blob import file
from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.blob.local import LocalBlobs
from shoal_common.errors import Cancelled, DataLoss, NotFound, OutOfDisk, Unavailable

MIB = 1024 * 1024


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[LocalBlobs]:
    blobs = LocalBlobs(DirectoryBlobStore(tmp_path, name="-raylet"))
    yield blobs
    await blobs.close()


async def read(blobs: LocalBlobs, key: str, offset: int, length: int) -> bytes:
    target = bytearray(length)
    await blobs.get_into(key, memoryview(target), offset)
    return bytes(target)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def test_each_section_and_any_range_is_read_back(blobs: LocalBlobs) -> None:
    sections = [os.urandom(n) for n in (2 * MIB + 1, 3, 0, MIB)]
    whole = b"".join(sections)
    stored = await blobs.put("spill/a", sections)
    assert stored.size_bytes == len(whole)
    at = 0
    for section in sections:
        assert await read(blobs, "spill/a", at, len(section)) == section
        at += len(section)
    assert await read(blobs, "spill/a", 7, len(whole) - 8) == whole[7:-1]


async def test_the_service_on_the_same_directory_reads_and_deletes_what_was_put(
    blobs: LocalBlobs, tmp_path: Path
) -> None:
    service = DirectoryBlobStore(tmp_path)
    mine = await blobs.put("spill/a", [b"one", b"two"])
    assert b"".join([chunk async for chunk in service.get("spill/a", 3, 3)]) == b"two"

    async def stream() -> AsyncIterator[bytes]:
        yield b"onetwo"

    theirs = await service.put("spill/b", stream(), [3, 3])
    assert theirs.checksum == mine.checksum
    assert await read(blobs, "spill/b", 0, 6) == b"onetwo"
    assert await service.delete(["spill/a"]) == 1
    assert await blobs.delete(prefix="spill/") == 1
    assert files(tmp_path) == []


async def test_a_flipped_bit_is_data_loss_in_its_own_section_only(blobs: LocalBlobs, tmp_path: Path) -> None:
    await blobs.put("k", [b"aaaa", b"bbbb"])
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    assert await read(blobs, "k", 0, 4) == b"aaaa"
    with pytest.raises(DataLoss, match="k is damaged"):
        await read(blobs, "k", 4, 4)


async def test_a_missing_blob_is_not_found(blobs: LocalBlobs) -> None:
    with pytest.raises(NotFound, match="no blob k"):
        await read(blobs, "k", 0, 1)


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, OutOfDisk), (errno.EIO, Unavailable)])
async def test_a_disk_that_fails_leaves_nothing(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[Exception]
) -> None:
    def fail(_file: object, _data: bytes) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(file, "_write_all", fail)
    with pytest.raises(error, match=str(tmp_path) if error is OutOfDisk else "cannot be used"):
        await blobs.put("k", [b"x"])
    assert files(tmp_path) == []


def test_what_is_given_up_meanwhile_leaves_nothing(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    answers = iter([True, False])
    with pytest.raises(Cancelled):
        store.put_sections("k", [memoryview(bytes(3 * MIB))], lambda: next(answers))
    assert files(tmp_path) == []


async def test_a_cancelled_call_returns_when_its_thread_has_let_go_of_the_memory(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    writing, may_end = asyncio.Event(), threading.Event()
    begun: list[int] = []
    ended: list[int] = []

    def hold(_file: object, data: bytes) -> None:
        begun.append(len(data))
        loop.call_soon_threadsafe(writing.set)
        may_end.wait()
        ended.append(len(data))

    monkeypatch.setattr(file, "_write_all", hold)
    upload = asyncio.create_task(blobs.put("k", [bytes(2 * MIB)]))
    await writing.wait()
    upload.cancel()
    await asyncio.sleep(0)  # it learns of that in the loop's next round; the thread must not end before
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert begun and ended == begun
    assert files(tmp_path) == []


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
async def test_a_call_that_failed_lets_go_of_the_memory(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: it may be an arena that is about to be unmapped."""
    held = bytearray(2 * MIB)
    await blobs.put("k", [held])
    (path,) = files(tmp_path)
    path.write_bytes(b"y" + path.read_bytes()[1:])
    with contextlib.suppress(DataLoss), memoryview(held) as target:
        await blobs.get_into("k", target)
    held.extend(b"x")  # BufferError while anything has a view of it

    def fail(_file: object, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(file, "_write_all", fail)
    with contextlib.suppress(OutOfDisk):
        await blobs.put("other", [held])
    held.extend(b"x")


async def test_stores_on_one_directory_lose_nothing_to_each_other(tmp_path: Path) -> None:
    async def come_and_go(n: int) -> None:
        blobs = LocalBlobs(DirectoryBlobStore(tmp_path, name=f"-{n}"))
        for _ in range(20):
            await blobs.put(f"spill/01/{n}", [b"x"])
            assert await blobs.delete([f"spill/01/{n}"]) == 1
        await blobs.close()

    await asyncio.gather(*(come_and_go(n) for n in range(4)))
    assert await DirectoryBlobStore(tmp_path).list() == []
