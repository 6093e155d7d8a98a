"""What a task store answers, after what nodes have told it, and in its next life."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from shoal_common.blob.store import BlobInfo, check_key
from shoal_common.errors import NotFound, Unavailable
from shoal_common.events.node_events import ClusterEvent, NodeReport, ProcessEvents, ProcessInfo
from shoal_common.events.task_events import Failure, FunctionTally, TaskEvent, TaskKind, TaskState, encode_events
from shoal_dashboard.events import database, timeline_queries
from shoal_dashboard.events.archive import Archive
from shoal_dashboard.events.duck_store import KEEP_S, DuckTaskStore
from shoal_dashboard.events.rows import NEWEST_FIRST, Filter, Page, QueryError, Sort, TaskRow
from shoal_dashboard.events.sheet import FAILED, Lanes, grid
from shoal_dashboard.events.timeline_queries import Sheet

T = TypeVar("T")
NODE, OWNER, WORKER = b"n" * 16, b"o" * 16, b"w" * 16
JOB, OTHER_JOB = b"\0\0\0\1", b"\0\0\0\2"


class Store:
    """The store, called as by its event loop; each call is answered before the next one is made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self._store = self._open()

    def _open(self) -> DuckTaskStore:
        async def open_it() -> DuckTaskStore:
            return DuckTaskStore(self._path)

        return self._loop.run_until_complete(open_it())

    def do(self, what: Callable[[DuckTaskStore], Coroutine[Any, Any, T]]) -> T:
        return self._loop.run_until_complete(what(self._store))

    def tell(self, *events: TaskEvent, **more: Any) -> None:
        self._number += 1
        report = NodeReport(NODE, 1, self._number, 1, 0, events=[ProcessEvents(OWNER, encode_events(list(events)))])
        for name, value in more.items():
            setattr(report, name, value)
        self.do(lambda store: store.take([report]))

    def rows(self, *filters: Filter, sort: Sort = NEWEST_FIRST, limit: int = 100) -> list[TaskRow]:
        """Of all pages."""
        rows: list[TaskRow] = []
        cursor = ""
        while True:
            page = self.do(partial(DuckTaskStore.query, filters=filters, sort=sort, cursor=cursor, limit=limit))
            assert len(page.rows) <= limit
            rows += page.rows
            cursor = page.next_cursor
            if not cursor:
                assert page.total == len(rows)
                return rows

    def live_again(self) -> None:
        self.do(lambda store: store.close())
        self._store = self._open()

    def close(self) -> None:
        self.do(lambda store: store.close())
        self._loop.close()


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = Store(tmp_path / "tasks.duckdb")
    yield store
    store.close()


def task(number: int, state: TaskState, function: str = "f", job: bytes = JOB, **more: Any) -> TaskEvent:
    event = TaskEvent(job + number.to_bytes(16, "big"), 0, state, 1_000 + number, TaskKind.NORMAL_TASK, function)
    event.submitted_ms = 500 + number
    for name, value in more.items():
        setattr(event, name, value)
    return event


def failed(number: int, error: str, function: str = "f") -> TaskEvent:
    return task(number, TaskState.FAILED, function, failure=Failure("TASK_EXECUTION_EXCEPTION", "ValueError", error))


def numbers(rows: Sequence[TaskRow]) -> list[int]:
    return [int(row.task_id[8:], 16) for row in rows]


def test_filters_come_before_the_limit(store: Store) -> None:
    store.tell(
        *(task(number, TaskState.FINISHED) for number in range(500)), task(3, TaskState.RUNNING, "slow", OTHER_JOB)
    )
    page = store.do(lambda each: each.query([Filter("state", "=", "running")], limit=10))
    assert [row.func_or_class_name for row in page.rows] == ["slow"]
    assert (page.total, page.recorded, page.next_cursor) == (1, 501, "")


def test_pages_have_each_row_once_whatever_comes_meanwhile(store: Store) -> None:
    store.tell(*(task(number, TaskState.FINISHED, submitted_ms=7) for number in range(95)))
    first = store.do(lambda each: each.query(limit=40))
    store.tell(*(task(number, TaskState.FINISHED, submitted_ms=8) for number in range(200, 230)))
    second = store.do(lambda each: each.query(cursor=first.next_cursor, limit=40))
    third = store.do(lambda each: each.query(cursor=second.next_cursor, limit=40))
    assert sorted(numbers(first.rows + second.rows + third.rows)) == list(range(95))
    assert third.next_cursor == ""


@pytest.mark.parametrize("column", ["task_id", "state", "name", "creation_time_ms", "error_message", "end_time_ms"])
@pytest.mark.parametrize("descending", [True, False])
def test_every_order_can_be_paged_through(store: Store, column: str, descending: bool) -> None:
    store.tell(
        *(task(n, TaskState.FINISHED, f"f{n % 3}") for n in range(20)), *(failed(n, f"e{n % 2}") for n in range(20, 30))
    )
    rows = store.rows(sort=Sort(column, descending), limit=7)
    assert sorted(numbers(rows)) == list(range(30))
    states = [state.name for state in TaskState]
    key = (lambda row: states.index(row.state)) if column == "state" else (lambda row: getattr(row, column))
    assert [key(row) for row in rows] == sorted(map(key, rows), reverse=descending)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Filter("func_or_class_name", "=", "g"), [2]),
        (Filter("func_or_class_name", "!=", "g"), [1, 3]),
        (Filter("state", "=", "FAILED"), [3]),
        (Filter("state", "contains", "finish"), [1, 2]),
        (Filter("state", "!=", "FINISHED"), [3]),
        (Filter("job_id", "=", JOB.hex()), [1, 2, 3]),
        (Filter("job_id", "=", OTHER_JOB.hex()), []),
        (Filter("task_id", "contains", "0003"), [3]),
        (Filter("error_message", "contains", "OOPS"), [3]),
        (Filter("error_class", "=", "ValueError"), [3]),
        (Filter("creation_time_ms", ">=", "502"), [2, 3]),
        (Filter("creation_time_ms", "<", "502"), [1]),
        (Filter("worker_pid", "=", "0"), [1, 2, 3]),
        (Filter("type", "=", "normal_task"), [1, 2, 3]),
        (Filter("name", "=", "f'; DROP TABLE ended; --"), []),
    ],
)
def test_filters(store: Store, given: Filter, expected: list[int]) -> None:
    store.tell(task(1, TaskState.FINISHED), task(2, TaskState.FINISHED, "g"), failed(3, "oops"))
    assert sorted(numbers(store.rows(given))) == expected


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Filter("nonsense", "=", "1"),
        lambda: Sort("nonsense"),
        lambda: Filter("name", "~", "1"),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_said(ask: Callable[[], object]) -> None:
    with pytest.raises(QueryError):
        ask()


@pytest.mark.parametrize(
    ("given", "cursor", "limit"),
    [
        ([Filter("task_id", "=", "xyz")], "", 10),
        ([Filter("state", "=", "SLEEPING")], "", 10),
        ([Filter("worker_pid", "<", "many")], "", 10),
        ([Filter("worker_pid", "<", "nan")], "", 10),
        ([], "nonsense", 10),
        ([], "", 0),
        ([], "", 1_000_000),
    ],
)
def test_bad_questions_are_refused(store: Store, given: list[Filter], cursor: str, limit: int) -> None:
    with pytest.raises(QueryError):
        store.do(lambda each: each.query(given, cursor=cursor, limit=limit))


def test_a_cursor_is_of_one_order(store: Store) -> None:
    store.tell(task(1, TaskState.FINISHED), task(2, TaskState.FINISHED))
    page = store.do(lambda each: each.query(limit=1))
    with pytest.raises(QueryError, match="another order"):
        store.do(lambda each: each.query((), Sort("name"), page.next_cursor))


def test_all_attempts_of_a_task(store: Store) -> None:
    lost = Failure("WORKER_DIED", "WorkerCrashedError", "killed")
    again = task(1, TaskState.RUNNING, attempt=1, started_ms=1_500, worker_id=WORKER, pid=9)
    store.tell(task(1, TaskState.FAILED, failure=lost), again)
    first, second = store.do(lambda each: each.get(task(1, TaskState.RUNNING).task_id.hex()))
    assert (first.attempt_number, first.state, first.error_type) == (0, "FAILED", "WORKER_DIED")
    assert (second.attempt_number, second.state, second.start_time_ms, second.worker_pid) == (1, "RUNNING", 1_500, 9)
    assert second.state_times_ms["RUNNING"] == 1_500
    assert store.do(lambda each: each.get("00" * 20)) == []


def test_errors_by_what_went_wrong(store: Store) -> None:
    store.tell(*(failed(number, f"kind {number % 2}\nat {number}") for number in range(5)), failed(9, "else", "g"))
    groups = store.do(lambda each: each.errors())
    assert [(g.func_or_class_name, g.first_line, g.count) for g in groups] == [
        ("f", "kind 0", 3),
        ("f", "kind 1", 2),
        ("g", "else", 1),
    ]
    assert (groups[0].first_ms, groups[0].last_ms) == (1_000, 1_004)
    assert numbers(store.do(lambda each: each.get(groups[0].task_id))) == [4]
    assert [g.count for g in store.do(lambda each: each.errors([Filter("name", "=", "g")]))] == [1]


def test_counts_do_not_need_rows(store: Store) -> None:
    alive = [0, 3, 1, 1]
    totals = (1_000_000, 999_900, 90, 4, 7, 5_000_000, 1, 99)
    store.tell(tallies=[FunctionTally(JOB, "f", 0, *totals, alive)], unnamed=999_000)
    store.tell(task(1, TaskState.FINISHED))
    (counts,) = store.do(lambda each: each.counts())
    assert counts.submitted == 1_000_000
    assert counts.states["FINISHED"] == 999_900 and counts.states["FAILED"] == 90
    assert sum(counts.states.values()) == 1_000_000, "what is alive adds up, however old the look"
    assert (counts.cancelled, counts.retried, counts.max_run_ms) == (4, 7, 0.099)
    summary = store.do(lambda each: each.summary())
    assert (summary.functions, summary.without_row, summary.lost) == ([counts], 999_000, 0)
    assert store.do(lambda each: each.counts(OTHER_JOB.hex())) == []


def test_each_attempt_asks_for_what_its_own_options_say(store: Store) -> None:
    asks = {1: {"CPU": 1.0}, 2: {"CPU": 50.0, "GPU": 0.5}, 3: {}}
    for number, resources in asks.items():
        store.tell(task(number, TaskState.FINISHED, resources=resources))
    store.live_again()
    assert [row.required_resources for row in store.rows()] == [asks[3], asks[2], asks[1]]


def test_who_submits_what(store: Store) -> None:
    parent = task(1, TaskState.FINISHED, "outer")
    inner = [task(number, TaskState.FINISHED, "inner", parent=parent.task_id) for number in (2, 3)]
    store.tell(parent, *inner, task(4, TaskState.RUNNING, "inner", parent=inner[0].task_id))
    (root,) = store.do(lambda each: each.summary("lineage", JOB.hex())).lineage
    assert (root.func_or_class_name, root.states) == ("outer", {"FINISHED": 1})
    (child,) = root.children
    assert (child.func_or_class_name, child.states) == ("inner", {"FINISHED": 2})
    (grandchild,) = child.children
    assert (grandchild.states, grandchild.children) == ({"RUNNING": 1}, []), "one that submits itself is not followed"


def test_a_timeline_has_what_ran_in_its_window(store: Store) -> None:
    for number, (begins, ends) in enumerate([(1_000, 1_100), (1_050, 3_000), (2_500, 2_600), (4_000, 5_000)]):
        store.tell(task(number, TaskState.FINISHED, at_ms=ends, started_ms=begins))
    store.tell(task(9, TaskState.RUNNING, at_ms=1_500, started_ms=1_500), task(10, TaskState.PENDING_NODE_ASSIGNMENT))
    timeline = store.do(lambda each: each.timeline(start_ms=2_000, end_ms=4_000))
    assert numbers(timeline) == [1, 9, 2]
    assert numbers(store.do(lambda each: each.timeline(limit=2))) == [1, 9], "the longest ones"
    assert store.do(lambda each: each.timeline(OTHER_JOB.hex())) == []


def test_it_goes_on_after_a_restart(store: Store) -> None:
    store.tell(
        task(1, TaskState.FINISHED),
        task(2, TaskState.RUNNING),
        tallies=[FunctionTally(JOB, "f", 0, 2, 1)],
        workers=[ProcessInfo(WORKER, 5, JOB, b"", 1)],
        unnamed=3,
        lost=1,
    )
    store.live_again()
    assert {row.state for row in store.rows()} == {"FINISHED", "RUNNING"}
    assert [counts.submitted for counts in store.do(lambda each: each.counts())] == [2]
    summary = store.do(lambda each: each.summary())
    assert (summary.without_row, summary.lost) == (3, 1)
    assert store.do(_seen) == {NODE: (1, 1)}
    store.tell(task(2, TaskState.FINISHED), tallies=[FunctionTally(JOB, "f", 0, 2, 2)])
    assert [row.state for row in store.rows()] == ["FINISHED", "FINISHED"]


async def _seen(store: DuckTaskStore) -> dict[bytes, tuple[int, int]]:
    return store.seen.listening().seen


def test_a_node_that_is_gone_takes_what_ran_there_along(store: Store) -> None:
    store.tell(
        task(1, TaskState.RUNNING),
        tallies=[FunctionTally(JOB, "f", 0, 1, alive=[0, 0, 0, 1])],
        workers=[ProcessInfo(OWNER, 5, JOB, b"", 1, is_driver=True)],
    )
    store.do(lambda each: each.node_ended(NODE, 9_000, "it was killed"))
    (row,) = store.rows()
    assert (row.state, row.error_type, row.end_time_ms) == ("FAILED", "OWNER_DIED", 9_000)
    (counts,) = store.do(lambda each: each.counts())
    assert counts.states == {"FAILED": 1}


def test_what_is_old_goes(store: Store) -> None:
    store.tell(*(task(number, TaskState.FINISHED, at_ms=number * 1_000_000) for number in range(1, 301)))
    store.do(lambda each: each.prune(24 * 3_600_000 + 200_500_000))
    assert sorted(numbers(store.rows())) == list(range(201, 301))


class Blobs:
    """In memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.away = False

    async def put(self, key: str, sections: Sequence[bytes | bytearray | memoryview]) -> BlobInfo:
        if self.away:
            raise Unavailable("the store of blobs is away")
        check_key(key)
        self.kept[key] = b"".join(sections)
        return BlobInfo(key, len(self.kept[key]))

    async def get(self, key: str) -> bytes:
        if key not in self.kept:
            raise NotFound(key)
        return self.kept[key]

    async def delete(self, keys: Sequence[str] = (), prefix: str = "") -> int:
        return sum(self.kept.pop(key, None) is not None for key in keys)

    async def list(self, prefix: str = "") -> Sequence[BlobInfo]:
        if self.away:
            raise Unavailable("the store of blobs is away")
        return [BlobInfo(key, len(data)) for key, data in sorted(self.kept.items()) if key.startswith(prefix)]


def test_another_store_takes_up_what_is_in_the_archive(store: Store, tmp_path: Path) -> None:
    blobs = Blobs()
    archive = Archive(blobs, "c-1")
    joined = ClusterEvent(5, "NODE_ALIVE", "INFO", "GCS", "Node h has joined", {"node_id": "aa"})
    store.do(lambda each: each.happened([joined]))
    store.tell(task(1, TaskState.FINISHED), task(2, TaskState.RUNNING), tallies=[FunctionTally(JOB, "f", 0, 2, 1)])
    store.do(lambda each: each.archive(archive))
    store.tell(failed(3, "later"))
    store.do(lambda each: each.archive(archive, least=2))
    assert len(blobs.kept) == 2, "one row is no segment yet"
    store.do(lambda each: each.archive(archive))
    assert sorted(numbers(store.rows())) == [1, 2, 3]
    other = Store(tmp_path / "other.duckdb")
    try:
        other.do(lambda each: each.restore(archive, 2_000))
        assert sorted(numbers(other.rows())) == [1, 3], "what has ended"
        assert [counts.submitted for counts in other.do(lambda each: each.counts())] == [2]
        assert other.do(_seen) == {NODE: (1, 2)}
        other.do(lambda each: each.happened([joined]))
        assert [event for _, event in other.do(lambda each: each.cluster_events())] == [joined], "told again, kept once"
        other.live_again()
        other.do(lambda each: each.restore(archive, 2_000))
        assert sorted(numbers(other.rows())) == [1, 3], "once"
    finally:
        other.close()


def test_what_is_kept_here_no_more_is_found_in_the_archive(store: Store, tmp_path: Path) -> None:
    blobs = Blobs()
    archive = Archive(blobs, "c-1")
    day_ms = KEEP_S * 1_000
    old = [task(n, TaskState.FINISHED, "old" if n % 2 else "older", at_ms=1_000 + n) for n in range(40)]
    store.tell(*old[:20])
    store.do(lambda each: each.archive(archive))
    store.tell(*old[20:], task(99, TaskState.FINISHED, "new", at_ms=day_ms + 5_000, submitted_ms=day_ms + 4_000))
    store.do(lambda each: each.archive(archive))

    async def found(each: DuckTaskStore, filters: Sequence[Filter], limit: int = 100) -> Page:
        each.look_back_into(archive)
        page = await each.query(filters, limit=limit)
        return await each.look_back(page, filters, limit) if each.reaches_back(page, filters, limit) else page

    wanted = [Filter("func_or_class_name", "=", "old")]
    whole = store.do(lambda each: found(each, wanted))
    store.do(lambda each: each.prune(day_ms + 2_000))
    assert numbers(store.rows()) == [99]
    assert store.do(lambda each: found(each, wanted)) == dataclasses.replace(whole, recorded=41)
    assert numbers(store.do(lambda each: found(each, [Filter("task_id", "=", old[3].task_id.hex())])).rows) == [3]
    assert numbers(store.do(lambda each: found(each, [], 1)).rows) == [99]
    few = store.do(lambda each: found(each, [], 3))
    assert (numbers(few.rows), few.recorded) == ([99, 39, 38], 41)
    assert store.do(lambda each: found(each, [Filter("state", "=", "RUNNING")])).total == 0

    store.live_again()  # what was fetched is there still
    blobs.away = True
    page = store.do(lambda each: found(each, wanted))
    assert page.rows == [] and "the store of blobs is away" in page.unseen
    blobs.away = False
    other = Store(tmp_path / "other.duckdb")
    try:
        other.do(lambda each: each.restore(archive, day_ms + 60_000))
        assert numbers(other.rows()) == [99, *range(39, 19, -1)], "of segments that reach into the last day"
        assert other.do(lambda each: found(each, wanted)).rows == whole.rows
    finally:
        other.close()


def test_a_segment_that_was_not_stored_is_stored_the_next_time(store: Store) -> None:
    blobs = Blobs()
    archive = Archive(blobs, "c-1")
    store.tell(task(1, TaskState.FINISHED))
    blobs.away = True
    with pytest.raises(Unavailable):
        store.do(lambda each: each.archive(archive))
    store.tell(task(2, TaskState.FINISHED))
    assert sorted(numbers(store.rows())) == [1, 2]
    store.live_again()
    blobs.away = False
    store.do(lambda each: each.archive(archive))
    store.do(lambda each: each.archive(archive))
    segments = store.do(lambda _: archive.segments())
    assert [segment.rows for segment in segments] == [1, 1]
    assert sorted(numbers(store.rows())) == [1, 2]


def test_what_has_happened_to_the_cluster_is_kept(store: Store) -> None:
    joined = ClusterEvent(5, "NODE_ALIVE", "INFO", "GCS", "Node h has joined", {"node_id": "aa"})
    store.do(lambda each: each.happened([joined]))
    store.tell(
        cluster=[ClusterEvent(7, "RUNTIME_ENV_READY", "INFO", "RAYLET", "", {})],
        workers=[ProcessInfo(WORKER, 5, JOB, b"", 1, 9, "SYSTEM_ERROR", "killed by SIGKILL")],
    )
    store.live_again()
    events = store.do(lambda each: each.cluster_events())
    assert [event.kind for _, event in events] == ["WORKER_DIED", "RUNTIME_ENV_READY", "NODE_ALIVE"]
    assert events[-1][1] == joined
    assert len({event_id for event_id, _ in events}) == 3


def test_what_is_alive_is_written_anew_when_much_of_it_has_changed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "REWRITE_AFTER", 5)
    for round_ in range(4):
        store.tell(*(task(10 * round_ + n, TaskState.RUNNING) for n in range(4)))
        store.tell(*(task(10 * round_ + n, TaskState.FINISHED) for n in range(3)))
    assert sorted(numbers(store.rows(Filter("state", "=", "RUNNING")))) == [3, 13, 23, 33]
    assert len(store.rows()) == 16
    store.live_again()
    assert len(store.rows()) == 16


def on_worker(number: int, began: int, ended: int, worker: bytes, function: str = "f", **more: Any) -> TaskEvent:
    return task(
        number, more.pop("state", TaskState.FINISHED), function, at_ms=ended, started_ms=began, worker_id=worker, **more
    )


def shown(store: Store, job: str = "", start_ms: int = 0, end_ms: int = 0, columns: int = 100) -> tuple[Lanes, Sheet]:
    lanes = store.do(lambda each: each.lanes(job))
    wanted = grid(start_ms or lanes.first_ms, end_ms or lanes.last_ms, columns, len(lanes.lanes))
    return lanes, store.do(lambda each: each.sheet(job, lanes, wanted))


def test_a_sheet_of_the_timeline_says_what_kept_whom_busy(store: Store) -> None:
    a, b = b"a" * 16, b"b" * 16
    wrong = Failure("TASK_EXECUTION_EXCEPTION", "ValueError", "no")
    store.tell(
        on_worker(1, 1_024, 1_088, a, "long"),
        on_worker(2, 1_092, 1_094, a, "short"),
        on_worker(3, 1_040, 1_044, b, "short", state=TaskState.FAILED, failure=wrong),
        on_worker(4, 1_024, 1_088, b, "other", job=OTHER_JOB),
        workers=[ProcessInfo(a, 11, JOB, b"", 0), ProcessInfo(b, 12, JOB, b"", 0)],
    )
    lanes, sheet = shown(store, JOB.hex(), 1_024, 1_152, columns=8)
    assert [(lane.worker_id, lane.pid, lane.tasks) for lane in lanes.lanes] == [(a.hex(), 11, 2), (b.hex(), 12, 1)]
    assert lanes.functions == ["long", "short"] and lanes.by_worker and not lanes.running
    assert (sheet.grid.column_ms, sheet.grid.columns) == (16, 8)
    shares, kinds = list(sheet.shares), list(sheet.kinds)
    assert shares[:8] == [255, 255, 255, 255, 32, 0, 0, 0]
    assert [kind for kind, share in zip(kinds, shares, strict=True) if share] == [0, 0, 0, 0, 1, 1 | FAILED]
    assert shares[8:] == [0, 64, 0, 0, 0, 0, 0, 0]
    assert sheet.marks is not None
    assert [(mark.lane, mark.start_ms, mark.end_ms, mark.failed) for mark in sheet.marks] == [
        (0, 1_024, 1_088, False),
        (0, 1_092, 1_094, False),
        (1, 1_040, 1_044, True),
    ]
    _, part = shown(store, JOB.hex(), 1_056, 1_072, columns=4)
    assert list(part.shares) == [255] * 4 + [0] * 4, "what began before and ends after"


def test_what_is_asked_of_a_place_on_the_timeline_is_the_nearest_task(store: Store) -> None:
    a = b"a" * 16
    store.tell(on_worker(1, 1_000, 1_100, a), on_worker(2, 1_200, 1_200, a))

    def at(ms: int, near: int = 0, worker: bytes = a) -> str:
        task_id = store.do(lambda each: each.task_at("", worker.hex(), ms, near, by_worker=True))
        return task_id[8:].lstrip("0")

    assert [at(1_050), at(1_150), at(1_150, 60), at(1_200), at(1_050, worker=b"z" * 16)] == ["1", "", "1", "2", ""]


def test_of_many_workers_each_node_has_a_lane(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_queries, "MAX_WORKERS", 2)
    workers = [bytes([97 + n]) * 16 for n in range(3)]
    store.tell(
        *(on_worker(n, 1_024, 1_088, worker) for n, worker in enumerate(workers)),
        workers=[ProcessInfo(worker, 11, JOB, b"", 0) for worker in workers],
    )
    lanes, sheet = shown(store, columns=1)
    assert [(lane.node_id, lane.worker_id, lane.workers) for lane in lanes.lanes] == [(NODE.hex(), "", 3)]
    assert list(sheet.shares) == [255]
    found = store.do(lambda each: each.task_at("", NODE.hex(), 1_030, 0, by_worker=False))
    assert found
