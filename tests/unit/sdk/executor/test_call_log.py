"""The log of a durable actor's calls: when answers go, what is read back, the end of a process that was replaced."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shoal._core.checkpoints import Version, incarnation_name
from shoal._executor.call_log import BlobLog, FileLog
from shoal._executor.checkpoint_store import StoreFailure
from shoal._wire.checkpoint_blobs import Call, Damaged, framed, whole_calls
from shoal._wire.peer_frames import TaskPush, TaskReply
from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.errors import NotFound
from shoal_common.kinds import BlobErrorKind


def call(number: int) -> Call:
    task_id = number.to_bytes(20, "big")
    return Call(
        number, b"c" * 16, TaskPush(task_id, b"", "m", b"args", sequence=number), TaskReply(task_id, 1, 1, b"v")
    )


def calls(*numbers: int) -> bytes:
    return framed([call(number) for number in numbers])


def numbers(data: bytes) -> list[int]:
    return [each.number for each in whole_calls(data)]


def test_what_was_appended_half_is_left_out() -> None:
    data = calls(1, 2) + calls(3)
    assert numbers(data) == [1, 2, 3]
    for length in range(len(calls(1, 2)), len(data)):
        assert numbers(data[:length]) == [1, 2]
    assert whole_calls(b"") == []


def test_what_was_changed_is_damage() -> None:
    data = bytearray(calls(1, 2) + calls(3))
    data[20] ^= 1
    with pytest.raises(Damaged, match="checksum"):
        whole_calls(bytes(data))


class DirectoryStore:
    """Reads what raylets and objectstores read."""

    def __init__(self, directory: Path) -> None:
        self._blobs = DirectoryBlobStore(directory)

    def get(self, name: str) -> bytes:
        try:
            return self._blobs.read(f"actor/{name}", lambda: True)
        except NotFound as error:
            raise StoreFailure(BlobErrorKind.NOT_FOUND, str(error)) from error


def begin(directory: Path, incarnation: int) -> None:
    path = directory / "actor" / (incarnation_name(incarnation) + "%")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def file_log(directory: Path, incarnation: int = 1, lost: Callable[[str], None] = pytest.fail) -> FileLog:
    store: Any = DirectoryStore(directory)
    begin(directory, incarnation)
    return FileLog(directory / "actor", store, incarnation, lost)


def test_file_is_written_before_anybody_is_answered(tmp_path: Path) -> None:
    log = file_log(tmp_path)
    for first, number in ((1, 1), (2, 2)):
        seen: list[list[int]] = []
        log.append(first, calls(number), lambda seen=seen: seen.append(numbers(log.read(Version(1, 1)))))  # type: ignore[misc]
        assert seen == [list(range(1, number + 1))]


def test_file_goes_on_in_another_one_after_a_checkpoint(tmp_path: Path) -> None:
    log = file_log(tmp_path)
    log.append(1, calls(1, 2), lambda: None)
    log.roll()
    log.append(3, calls(3), lambda: None)
    assert numbers(log.read(Version(1, 1))) == [1, 2]
    assert numbers(log.read(Version(1, 3))) == [3]
    with pytest.raises(StoreFailure) as caught:
        log.read(Version(1, 2))
    assert caught.value.kind is BlobErrorKind.NOT_FOUND


def test_long_file_goes_on_in_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal._executor.call_log.MAX_PART_BYTES", len(calls(1, 2)))
    log = file_log(tmp_path)
    for number in (1, 2, 3):
        log.append(number, calls(number), lambda: None)
    parts = [path.name for path in sorted((tmp_path / "actor" / "log").iterdir())]
    assert len(parts) > 1
    versions = [Version.parse(name.partition("%")[0]) for name in parts]
    assert [number for version in versions if version for number in numbers(log.read(version))] == [1, 2, 3]


class Ended(BaseException):
    """Of the process."""


@pytest.mark.parametrize("why", ["a later incarnation", "has been deleted"])
def test_nobody_is_answered_by_a_process_that(why: str, tmp_path: Path) -> None:
    def lost(reason: str) -> None:
        assert why in reason
        raise Ended

    log = file_log(tmp_path, 2, lost)
    begin(tmp_path, 1)
    answered: list[int] = []
    log.append(1, calls(1), lambda: answered.append(1))
    if why == "has been deleted":
        shutil.rmtree(tmp_path / "actor")
    else:
        begin(tmp_path, 3)
    with pytest.raises(Ended):
        log.append(2, calls(2), lambda: answered.append(2))
    assert answered == [1]


def test_repeated_answers_need_no_file(tmp_path: Path) -> None:
    answered: list[int] = []
    file_log(tmp_path).append(0, b"", lambda: answered.append(1))
    assert answered == [1]
    assert not (tmp_path / "actor" / "log").exists()


class GatedStore:
    """Puts wait until the test lets them through."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.puts: list[tuple[str, bytes]] = []
        self.names = [incarnation_name(2)]

    def put(self, name: str, data: bytes, then_list: str | None = None) -> list[str]:
        assert self.gate.acquire(timeout=10)
        self.puts.append((name, data))
        return [each for each in self.names if each.startswith(then_list or "")]


def test_blobs_hold_what_has_run_meanwhile_and_answers_come_in_order() -> None:
    store: Any = GatedStore()
    log = BlobLog(store, 2, pytest.fail)
    answered: list[int] = []
    log.append(1, calls(1), lambda: answered.append(1))
    store.gate.release()
    log.drain()
    for number in (2, 3, 4):
        log.append(number, calls(number) if number != 3 else b"", lambda number=number: answered.append(number))  # type: ignore[misc]
    assert answered == [1]
    for _ in range(3):
        store.gate.release()
    log.drain()
    assert answered == [1, 2, 3, 4]
    stored = [number for _, data in store.puts for number in numbers(data)]
    assert stored == [1, 2, 4]
    assert store.puts[0][0] == Version(2, 1).log_name and store.puts[1][0] == Version(2, 2).log_name


def test_process_that_was_replaced_answers_nobody() -> None:
    store: Any = GatedStore()
    ended = threading.Event()
    reasons: list[str] = []

    def lost(reason: str) -> None:
        reasons.append(reason)
        ended.set()
        threading.Event().wait()  # the real one ends the process

    log = BlobLog(store, 2, lost)
    store.names.append(incarnation_name(3))
    log.append(1, calls(1), lambda: pytest.fail("it was answered"))
    store.gate.release()
    assert ended.wait(10)
    assert reasons == ["a later incarnation of the actor has begun"]


def test_while_more_is_run_at_once_it_is_stored_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal._executor.call_log.GATHER_S", 60.0)
    store: Any = GatedStore()
    store.gate.release()
    log = BlobLog(store, 2, pytest.fail)
    for number in (1, 2, 3):
        log.append(number, calls(number), lambda: None, more=number < 3)
    log.drain()
    assert [numbers(data) for _, data in store.puts] == [[1, 2, 3]]
