"""Writing rows: each once, in order, the newest version only, and again when the store fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog
from google.protobuf.message import DecodeError

from shoal_common.errors import InvalidRequest, Unavailable
from shoal_common.metadata import (
    MAX_VALUE_BYTES,
    Entry,
    Fenced,
    MetadataStoreError,
    RevisionConflict,
    StoreRefused,
)
from shoal_common.service.background import Background
from shoal_gcs.store import rows as rows_module
from shoal_gcs.store.rows import TRIES_UNTIL_TOLD, Rows, message, written
from shoal_proto.v1 import gcs_pb2


class ManualStore:
    """Each write waits until the test lets it through, or fails it."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[tuple[str, bytes | None, int | None, asyncio.Future[int]]] = asyncio.Queue()
        self.entries: list[Entry] = []

    async def scan(self, prefix: str) -> list[Entry]:
        return self.entries

    async def get(self, key: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.key == key), None)

    async def put(self, key: str, value: bytes, *, expected_revision: int | None = None) -> int:
        return await self._call(key, value, expected_revision)

    async def delete(self, key: str, *, expected_revision: int | None = None) -> bool:
        await self._call(key, None, expected_revision)
        return True

    async def _call(self, key: str, value: bytes | None, expected_revision: int | None) -> int:
        outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.calls.put_nowait((key, value, expected_revision, outcome))
        return await outcome

    async def next(self, outcome: int | Exception) -> tuple[str, bytes | None, int | None]:
        async with asyncio.timeout(10):
            key, value, expected, future = await self.calls.get()
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
        return key, value, expected


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> ManualStore:
    monkeypatch.setattr(rows_module, "RETRY_AFTER_S", 0.0)
    return ManualStore()


@pytest.fixture
async def rows(store: ManualStore) -> AsyncIterator[Rows]:
    background = Background()
    yield Rows(store, "/t/", background)  # type: ignore[arg-type]
    await background.stop()


async def test_each_write_compares_the_revision_of_the_one_before(rows: Rows, store: ManualStore) -> None:
    first = rows.put("a", b"1")
    assert await store.next(7) == ("/t/a", b"1", 0)
    await first
    second = rows.put("a", b"2")
    assert await store.next(9) == ("/t/a", b"2", 7)
    await second
    deleted = rows.delete("a")
    assert await store.next(0) == ("/t/a", None, 9)
    await deleted
    rows.put("a", b"3")
    assert await store.next(11) == ("/t/a", b"3", 0)


async def test_loaded_rows_go_on_from_their_revision(rows: Rows, store: ManualStore) -> None:
    store.entries = [Entry("/t/a", b"1", 8), Entry("/t/b", b"1", 3)]
    assert await rows.load(lambda row_id, value: (row_id, value)) == [("a", b"1"), ("b", b"1")]
    rows.put("a", b"2")
    assert await store.next(9) == ("/t/a", b"2", 8)


async def test_what_cannot_be_read_is_told_and_may_be_written_anew(rows: Rows, store: ManualStore) -> None:
    store.entries = [Entry("/t/1", b"one", 8), Entry("/t/not a number", b"two", 3), Entry("/t/3", b"three", 4)]
    with structlog.testing.capture_logs() as logs:
        assert await rows.load(lambda row_id, value: (int(row_id), value)) == [(1, b"one"), (3, b"three")]
    assert rows.unreadable == {"not a number"}
    [line] = logs
    assert (line["event"], line["rows"], list(line["left_as_they_are"])) == (
        "rows_not_readable",
        1,
        ["/t/not a number"],
    )
    rows.put("not a number", b"2")
    assert await store.next(9) == ("/t/not a number", b"2", 3)


async def test_a_message_has_to_be_one_and_of_this_id() -> None:
    read = message(gcs_pb2.JobInfo, lambda job: job.job_id.hex())
    job = gcs_pb2.JobInfo(job_id=b"\x01\x02", pid=7)
    assert read("0102", job.SerializeToString()) == job
    with pytest.raises(ValueError, match="no JobInfo of this id"):
        read("0103", job.SerializeToString())
    with pytest.raises(ValueError, match="no JobInfo of this id"):
        read("0102", b"")
    with pytest.raises(DecodeError):
        read("0102", b"\xff" * 7)


async def test_versions_that_come_during_a_write_are_written_together(rows: Rows, store: ManualStore) -> None:
    committed: list[str] = []
    saves = [rows.put("a", str(i).encode(), lambda i=i: committed.append(str(i))) for i in range(4)]  # type: ignore[misc]
    assert await store.next(1) == ("/t/a", b"3", 0)
    await written(saves)
    assert committed == ["3"], "those before it were never in the store"


async def test_a_version_counts_only_when_it_is_in_the_store(rows: Rows, store: ManualStore) -> None:
    committed: list[str] = []
    first = rows.put("a", b"1", lambda: committed.append("1"))
    key, value, _, outcome = await store.calls.get()
    second = rows.put("a", b"2", lambda: committed.append("2"))
    assert (key, value, committed, first.done()) == ("/t/a", b"1", [], False)
    outcome.set_result(1)
    await first
    assert (committed, second.done()) == (["1"], False)
    await store.next(2)
    await second
    assert committed == ["1", "2"]


async def test_rows_do_not_wait_for_one_another(rows: Rows, store: ManualStore) -> None:
    rows.put("a", b"1")
    rows.put("b", b"1")
    assert {(await store.calls.get())[0] for _ in range(2)} == {"/t/a", "/t/b"}


async def test_a_store_that_answers_again_soon_was_only_slow(rows: Rows, store: ManualStore) -> None:
    save = rows.put("a", b"1")
    for _ in range(TRIES_UNTIL_TOLD - 1):
        await store.next(MetadataStoreError("no answer"))
    assert await store.next(1) == ("/t/a", b"1", 0)
    await written([save])


@pytest.mark.parametrize(
    "problems", [[MetadataStoreError("no answer")] * TRIES_UNTIL_TOLD, [StoreRefused("disk full")]], ids=str
)
async def test_a_failed_write_is_told_and_tried_again(
    rows: Rows, store: ManualStore, problems: list[MetadataStoreError]
) -> None:
    save = rows.put("a", b"1")
    for problem in problems:
        await store.next(problem)
    with pytest.raises(Unavailable, match=str(problems[0])):
        await written([save])
    assert await store.next(1) == ("/t/a", b"1", 0)
    later = rows.put("a", b"2")
    assert await store.next(2) == ("/t/a", b"2", 1)
    await written([later])


async def test_a_failed_write_is_tried_again_by_itself(rows: Rows, store: ManualStore) -> None:
    committed: list[str] = []
    rows.put("a", b"1", lambda: committed.append("1"))
    await store.next(MetadataStoreError("disk full"))
    assert await store.next(1) == ("/t/a", b"1", 0)
    await written([rows.delete("b")])
    assert committed == ["1"]


async def test_who_was_overtaken_by_another_gcs_does_not_try_again(rows: Rows, store: ManualStore) -> None:
    save = rows.put("a", b"1")
    await store.next(RevisionConflict("/t/a", 0, 5))
    with pytest.raises(Unavailable, match="another GCS has taken over"):
        await written([save])
    assert store.calls.empty()


async def test_a_write_that_arrived_though_it_seemed_to_fail_is_taken_for_what_it_is(
    rows: Rows, store: ManualStore
) -> None:
    committed: list[str] = []
    rows.put("a", b"1", lambda: committed.append("1"))
    await store.next(MetadataStoreError("no answer"))
    store.entries = [Entry("/t/a", b"1", 5)]
    await written([rows.delete("another")])
    assert committed == ["1"]
    rows.put("a", b"2")
    assert await store.next(6) == ("/t/a", b"2", 5)


async def test_an_unconfirmed_version_that_arrives_late_is_no_other_gcs(rows: Rows, store: ManualStore) -> None:
    rows.put("a", b"1")
    await store.next(MetadataStoreError("no answer"))
    await store.next(RevisionConflict("/t/a", 0, 5))  # it arrived between the look and this write
    store.entries = [Entry("/t/a", b"1", 5)]
    later = rows.put("a", b"2")
    assert await store.next(6) == ("/t/a", b"2", 5)
    await later


async def test_an_unconfirmed_write_does_not_hide_another_gcs(rows: Rows, store: ManualStore) -> None:
    rows.put("a", b"1")
    await store.next(MetadataStoreError("no answer"))
    store.entries = [Entry("/t/a", b"of another", 5)]
    with pytest.raises(Unavailable, match="another GCS has taken over"):
        await rows.put("a", b"2")
    assert store.calls.empty()


async def test_a_delete_after_an_unconfirmed_write_deletes_what_arrived(rows: Rows, store: ManualStore) -> None:
    rows.put("a", b"1")
    await store.next(MetadataStoreError("no answer"))
    store.entries = [Entry("/t/a", b"1", 5)]
    deleted = rows.delete("a")
    assert await store.next(0) == ("/t/a", None, 5)
    await deleted


async def test_a_fenced_gcs_does_not_try_again(rows: Rows, store: ManualStore) -> None:
    save = rows.put("a", b"1")
    await store.next(Fenced(3, "its lease has ended"))
    with pytest.raises(Unavailable, match="another GCS has taken over"):
        await written([save])
    assert store.calls.empty()


async def test_a_repeat_waits_for_what_it_repeats(rows: Rows, store: ManualStore) -> None:
    save = rows.put("a", b"1")
    await asyncio.sleep(0)  # the write is under way
    repeat = rows.settled("a")
    await store.next(7)
    await save
    assert not repeat.done(), "for all that is known"
    await store.next(8)
    await repeat


async def test_a_repeat_after_everything_is_stored_writes_nothing(rows: Rows, store: ManualStore) -> None:
    save = rows.put("a", b"1")
    await store.next(7)
    await save
    await rows.settled("a")
    await rows.settled("unknown")
    assert store.calls.empty()


@pytest.mark.parametrize("before", [True, False], ids=["before it is known", "after"])
async def test_a_repeat_of_what_a_fenced_gcs_has_lost_fails(rows: Rows, store: ManualStore, before: bool) -> None:
    save = rows.put("a", b"1")
    repeats = [rows.settled("a")] if before else []
    await store.next(Fenced(3, "its lease has ended"))
    with pytest.raises(Unavailable):
        await save
    repeats.append(rows.settled("a"))
    await store.next(Fenced(3, "its lease has ended"))
    for repeat in repeats:
        with pytest.raises(Unavailable, match="another GCS has taken over"):
            await repeat


async def test_a_row_that_no_store_takes_is_refused_at_once(rows: Rows, store: ManualStore) -> None:
    with pytest.raises(InvalidRequest, match="more than 1048576"):
        rows.put("a", b"x" * (MAX_VALUE_BYTES + 1))
    assert store.calls.empty()


async def test_a_caller_that_gives_up_cancels_no_write(rows: Rows, store: ManualStore) -> None:
    save = rows.put("a", b"1")
    caller = asyncio.ensure_future(written([save]))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    await store.next(1)
    await save


async def test_a_store_that_fails_or_hangs_is_not_reached(
    store: ManualStore, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await rows.reached(10.0)

    async def fails(key: str) -> Entry | None:
        raise MetadataStoreError("no")

    async def hangs(key: str) -> Entry | None:
        await asyncio.Event().wait()
        return None

    for get in (fails, hangs):
        monkeypatch.setattr(store, "get", get)
        assert not await rows.reached(0.01)
