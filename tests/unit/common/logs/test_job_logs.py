"""What a job prints, in parts: appended, read from any place, cut at its beginning."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from shoal_common.blob.store import BlobInfo
from shoal_common.errors import NotFound, Unavailable
from shoal_common.logs import blob_log, job_logs
from shoal_common.logs.job_logs import JobLog


class Blobs:
    """In memory; ``between`` runs before each reading, ``fails`` says which writings fail after they are done."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.between: Callable[[], None] = lambda: None
        self.fails: Callable[[], bool] = lambda: False

    async def put(self, key: str, sections: list[bytes]) -> None:
        self.stored[key] = b"".join(sections)
        if self.fails():
            raise Unavailable("it was stored, and nobody heard of it")

    async def get(self, key: str) -> bytes:
        self.between()
        if key not in self.stored:
            raise NotFound(key)
        return self.stored[key]

    async def list(self, prefix: str) -> list[BlobInfo]:
        return [BlobInfo(key, len(data)) for key, data in sorted(self.stored.items()) if key.startswith(prefix)]

    async def delete(self, keys: list[str] | tuple[()] = (), prefix: str = "") -> int:
        for key in [key for key in self.stored if key in keys or (prefix and key.startswith(prefix))]:
            del self.stored[key]
        return 0


@pytest.fixture
def blobs(monkeypatch: pytest.MonkeyPatch) -> Blobs:
    monkeypatch.setattr(blob_log, "PART_BYTES", 10)
    monkeypatch.setattr(job_logs, "PARTS_KEPT", 20)
    return Blobs()


def log(blobs: Blobs, name: str = "job") -> JobLog:
    return JobLog(blobs, name)  # type: ignore[arg-type]


async def whole(log: JobLog, offset: int = 0, limit: int = 7) -> bytes:
    text = b""
    while (piece := await log.read(offset, limit)).data:
        text += piece.data
        offset = piece.end
    return text


async def test_what_was_appended_is_read_from_any_place(blobs: Blobs) -> None:
    text = bytes(range(97, 97 + 26)) * 4
    writing = log(blobs)
    for start in range(0, len(text), 3):
        await writing.append(text[start : start + 3])
    assert await whole(log(blobs)) == text
    assert await whole(log(blobs), 33, 100) == text[33:]
    assert await log(blobs).tail_offset(12) == len(text) - 12
    assert (await log(blobs).read(len(text), 5)).data == b""


async def test_a_later_writer_goes_on_and_logs_are_apart(blobs: Blobs) -> None:
    await log(blobs).append(b"0123456789abc")
    await log(blobs).append(b"def")
    await log(blobs, "another").append(b"x")
    assert await whole(log(blobs)) == b"0123456789abcdef"
    await log(blobs).delete()
    assert await whole(log(blobs)) == b""
    assert await whole(log(blobs, "another")) == b"x"


async def test_a_writing_that_is_repeated_is_there_once(blobs: Blobs) -> None:
    chance = random.Random(1)
    blobs.fails = lambda: chance.random() < 0.5
    writing, waiting = log(blobs), b""
    for number in range(60):
        waiting += b"%d," % number
        try:
            await writing.append(waiting)
            waiting = b""
        except Unavailable:
            continue
    blobs.fails = lambda: False
    await writing.append(waiting)
    text = b"".join(b"%d," % number for number in range(60))
    assert await whole(log(blobs)) == text[-len(await whole(log(blobs))) :]
    assert len(await whole(log(blobs))) >= 15 * 10


async def test_the_newest_parts_are_kept_and_a_reader_is_told_where_it_is(blobs: Blobs) -> None:
    writing = log(blobs)
    await writing.append(b"x" * 500)
    assert len(blobs.stored) <= 21
    piece = await log(blobs).read(0, 10)
    assert piece.start > 0
    assert piece.data == b"x" * 10


async def test_a_reader_that_is_overtaken_again_and_again_fails_at_nothing(blobs: Blobs) -> None:
    """What it was about to read goes just before each reading."""
    writing = log(blobs)
    await writing.append(b"x" * 500)

    def drop() -> None:
        for key in sorted(blobs.stored)[:3]:
            if len(blobs.stored) > 1:
                del blobs.stored[key]

    blobs.between = drop
    offset = 0
    for _ in range(20):
        piece = await log(blobs).read(offset, 10)
        assert piece.start >= offset
        offset = piece.end
