"""Objects of a raylet: written, read, spilled, and what happens when there is no room."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.processes import PATIENCE_S
from support.raylet import MIB, Start, object_id, raylets

from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.channel import frames
from shoal_common.kinds import StoreErrorKind


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    async with raylets(tmp_path, monkeypatch) as start:
        yield start


async def test_an_object_is_written_read_and_freed(start: Start) -> None:
    cluster = await start()
    driver, reader = await cluster.driver(), await cluster.driver(worker_id=b"reader-000000000")
    data = os.urandom(3 * MIB)
    await driver.put(object_id(1), data)
    assert await reader.read(object_id(1)) == data
    assert (await cluster.stats()).store_objects == 1
    await driver.send(frames.ObjectFree([object_id(1)]))
    # The reader still has it pinned, and is asked to let go.
    assert (await reader.expect(frames.ObjectUncache)).object_ids == [object_id(1)]
    assert (await cluster.stats()).store_used_bytes == len(data)
    await reader.send(frames.ObjectUnpin(object_id(1)))
    await cluster.until(lambda stats: stats.store_used_bytes == 0)
    assert (await reader.locate(object_id(1))).error.kind is StoreErrorKind.OBJECT_LOST
    driver.close()
    reader.close()


@pytest.mark.parametrize("has_the_directory", [False, True])
async def test_more_data_than_the_store_is_spilled_and_restored(
    start: Start, tmp_path: Path, has_the_directory: bool
) -> None:
    """Through the objectstore service, or past it by a raylet that has its directory."""
    own: dict[str, Any] = {"blob_directory": tmp_path / "blobs", "objectstore_address": "127.0.0.1:1"}
    cluster = await start(**own if has_the_directory else {})
    driver = await cluster.driver()
    contents = {object_id(i): os.urandom(3 * MIB) for i in range(16)}
    for key, data in contents.items():
        await driver.put(key, data)
    stats = await cluster.stats()
    assert stats.spilled_bytes >= 48 * MIB - 16 * MIB
    for key, data in contents.items():
        assert await driver.read(key) == data
        await driver.send(frames.ObjectUnpin(key))
    assert (await cluster.stats()).restored_bytes > 0
    await driver.send(frames.ObjectFree(list(contents)))
    await cluster.until(lambda stats: stats.spilled_bytes == 0 and stats.store_used_bytes == 0)

    def blobs() -> list[Path]:
        # Unlike rglob, it does not mind that directories go meanwhile.
        walk = os.walk(cluster.directory / "blobs")
        return [Path(directory, name) for directory, _, names in walk for name in names]

    async with asyncio.timeout(PATIENCE_S):
        while blobs():  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(0.01)
    driver.close()


async def test_a_store_full_of_pinned_objects_goes_on_in_files(start: Start, tmp_path: Path) -> None:
    cluster = await start(store_full_grace_s=0.2)
    driver = await cluster.driver()
    for i in range(4):
        await driver.put(object_id(i), bytes(4 * MIB - 4096))
        await driver.locate(object_id(i))
    sizes = {8: 4 * MIB, 9: 17 * MIB}
    for i, size in sizes.items():
        await driver.put(object_id(i), bytes([i]) * size)
    for i, size in sizes.items():
        assert await driver.read(object_id(i)) == bytes([i]) * size
    assert len(list(tmp_path.glob("fallback*/*"))) == 2
    await driver.send(frames.ObjectUnpin(object_id(8)), frames.ObjectUnpin(object_id(9)))
    await driver.send(frames.ObjectFree([object_id(8), object_id(9)]))
    async with asyncio.timeout(PATIENCE_S):
        while list(tmp_path.glob("fallback*/*")):  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(0.01)
    driver.close()


async def test_a_spilled_object_is_restored_to_a_file_when_the_store_is_full(start: Start) -> None:
    cluster = await start(store_full_grace_s=0.2)
    driver = await cluster.driver()
    await driver.put(object_id(1), b"1" * 12 * MIB)
    await driver.put(object_id(2), b"2" * 12 * MIB)
    await driver.locate(object_id(2))
    assert await driver.read(object_id(1)) == b"1" * 12 * MIB
    driver.close()


async def test_a_process_keeps_its_bytes_when_the_raylet_has_removed_the_file(start: Start) -> None:
    cluster = await start()
    driver = await cluster.driver()
    await driver.put(object_id(1), b"x" * 17 * MIB)
    located = await driver.locate(object_id(1))
    with driver.mapping(located, located.size) as mapping:
        driver.close()
        async with asyncio.timeout(PATIENCE_S):
            while os.path.exists(located.path):  # noqa: ASYNC110 - files tell nobody
                await asyncio.sleep(0.01)
        assert mapping[-1:] == b"x"


async def test_creators_wait_while_pinned_objects_hold_the_room(start: Start) -> None:
    cluster = await start(store_full_grace_s=PATIENCE_S)
    driver = await cluster.driver()
    await driver.put(object_id(1), bytes(12 * MIB))
    await driver.locate(object_id(1))
    waiting = asyncio.create_task(driver.create(object_id(2), 8 * MIB))
    other = await cluster.driver(worker_id=b"other-0000000000")
    assert not waiting.done()
    await driver.send(frames.ObjectUnpin(object_id(1)))
    created = await waiting
    assert not created.error and not created.path
    driver.close()
    other.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 8 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "shoal-test", path], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


async def test_a_full_disk_is_named_and_nothing_is_lost(start: Start, small_disk: Path) -> None:
    full = DirectoryBlobStore(small_disk / "blobs", min_free_bytes=1 << 60)
    cluster = await start(blob_store=full, store_full_grace_s=0.2, fallback_dir=small_disk)
    driver = await cluster.driver()
    await driver.put(object_id(1), b"1" * 12 * MIB)
    await driver.put(object_id(2), b"2" * 6 * MIB)
    for size in (6 * MIB, 17 * MIB):
        created = await driver.create(object_id(3), size)
        assert created.error.kind is StoreErrorKind.OUT_OF_DISK
        assert "2.0 MiB left" in created.error.text
    assert await driver.read(object_id(1)) == b"1" * 12 * MIB
    assert await driver.read(object_id(2)) == b"2" * 6 * MIB
    await driver.send(frames.ObjectUnpin(object_id(2)), frames.ObjectFree([object_id(2)]))
    await driver.put(object_id(3), b"3" * 6 * MIB)
    driver.close()


async def test_a_stop_deletes_what_was_spilled(start: Start) -> None:
    cluster = await start()
    driver = await cluster.driver()
    for i in range(8):
        await driver.put(object_id(i), bytes(4 * MIB - 4096))
    assert (await cluster.stats()).spilled_bytes > 0
    blobs = [path for path in (cluster.directory / "blobs").rglob("*") if path.is_file()]
    assert blobs
    await cluster.raylet.stop()
    assert not any(path.exists() for path in blobs)
    driver.close()
