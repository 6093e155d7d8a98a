"""What ran when, as a sheet of cells: a row is a lane (a worker, or a node), a column a span of time. Pure.

A cell says how much of its time its lane was busy, and with which function most. So a sheet has the size of what is
drawn of it, however many tasks there are. Columns have a power of two of milliseconds and begin at a multiple of that,
so that the same cells come again when a window is moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Columns of a sheet, and cells.
MAX_COLUMNS, MAX_CELLS = 4_096, 2**19
#: Functions that are told apart; all others are one kind more, the last.
MAX_FUNCTIONS = 7
KINDS = MAX_FUNCTIONS + 1
#: Workers that have a lane each; where there are more, each node has one.
MAX_WORKERS = 256
MAX_LANES = 1_024
#: Tasks in a window that are told singly, too.
MAX_MARKS = 5_000
#: In a cell's kind: something has failed at that time.
FAILED = 0x80

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lane:
    """Of one worker, or, without ``worker_id``, of all of a node. Times in milliseconds since 1970."""

    node_id: str
    worker_id: str
    pid: int
    workers: int
    tasks: int
    busy_ms: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Lanes:
    lanes: list[Lane]
    #: Lanes that are left out, as there are too many.
    more: int
    #: Those that took most time, in that order.
    functions: list[str]
    #: Something runs still.
    running: bool

    @property
    def tasks(self) -> int:
        return sum(lane.tasks for lane in self.lanes)

    @property
    def by_worker(self) -> bool:
        return any(lane.worker_id for lane in self.lanes)

    @property
    def first_ms(self) -> int:
        return min((lane.first_ms for lane in self.lanes), default=0)

    @property
    def last_ms(self) -> int:
        return max((lane.last_ms for lane in self.lanes), default=0)


@dataclass(frozen=True, slots=True)
class Grid:
    """``columns`` of ``column_ms`` each, from ``start_ms`` on."""

    start_ms: int
    column_ms: int
    columns: int

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.columns * self.column_ms


def grid(start_ms: int, end_ms: int, columns: int, lanes: int) -> Grid:
    """The finest one that covers the window with at most ``columns``, or what ``lanes`` leave room for."""
    most = max(1, min(columns, MAX_COLUMNS, MAX_CELLS // max(1, lanes)))
    column_ms = 1
    while True:
        first = start_ms // column_ms * column_ms
        needed = -(-(max(end_ms, start_ms + 1) - first) // column_ms)
        if needed <= most:
            return Grid(first, column_ms, needed)
        column_ms *= 2


@dataclass(frozen=True, slots=True)
class Parts:
    """Of tasks that are alike in the first three. ``busy_ms``: of that column. ``begin`` and ``end``: how many fill all
    columns behind this one, and how many do not from this one on."""

    lane: Numbers
    kind: Numbers
    column: Numbers
    busy_ms: npt.NDArray[np.float64]
    begin: Numbers
    end: Numbers
    failed: npt.NDArray[np.bool_]


def cells(parts: Parts, grid: Grid, lanes: int, *, one_at_a_time: bool) -> tuple[bytes, bytes]:
    """Shares and kinds of all cells, lane by lane: a byte each. A share is 0 where nothing ran, and 255 where one task
    ran all the time, or, unless lanes run ``one_at_a_time``, where their lane was as busy as it ever was."""
    shape = (lanes, grid.columns)
    size = lanes * grid.columns
    total = np.zeros(shape, np.float32)
    most = np.zeros(shape, np.float32)
    kinds = np.zeros(shape, np.uint8)
    for kind in range(KINDS):
        mine = parts.kind == kind
        if not mine.any():
            continue
        at = parts.lane[mine] * grid.columns + parts.column[mine]
        busy = np.bincount(at, parts.busy_ms[mine], size).astype(np.float32).reshape(shape)
        change = -np.bincount(at, parts.end[mine], size).reshape(shape)
        change[:, 1:] += np.bincount(at, parts.begin[mine], size).reshape(shape)[:, :-1]
        busy += (np.cumsum(change, axis=1) * grid.column_ms).astype(np.float32)
        total += busy
        np.copyto(kinds, np.uint8(kind), where=busy > most)
        np.maximum(most, busy, out=most)
    whole = np.full((lanes, 1), grid.column_ms, np.float32)
    if not one_at_a_time and size:
        whole = np.maximum(whole, total.max(axis=1, keepdims=True))
    share = np.clip(np.ceil(total * 255 / whole), 0, 255).astype(np.uint8)
    failed = np.zeros(size, np.uint8)
    failed[(parts.lane * grid.columns + parts.column)[parts.failed]] = FAILED
    return share.tobytes(), (kinds | failed.reshape(shape)).tobytes()
