"""Reading log files while they are written, rotated and deleted."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from shoal_common.errors import InvalidRequest, NotFound
from shoal_common.logs.lines import Wanted, worker_of
from shoal_common.logs.origins import Origin
from shoal_raylet.workers import log_files, log_reading, log_service
from shoal_raylet.workers.log_files import LogFile, LogFiles
from shoal_raylet.workers.log_reading import LogDirectory
from shoal_raylet.workers.log_service import LogService

WORKER = b"w" * 16
NAME = f"worker-{WORKER.hex()}.out"
TASK, ACTOR = "aa" * 20, "cc" * 16


@pytest.fixture
def directory(tmp_path: Path) -> LogDirectory:
    return LogDirectory(tmp_path, b"n" * 16)


def everything(directory: LogDirectory, name: str, wanted: Wanted | None = None) -> list[bytes]:
    reader = directory.open(name, wanted or Wanted(), fields=False)
    data = b""
    while (piece := reader.read()) is not None:
        data += piece
    data += reader.rest()
    reader.close()
    return data.splitlines()


def numbers(file: LogFile, start: int, end: int) -> None:
    for number in range(start, end):
        file.write([str(number)], ended=True)


def test_what_was_rotated_away_comes_first(
    tmp_path: Path, directory: LogDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "ROTATE_BYTES", 50)
    file = LogFiles(tmp_path).new(NAME)
    numbers(file, 0, 27)
    assert {path.name for path in tmp_path.iterdir()} == {NAME, NAME + ".1"}
    found = [int(line) for line in everything(directory, NAME)]
    assert found == list(range(found[0], 27)) and len(found) > 10
    (info,) = directory.list()
    assert info.name == NAME
    assert info.size == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_a_reader_follows_through_rotations(
    tmp_path: Path, directory: LogDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "ROTATE_BYTES", 50)
    file = LogFiles(tmp_path).new(NAME)
    file.begin(Origin(TASK))
    file.write(["0"], ended=True)
    reader = directory.open(NAME, Wanted(task_id=TASK), fields=False)
    lines: list[bytes] = []
    for number in range(1, 100):
        while (data := reader.read()) is not None:
            lines += data.splitlines()
        file.write([str(number)], ended=True)
    while (data := reader.read()) is not None:
        lines += data.splitlines()
    reader.close()
    assert lines == [str(number).encode() for number in range(100)]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "", ".hidden", "a\0b", "worker\n"])
def test_what_is_no_name_of_a_log_file_is_refused(directory: LogDirectory, name: str) -> None:
    with pytest.raises(InvalidRequest):
        directory.open(name, Wanted(), fields=False)


def test_links_are_not_followed(tmp_path: Path, directory: LogDirectory) -> None:
    os.symlink("/etc/passwd", tmp_path / "passwd")
    with pytest.raises(NotFound):
        directory.open("passwd", Wanted(), fields=False)
    assert directory.list() == []


def test_files_are_listed_by_a_pattern(tmp_path: Path, directory: LogDirectory) -> None:
    for name in (NAME, "raylet.log", "gcs.log"):
        (tmp_path / name).write_text("x\n")
    assert [file.name for file in directory.list("*.log")] == ["gcs.log", "raylet.log"]
    assert worker_of(NAME) == WORKER and worker_of("raylet.log") == b""


def test_a_task_is_found_wherever_it_printed(
    tmp_path: Path, directory: LogDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reading, "_PIECE", 16)  # so that what is looked for lies across two pieces
    files = LogFiles(tmp_path)
    for number, (task, actor) in enumerate([(TASK, ""), ("bb" * 20, ACTOR), (TASK, "")]):
        file = files.new(f"worker-{number:032x}.out")
        file.begin(Origin(task, number, actor))
        numbers(file, 0, 3)
        os.utime(file.path, (number, number))
    assert directory.having(Wanted(task_id=TASK), stderr=False) == [f"worker-{n:032x}.out" for n in (0, 2)]
    assert directory.having(Wanted(actor_id=ACTOR), stderr=False) == [f"worker-{1:032x}.out"]
    assert directory.having(Wanted(task_id=TASK), stderr=True) == []


async def read(service: LogService, file: str, wanted: Wanted | None = None, last: int = 0) -> list[bytes]:
    data = [
        each
        async for each in service.read(file, wanted or Wanted(), stderr=False, last=last, follow=False, fields=False)
    ]
    return b"".join(data).splitlines()


async def test_the_last_lines_of_a_task_are_taken_out_of_all_its_files(tmp_path: Path, directory: LogDirectory) -> None:
    files = LogFiles(tmp_path)
    for number in range(2):
        file = files.new(f"worker-{number:032x}.out")
        file.begin(Origin(TASK, number))
        numbers(file, 3 * number, 3 * number + 3)
        os.utime(file.path, (number, number))
    service = LogService(directory, lambda _: False)
    assert await read(service, "", Wanted(task_id=TASK), last=4) == [b"2", b"3", b"4", b"5"]
    assert await read(service, "", Wanted(task_id=TASK, attempt=0), last=2) == [b"1", b"2"]
    assert await read(service, "", Wanted(task_id=TASK)) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    with pytest.raises(NotFound, match="nothing that task bb"):
        await read(service, "", Wanted(task_id="bb" * 20))
    with pytest.raises(InvalidRequest):
        await read(service, "")
    with pytest.raises(InvalidRequest):
        await read(service, NAME, last=10**9)


async def test_a_file_is_followed_until_its_worker_has_ended(
    tmp_path: Path, directory: LogDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_service, "FOLLOW_S", 0.0)
    printing = {WORKER}
    service = LogService(directory, printing.__contains__)
    file = LogFiles(tmp_path).new(NAME)
    file.write(["0", "1"], ended=True)
    seen: list[bytes] = []
    arrived = asyncio.Event()

    async def follow() -> None:
        lines = service.read(NAME, Wanted(), stderr=False, last=1, follow=True, fields=False)
        async for data in lines:
            seen.extend(data.splitlines())
            arrived.set()

    following = asyncio.create_task(follow())
    for line in ("2", "3"):
        await arrived.wait()
        arrived.clear()
        file.write([line], ended=True)
    await arrived.wait()
    file.write(["last"], ended=False)
    printing.clear()
    await following
    assert seen == [b"1", b"2", b"3", b"last"]
