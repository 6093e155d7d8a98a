"""Log files come into the blobs as they grow, and are read from there when their node is gone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.memory_blobs import MemoryBlobs

from shoal_common.blob import last_used
from shoal_common.errors import InvalidRequest, NotFound, Unavailable
from shoal_common.logs import blob_log
from shoal_common.logs.lines import Wanted
from shoal_common.logs.node_logs import KeptLogs
from shoal_common.logs.origins import Origin, mark
from shoal_raylet.workers import log_shipping
from shoal_raylet.workers.log_shipping import LogShipping

NODE = b"n" * 16
OUT = f"worker-{'ab' * 16}.out"
TASK = "00000001" + "aa" * 16


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def shipping(tmp_path: Path, blobs: MemoryBlobs) -> LogShipping:
    return LogShipping(tmp_path, NODE, blobs)


async def read(blobs: MemoryBlobs, file: str = OUT, wanted: Wanted | None = None, **how: Any) -> bytes:
    lines = KeptLogs(blobs, NODE).read(file, wanted or Wanted(), **how)
    return b"".join([piece async for piece in lines])


async def test_what_grows_is_continued_and_what_was_rotated_away_is_read_first(
    shipping: LogShipping, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    path = tmp_path / OUT
    path.write_bytes(b"one\n")
    (tmp_path / "raylet.log").write_bytes(b"started\n")
    assert not await shipping.ship()
    with path.open("ab") as file:
        file.write(b"two\nthr")
    await shipping.ship()
    assert await read(blobs) == b"one\ntwo\nthr\n"
    with path.open("ab") as file:
        file.write(b"ee\n")
    path.rename(tmp_path / f"{OUT}.1")
    path.write_bytes(b"four\n")
    await shipping.ship()
    await shipping.ship()
    assert await read(blobs) == b"one\ntwo\nthree\nfour\n"
    assert await read(blobs, last=2) == b"three\nfour\n"
    assert await KeptLogs(blobs, NODE).sizes() == {"raylet.log": 8, OUT: 19}
    assert await KeptLogs(blobs, NODE).sizes("*.log") == {"raylet.log": 8}


async def test_a_store_that_fails_makes_nothing_come_twice(
    shipping: LogShipping, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    (tmp_path / OUT).write_bytes(b"one\n")
    blobs.failure = Unavailable("away")
    with pytest.raises(Unavailable):
        await shipping.ship()
    blobs.failure = None
    await shipping.ship()
    await shipping.ship()
    assert await read(blobs) == b"one\n"


async def test_a_round_is_bounded_and_files_that_are_deleted_go(
    shipping: LogShipping, blobs: MemoryBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_shipping, "ROUND_BYTES", 10)
    for number in range(3):
        (tmp_path / f"{number}.log").write_bytes(b"eight...")
    rounds = 1
    while await shipping.ship():
        rounds += 1
    assert rounds == 2
    (tmp_path / "0.log").unlink()
    await shipping.ship()
    assert list(await KeptLogs(blobs, NODE).sizes()) == ["1.log", "2.log"]
    monkeypatch.setattr(log_shipping, "MAX_FILES", 1)
    await shipping.ship()
    assert len(await KeptLogs(blobs, NODE).sizes()) == 1


async def test_only_the_newest_parts_of_a_file_are_kept(
    shipping: LogShipping, blobs: MemoryBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_log, "PART_BYTES", 100)
    lines = b"".join(b"line %06d\n" % number for number in range(1_000))
    (tmp_path / OUT).write_bytes(lines)
    await shipping.ship()
    text = await read(blobs)
    assert len(text) <= 100 * log_shipping.PARTS_KEPT and lines.endswith(text)


async def test_lines_of_a_task_are_found_in_all_files(
    shipping: LogShipping, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    text = f"before\n{mark(Origin(TASK, 0, '', 'f'))}\nmine\n{mark(Origin('00', 0, '', 'g'))}\nother\n"
    (tmp_path / OUT).write_text(text)
    (tmp_path / f"worker-{'cd' * 16}.out").write_text("nothing of it\n")
    await shipping.ship()
    assert await read(blobs, "", Wanted(TASK)) == b"mine\n"
    line = json.loads(await read(blobs, "", Wanted(TASK), fields=True))
    assert (line["line"], line["node_id"], line["worker_id"]) == ("mine", NODE.hex(), "ab" * 16)
    for file, wanted, error in (
        ("", Wanted("ff" * 20), NotFound),
        ("no-file", Wanted(), NotFound),
        ("../etc/passwd", Wanted(), InvalidRequest),
        ("", Wanted(), InvalidRequest),
    ):
        with pytest.raises(error):
            await read(blobs, file, wanted)


async def test_the_last_lines_are_brought_when_it_stops_and_a_day_is_marked(
    shipping: LogShipping, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    shipping.start()
    (tmp_path / OUT).write_bytes(b"last words\n")
    await shipping.stop(60)
    assert await read(blobs) == b"last words\n"
    today = last_used.day((tmp_path / OUT).stat().st_mtime)
    assert last_used.find(blobs.blobs, today + 8, 7).old == [f"node_log/{NODE.hex()}"]
    assert last_used.find(blobs.blobs, today + 7, 7) == last_used.Found()


async def test_a_store_that_hangs_holds_nobody_up(shipping: LogShipping, blobs: MemoryBlobs, tmp_path: Path) -> None:
    (tmp_path / OUT).write_bytes(b"last words\n")
    shipping.start()
    blobs.arrives.clear()
    async with asyncio.timeout(60):
        await shipping.stop(0.01)
