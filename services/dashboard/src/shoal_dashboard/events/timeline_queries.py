"""What the timeline asks of the tables: its lanes, the cells of a window, the tasks in it. Each call blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shoal_common.events.task_events import TaskState
from shoal_dashboard.events.database import Database
from shoal_dashboard.events.sheet import (
    MAX_FUNCTIONS,
    MAX_LANES,
    MAX_MARKS,
    MAX_WORKERS,
    Grid,
    Lane,
    Lanes,
    Parts,
    cells,
)

_ENDED_AT = "greatest(at_finished, at_failed)"
#: What takes no millisecond takes one: else it would not be seen. What runs still is drawn until now.
_UNTIL = f"greatest(CASE WHEN {_ENDED_AT} = 0 THEN $now ELSE {_ENDED_AT} END, at_running + 1)"
_RAN = "at_running > 0 AND ($job = ''::BLOB OR job_id = $job)"
_LANES = f"""
SELECT node_id, {{worker}} AS worker, max(pid), count(DISTINCT worker_id), count(*), sum({_UNTIL} - at_running)::BIGINT,
    min(at_running), max({_UNTIL}), bool_or({_ENDED_AT} = 0)
FROM attempts WHERE {_RAN} GROUP BY node_id, worker ORDER BY node_id, min(at_running), worker LIMIT {{limit}}
"""
_FUNCTIONS = f"""
SELECT function FROM attempts WHERE {_RAN} GROUP BY function ORDER BY sum({_UNTIL} - at_running) DESC, function
LIMIT {MAX_FUNCTIONS}
"""
#: Those of a window, on lanes, with their kinds; from ``a`` to ``b`` milliseconds behind its beginning.
_SPANS = f"""
WITH lanes AS (SELECT unnest($lanes::BLOB[]) AS key, generate_subscripts($lanes::BLOB[], 1) - 1 AS lane),
functions AS (
    SELECT unnest($functions::VARCHAR[]) AS function, generate_subscripts($functions::VARCHAR[], 1) - 1 AS place),
spans AS (
    SELECT lane, coalesce(place, {MAX_FUNCTIONS}) AS kind, greatest(at_running, $start) - $start AS a,
        least({_UNTIL}, $end) - $start AS b, {_ENDED_AT} <= $end AND state = {int(TaskState.FAILED)} AS failed,
        at_running, {_UNTIL} AS until, name, {_ENDED_AT} = 0 AS runs
    FROM attempts JOIN lanes ON {{key}} = key LEFT JOIN functions USING (function)
    WHERE {_RAN} AND at_running < $end AND {_UNTIL} > $start)
"""
_CELLS = (
    _SPANS
    + """
SELECT lane, kind, a // $width AS col, sum(least(b, (a // $width + 1) * $width) - a) AS busy,
    count(*) FILTER ((b - 1) // $width > a // $width) AS starts, 0::BIGINT AS stops,
    bool_or(failed AND (b - 1) // $width = a // $width) AS failed
FROM spans GROUP BY lane, kind, col
UNION ALL
SELECT lane, kind, (b - 1) // $width AS col, sum(b - (b - 1) // $width * $width), 0::BIGINT, count(*), bool_or(failed)
FROM spans WHERE (b - 1) // $width > a // $width GROUP BY lane, kind, col
"""
)
_MARKS = (
    _SPANS
    + f"""
SELECT lane, kind, at_running, until, name, failed, runs FROM spans LIMIT {MAX_MARKS + 1}
"""
)
_AT = f"""
SELECT task_id FROM attempts
WHERE {_RAN} AND {{key}} = $lane AND at_running <= $at + $near AND {_UNTIL} >= $at - $near
ORDER BY greatest(at_running - $at, $at - {_UNTIL}, 0), {_UNTIL} - at_running DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """One task, on lane ``lane``. ``kind``: of its function, an index of ``Lanes.functions``, or behind the last."""

    lane: int
    kind: int
    start_ms: int
    end_ms: int
    name: str
    failed: bool
    runs: bool


@dataclass(frozen=True, slots=True)
class Sheet:
    grid: Grid
    #: As ``sheet.cells``.
    shares: bytes
    kinds: bytes
    #: Each task by itself; None = there are too many for that.
    marks: list[Mark] | None


def lanes(database: Database, job_id: bytes, now_ms: int) -> Lanes:
    """``job_id``: empty = of all jobs."""
    asked = {"job": job_id, "now": now_ms}
    rows = database.read(_LANES.format(worker="worker_id", limit=MAX_WORKERS + 1), asked)
    if len(rows) > MAX_WORKERS:
        rows = database.read(_LANES.format(worker="''::BLOB", limit=MAX_LANES + 1), asked)
    more = max(0, len(rows) - MAX_LANES)
    if more:
        ((nodes,),) = database.read(f"SELECT count(DISTINCT node_id) FROM attempts WHERE {_RAN}", {"job": job_id})
        more = nodes - MAX_LANES
    functions = [function for (function,) in database.read(_FUNCTIONS, asked)]
    found = [
        Lane(bytes(node_id).hex(), bytes(worker_id).hex(), pid, workers, tasks, busy_ms, first_ms, last_ms)
        for node_id, worker_id, pid, workers, tasks, busy_ms, first_ms, last_ms, _runs in rows[:MAX_LANES]
    ]
    return Lanes(found, more, functions, any(row[-1] for row in rows))


def sheet(database: Database, job_id: bytes, there: Lanes, grid: Grid, now_ms: int) -> Sheet:
    """``there``: lanes of the same job."""
    if not there.lanes:
        return Sheet(grid, b"", b"", [])
    key = _key(there)
    asked: dict[str, Any] = {
        "job": job_id,
        "now": now_ms,
        "lanes": [bytes.fromhex(lane.worker_id if there.by_worker else lane.node_id) for lane in there.lanes],
        "functions": there.functions,
        "start": grid.start_ms,
        "end": grid.end_ms,
    }
    rows = database.read(_MARKS.format(key=key), asked)
    marks = None if len(rows) > MAX_MARKS else [Mark(*row) for row in sorted(rows)]
    found = database.read_columns(_CELLS.format(key=key), {**asked, "width": grid.column_ms})
    lane, kind, column, starts, stops = (
        found[name].astype("int64") for name in ("lane", "kind", "col", "starts", "stops")
    )
    parts = Parts(lane, kind, column, found["busy"].astype("float64"), starts, stops, found["failed"].astype(bool))
    return Sheet(grid, *cells(parts, grid, len(there.lanes), one_at_a_time=there.by_worker), marks)


def task_at(
    database: Database, job_id: bytes, lane: bytes, at_ms: int, near_ms: int, now_ms: int, *, by_worker: bool
) -> str:
    """The task that runs there at that time, or nearest to it; "" = there is none so near."""
    asked = {"job": job_id, "lane": lane, "at": at_ms, "near": near_ms, "now": now_ms}
    rows = database.read(_AT.format(key="worker_id" if by_worker else "node_id"), asked)
    return bytes(rows[0][0]).hex() if rows else ""


def _key(there: Lanes) -> str:
    return "worker_id" if there.by_worker else "node_id"
