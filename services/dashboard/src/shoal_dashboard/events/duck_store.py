"""``TaskStore`` on DuckDB: takes the nodes' reports in, and answers from the tables."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import structlog

from shoal_common.errors import ServiceError
from shoal_common.events.node_events import ClusterEvent, NodeReport
from shoal_common.events.task_events import FunctionTally, TaskKind, TaskState, decode_events
from shoal_dashboard.events import queries, timeline_queries
from shoal_dashboard.events.archive import Archive, Counts
from shoal_dashboard.events.attempts import Attempt, Attempts
from shoal_dashboard.events.cluster_events import of_process
from shoal_dashboard.events.counters import Counters, Life
from shoal_dashboard.events.database import COLUMNS, Database, attempt_of
from shoal_dashboard.events.lineage import lineage_of
from shoal_dashboard.events.look_back import ALWAYS, LookBack, Window, may_have_ended
from shoal_dashboard.events.older import OlderSegments
from shoal_dashboard.events.rows import (
    NEWEST_FIRST,
    Calls,
    ErrorGroup,
    Filter,
    FunctionCounts,
    Page,
    Sort,
    Summary,
    TaskRow,
)
from shoal_dashboard.events.seen import Mark, Seen
from shoal_dashboard.events.sheet import Grid, Lanes
from shoal_dashboard.events.timeline_queries import Sheet

log = structlog.get_logger(__name__)

#: What is kept in the tables.
KEEP_S = 24 * 3600
KEEP_ROWS = 10_000_000
#: It is looked how much that is after so many seconds.
PRUNE_EVERY_S = 60.0
#: Segments of the archive are looked through for so many seconds at a question, and fetched so many at a time.
LOOK_BACK_S = 10.0
FETCHED_AT_ONCE = 8
#: Questions at once; further ones wait.
_READERS = 2
_ENDED_AT = "greatest(at_finished, at_failed)"
_STATES = tuple(state.name for state in TaskState)
_RUNNING = int(TaskState.RUNNING)
_KINDS = tuple(kind.name for kind in TaskKind)

T = TypeVar("T")


class DuckTaskStore:
    """Belongs to one event loop. What it has taken in is kept over its end."""

    def __init__(self, path: Path) -> None:
        """Raises: duckdb.Error when the file cannot be opened."""
        self._path = path
        self._database = Database(path)
        #: As of the last write; what has come since then comes again after a crash.
        self.seen = Seen(self._database.seen())
        self._attempts = Attempts()
        self._attempts.restore(self._database.alive())
        self._counters = Counters()
        self._counters.restore(self._database.tallies(), *self._database.totals())
        self._writer = ThreadPoolExecutor(1, "task-store-writer")
        self._readers = ThreadPoolExecutor(_READERS, "task-store-reader")
        self._taking = asyncio.Lock()
        #: Under that lock: reports have been taken in.
        self._taken = asyncio.Condition(self._taking)
        self._archiving = asyncio.Lock()
        self._older: OlderSegments | None = None
        self._prune_at = 0.0

    async def close(self) -> None:
        async with self._taking:
            await asyncio.to_thread(self._writer.shutdown)
            await asyncio.to_thread(self._readers.shutdown)
            self._database.close()

    # -- in ---------------------------------------------------------------------------------------------

    async def take(self, reports: list[NodeReport]) -> None:
        """Of ``Receiver``: kept when this returns."""
        async with self._taken:
            await self._write(lambda: self._take(reports))
            self._taken.notify_all()

    async def reached(self, mark: Mark) -> None:
        """Waits until all reports up to it are kept, or known to be lost."""
        async with self._taken:
            await self._taken.wait_for(lambda: self.seen.reached(mark))

    async def happened(self, events: Sequence[ClusterEvent]) -> None:
        """Of the cluster, as the GCS tells."""
        async with self._taking:
            await self._write(lambda: self._save([], events))

    async def node_ended(self, node_id: bytes, at_ms: int, why: str) -> None:
        """It will not tell how what ran there has ended."""

        def ended() -> None:
            self._attempts.node_ended(node_id, at_ms, why)
            self._save(self._counters.node_ended(node_id))

        async with self._taking:
            await self._write(ended)

    async def archive(self, archive: Archive, *, least: int = 1) -> None:
        """Store what has ended since the last time, when there is so much of it. Raises: ServiceError; it is tried
        again the next time."""
        async with self._archiving:
            if await self._write(self._database.fresh) < least:
                return
            with tempfile.TemporaryDirectory(prefix="shoal-segment-") as directory:
                path = Path(directory) / "segment.parquet"
                async with self._taking:
                    segment = await self._write(lambda: self._database.leave(path))
                    happened = await self._write(self._database.happened)
                    counts = Counts(
                        self._counters.told(),
                        self._counters.unnamed,
                        self._counters.lost,
                        self.seen.listening().seen,
                        [event for _id, event in happened],
                    )
                if segment is not None:
                    await archive.save(segment, await asyncio.to_thread(path.read_bytes), counts)
                    async with self._taking:
                        await self._write(self._database.left)

    async def restore(self, archive: Archive, now_ms: int) -> None:
        """A store that was begun anew takes up what was recorded before. Raises: ServiceError."""
        counts = await archive.counts()
        if not self._database.is_new or counts is None:
            return
        async with self._taking:
            self._counters.restore(counts.tallies, counts.unnamed, counts.lost)
            self.seen = Seen(counts.seen)
            await self._write(lambda: self._save(counts.tallies, counts.happened))
            rows = 0
            floor_ms = now_ms
            try:
                for segment in await archive.segments():
                    floor_ms = segment.last_ms + 1
                    rows += segment.rows
                    if segment.last_ms < now_ms - KEEP_S * 1_000 or rows > KEEP_ROWS:
                        break
                    await self._restore(await archive.load(segment))
                else:
                    floor_ms = 0
            finally:
                # Also when there was no time for all of it: the rest is in the archive still.
                await self._write(lambda: self._database.raise_floor(floor_ms))

    async def _restore(self, data: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="shoal-segment-") as directory:
            path = Path(directory) / "segment.parquet"
            await asyncio.to_thread(path.write_bytes, data)
            await self._write(lambda: self._database.restore(path))

    async def prune(self, now_ms: int) -> None:
        """Forget what is older than ``KEEP_S`` or beyond ``KEEP_ROWS``."""
        async with self._taking:
            await self._write(lambda: self._database.prune(now_ms - KEEP_S * 1_000, KEEP_ROWS))

    def _take(self, reports: list[NodeReport]) -> None:
        changed: list[tuple[Life, FunctionTally]] = []
        happened: list[ClusterEvent] = []
        for report in reports:
            happened += report.cluster
            happened += filter(None, (of_process(process, report.node_id) for process in report.workers))
            for process in report.workers:
                self._attempts.process(process.worker_id, report.node_id, process.pid)
            for part in report.events:
                try:
                    events = decode_events(part.events)
                except msgspec.MsgspecError as error:
                    log.warning("events_not_understood", reason=str(error))
                    continue
                for event in events:
                    self._attempts.happened(part.worker_id, event)
            for process in report.workers:
                if process.ended_ms:
                    why = process.exit_detail or "it has left"
                    self._attempts.process_ended(process.worker_id, process.ended_ms, why)
            changed += self._counters.take(report)
            self.seen.take(report)
        self._save(changed, happened)

    def _save(self, changed: list[tuple[Life, FunctionTally]], happened: Sequence[ClusterEvent] = ()) -> None:
        ended, keys, alive = self._attempts.take()
        counters = self._counters
        counters.lost += self._attempts.lost
        self._attempts.lost = 0
        seen = self.seen.listening().seen
        self._database.write(ended, keys, alive, changed, seen, counters.unnamed, counters.lost, happened)

    # -- out --------------------------------------------------------------------------------------------

    async def query(
        self, filters: Sequence[Filter] = (), sort: Sort = NEWEST_FIRST, cursor: str = "", limit: int = 100
    ) -> Page:
        queries.check_limit(limit)
        condition, values = queries.where(filters)
        behind, last = queries.after(cursor, sort)
        page = (
            f"SELECT {COLUMNS}, {queries.sorted_by(sort)} FROM attempts WHERE {condition} AND {behind} "
            f"ORDER BY {queries.order(sort)} LIMIT {limit + 1}"
        )

        def read() -> Page:
            rows = self._database.read(page, [*values, *last])
            ((total,),) = self._database.read(f"SELECT count(*) FROM attempts WHERE {condition}", values)
            ((recorded,),) = self._database.read("SELECT count(*) FROM attempts")
            attempts = [attempt_of(row) for row in rows[:limit]]
            more = ""
            if len(rows) > limit:
                more = queries.cursor(sort, rows[limit - 1][-1], attempts[-1].task_id, attempts[-1].attempt)
            return Page([self._row(each) for each in attempts], more, total, recorded)

        return await self._read(read)

    def look_back_into(self, archive: Archive) -> None:
        """From now on, for what is not kept here any more."""
        self._older = OlderSegments(archive, self._path.with_suffix(".segments"))

    def reaches_back(self, page: Page, filters: Sequence[Filter], limit: int) -> bool:
        if self._older is None or not may_have_ended(filters):
            return False
        return len(page.rows) < limit or page.rows[-1].creation_time_ms < self._database.floor_ms

    async def look_back(self, page: Page, filters: Sequence[Filter], limit: int, during: Window = ALWAYS) -> Page:
        assert self._older is not None
        condition, values = queries.where(filters)
        order, floor_ms = queries.order(NEWEST_FIRST), self._database.floor_ms
        look = LookBack(page, limit, [], floor_ms, during)
        try:
            async with asyncio.timeout(LOOK_BACK_S), self._older.lock:
                look = LookBack(page, limit, await self._older.all(), floor_ms, during)
                while segments := look.wanted(FETCHED_AT_ONCE):
                    paths = await self._older.fetch(segments)
                    read = partial(self._database.read_segments, paths, floor_ms, condition, values, order, limit)
                    rows, total, recorded = await self._read(read)
                    look.found([self._row(attempt_of(row)) for row in rows], total, recorded)
        except TimeoutError:
            return look.page(f"that takes more than {LOOK_BACK_S:g} s. Ask again: what was fetched for it is kept")
        except (ServiceError, OSError) as error:
            return look.page(f"the archive does not answer ({error})")
        return look.page()

    async def get(self, task_id: str) -> list[TaskRow]:
        wanted = queries.id_of(task_id)
        return await self._rows("WHERE task_id = ? ORDER BY attempt", [wanted])

    async def timeline(
        self, job_id: str = "", start_ms: int = 0, end_ms: int = 0, limit: int = 20_000
    ) -> list[TaskRow]:
        conditions = ["at_running > 0"]
        values: list[bytes | float] = []
        if job_id:
            conditions.append("job_id = ?")
            values.append(queries.id_of(job_id))
        if end_ms:
            conditions.append("at_running < ?")
            values.append(end_ms)
        if start_ms:
            conditions.append(f"({_ENDED_AT} = 0 OR {_ENDED_AT} > ?)")
            values.append(start_ms)
        # What still runs is taken to be the longest. Which ones are, is found out by one column: to sort all of them
        # takes ten times as long.
        length = f"CASE WHEN {_ENDED_AT} = 0 THEN 9e18 ELSE {_ENDED_AT} - at_running END"
        condition = " AND ".join(conditions)
        shortest = await self._read(
            lambda: self._database.read(
                f"SELECT {length} AS length FROM attempts WHERE {condition} ORDER BY length DESC LIMIT 1 OFFSET ?",
                [*values, limit - 1],
            )
        )
        if shortest:
            condition, values = f"{condition} AND {length} >= ?", [*values, shortest[0][0]]
        rows = await self._rows(f"WHERE {condition} LIMIT {int(limit)}", values)
        return sorted(rows, key=lambda row: (row.start_time_ms, row.task_id))

    async def lanes(self, job_id: str = "") -> Lanes:
        job = queries.id_of(job_id)
        return await self._read(lambda: timeline_queries.lanes(self._database, job, _now_ms()))

    async def sheet(self, job_id: str, lanes: Lanes, grid: Grid) -> Sheet:
        job = queries.id_of(job_id)
        return await self._read(lambda: timeline_queries.sheet(self._database, job, lanes, grid, _now_ms()))

    async def task_at(self, job_id: str, lane_id: str, at_ms: int, near_ms: int, *, by_worker: bool) -> str:
        job, lane = queries.id_of(job_id), queries.id_of(lane_id)
        return await self._read(
            lambda: timeline_queries.task_at(self._database, job, lane, at_ms, near_ms, _now_ms(), by_worker=by_worker)
        )

    async def errors(self, filters: Sequence[Filter] = (), limit: int = 100) -> list[ErrorGroup]:
        queries.check_limit(limit)
        condition, values = queries.where(filters)
        question = (
            f"SELECT function, error_type, error_class, split_part(error, chr(10), 1) AS line, count(*) AS count, "
            f"min(at_failed), max(at_failed), arg_max(task_id, at_failed) FROM attempts "
            f"WHERE state = {int(TaskState.FAILED)} AND {condition} "
            f"GROUP BY function, error_type, error_class, line ORDER BY count DESC, function, line LIMIT {limit}"
        )
        rows = await self._read(lambda: self._database.read(question, values))
        return [
            ErrorGroup(function, kind, error_class, line, count, first_ms, last_ms, bytes(task_id).hex())
            for function, kind, error_class, line, count, first_ms, last_ms, task_id in rows
        ]

    async def counts(self, job_id: str = "") -> list[FunctionCounts]:
        wanted = queries.id_of(job_id)
        async with self._taking:
            return self._counters.counts(wanted)

    async def summary(self, by: Literal["func_name", "lineage"] = "func_name", job_id: str = "") -> Summary:
        functions = await self.counts(job_id)
        lineage = lineage_of(each[:5] for each in await self._called(job_id)) if by == "lineage" else []
        return Summary(functions, lineage, self._counters.unnamed, self._counters.lost)

    async def calls(self, job_id: str = "") -> list[Calls]:
        called: dict[tuple[str, str], Calls] = {}
        for caller, function, _kind, state, count, run_ms, longest_ms in await self._called(job_id):
            before = called.get((caller, function)) or Calls(caller, function, {})
            name = _STATES[TaskState(state)]
            called[caller, function] = Calls(
                caller,
                function,
                before.states | {name: before.states.get(name, 0) + count},
                before.run_ms + run_ms,
                max(before.longest_ms, longest_ms),
            )
        return sorted(called.values(), key=lambda calls: -calls.count)

    async def actor_calls(self, actor_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        if not actor_ids:
            return {}
        question = (
            "SELECT actor_id, state, count(*) FROM attempts "
            f"WHERE kind = {int(TaskKind.ACTOR_TASK)} AND actor_id IN ({', '.join('?' * len(actor_ids))}) GROUP BY ALL"
        )
        values = [queries.id_of(each) for each in actor_ids]
        found: dict[str, dict[str, int]] = {}
        for actor_id, state, count in await self._read(lambda: self._database.read(question, values)):
            found.setdefault(bytes(actor_id).hex(), {})[_STATES[TaskState(state)]] = count
        return found

    async def _called(self, job_id: str) -> list[tuple[str, str, int, int, int, float, float]]:
        """By caller ("" = none that has a row), function, kind and state: how many there are, how long those that have
        ended ran together, and the longest one."""
        condition, values = ("WHERE child.job_id = ?", [queries.id_of(job_id)]) if job_id else ("", [])
        ended = f"child.state IN ({int(TaskState.FINISHED)}, {int(TaskState.FAILED)}) AND child.at_running > 0"
        ran = f"CASE WHEN {ended} THEN greatest(child.at_finished, child.at_failed) - child.at_running END"
        # Most tasks submit nothing: to join with those only that do takes half the time.
        question = (
            "SELECT coalesce(caller.function, ''), child.function, child.kind, child.state, count(*), "
            f"CAST(coalesce(sum({ran}), 0) AS DOUBLE), CAST(coalesce(max({ran}), 0) AS DOUBLE) "
            "FROM attempts AS child LEFT JOIN (SELECT task_id, any_value(function) AS function FROM attempts "
            "WHERE task_id IN (SELECT DISTINCT parent FROM attempts) GROUP BY task_id) AS caller "
            f"ON child.parent = caller.task_id {condition} GROUP BY ALL"
        )
        return await self._read(lambda: self._database.read(question, values))

    async def cluster_events(self) -> list[tuple[str, ClusterEvent]]:
        return await self._read(self._database.happened)

    async def _rows(self, rest: str, values: Sequence[object]) -> list[TaskRow]:
        question = f"SELECT {COLUMNS} FROM attempts {rest}"
        return await self._read(lambda: [self._row(attempt_of(row)) for row in self._database.read(question, values)])

    def _row(self, attempt: Attempt) -> TaskRow:
        times, failure = attempt.times, attempt.failure
        return TaskRow(
            task_id=attempt.task_id.hex(),
            attempt_number=attempt.attempt,
            name=attempt.name,
            state=_STATES[attempt.state],
            job_id=attempt.job_id.hex(),
            actor_id=attempt.actor_id.hex(),
            type=_KINDS[attempt.kind],  # type: ignore[arg-type]  # the same names
            func_or_class_name=attempt.function,
            parent_task_id=attempt.parent.hex(),
            node_id=attempt.node_id.hex(),
            worker_id=attempt.worker_id.hex(),
            worker_pid=attempt.pid,
            error_type=failure.type if failure else "",
            error_class=failure.error_class if failure else "",
            error_message=failure.text if failure else "",
            required_resources=attempt.resources,
            creation_time_ms=attempt.submitted_ms,
            state_time_ms=max(attempt.submitted_ms, *times),
            start_time_ms=times[_RUNNING],
            end_time_ms=max(times[_RUNNING + 1 :]),
            state_times_ms={name: at_ms for name, at_ms in zip(_STATES, times, strict=True) if at_ms},
        )

    async def _read(self, what: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, what)

    async def _write(self, what: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, what)


def _now_ms() -> int:
    return int(time.time() * 1_000)
