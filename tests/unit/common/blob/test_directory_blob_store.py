from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shoal_common.blob import file
from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.errors import DataLoss, OutOfDisk


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(store: DirectoryBlobStore, key: str, offset: int = 0, length: int = 0) -> bytes:
    return b"".join([chunk async for chunk in store.get(key, offset, length)])


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def only_file(root: Path) -> Path:
    (path,) = files(root)
    return path


async def test_a_flipped_bit_is_data_loss_in_its_own_section_only(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    await store.put("k", stream(b"aaaa", b"bbbb"), [4, 4])
    path = only_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    assert await read(store, "k", 0, 4) == b"aaaa"
    for offset, length in [(4, 4), (0, 0), (2, 6)]:
        with pytest.raises(DataLoss, match="k is damaged"):
            await read(store, "k", offset, length)


@pytest.mark.parametrize("kept", [0, 5, 12, -1])
async def test_a_file_that_was_cut_short_is_data_loss_and_can_be_deleted(tmp_path: Path, kept: int) -> None:
    store = DirectoryBlobStore(tmp_path)
    await store.put("k", stream(b"0123456789"))
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataLoss, match="k is damaged"):
        await read(store, "k")
    assert [blob.key for blob in await store.list()] == ["k"]
    assert await store.delete(["k"]) == 1


async def test_a_put_that_would_not_leave_enough_disk_is_out_of_disk(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path, min_free_bytes=1 << 60)
    with pytest.raises(OutOfDisk, match=f"the disk of {tmp_path} is full.*at least {1 << 60} must stay free"):
        await store.put("k", stream(b"x"))
    assert files(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_out_of_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(_file: object, _data: bytes) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(file, "_write_all", full)
    with pytest.raises(OutOfDisk, match="k was not stored"):
        await DirectoryBlobStore(tmp_path).put("k", stream(b"x"))
    assert files(tmp_path) == []


async def test_a_cancelled_upload_leaves_no_file(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    written = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        written.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(store.put("k", endless()))
    await written.wait()
    assert len(files(tmp_path)) == 1
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert files(tmp_path) == []


async def test_what_a_killed_predecessor_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".uploads").mkdir()
    (tmp_path / ".uploads" / "0").write_bytes(b"half")
    store = DirectoryBlobStore(tmp_path)
    assert files(tmp_path) == []
    await store.put("k", stream(b"x"))
    assert await read(store, "k") == b"x"


async def test_blobs_survive_the_store(tmp_path: Path) -> None:
    await DirectoryBlobStore(tmp_path).put("a/b", stream(b"x"))
    assert await read(DirectoryBlobStore(tmp_path), "a/b") == b"x"


async def test_directories_that_became_empty_are_removed(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    await store.put("spill/01/aa/1", stream(b"x"))
    await store.put("spill/02/bb/1", stream(b"x"))
    await store.delete(prefix="spill/01/")
    assert [path.name for path in (tmp_path / "spill").iterdir()] == ["02"]


async def test_puts_and_deletions_side_by_side_lose_nothing(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)

    async def come_and_go(n: int) -> None:
        for _ in range(20):
            await store.put(f"spill/01/{n}", stream(b"x"))
            assert await store.delete([f"spill/01/{n}"]) == 1

    await asyncio.gather(*(come_and_go(n) for n in range(4)))
    assert await store.list() == []


async def test_what_a_process_appends_to_is_a_blob_like_others(tmp_path: Path) -> None:
    store = DirectoryBlobStore(tmp_path)
    await store.put("log/2", stream(b"whole"))
    path = file.appended_path(tmp_path, "log/1")
    for appended in (b"some", b" more"):
        with path.open("ab") as log:
            log.write(appended)
        assert await read(store, "log/1") == store.read("log/1", lambda: True) == path.read_bytes()
    assert await read(store, "log/1", 5, 4) == b"more"
    assert [(blob.key, blob.size_bytes) for blob in await store.list("log/1")] == [("log/1", 9)]
    assert await store.delete(["log/1"]) == 1
    assert await store.delete(prefix="log/") == 1
    assert not files(tmp_path)
