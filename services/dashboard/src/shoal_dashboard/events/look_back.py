"""``LookBack``: which segments of the archive a question needs, and what they have told of it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from shoal_dashboard.events.archive import Segment
from shoal_dashboard.events.rows import ENDED, STATES, Filter, Page, TaskRow


@dataclass(frozen=True, slots=True)
class Window:
    """Milliseconds since 1970; what is asked for ended in it."""

    first_ms: int = 0
    #: 0 = until now.
    last_ms: int = 0

    def meets(self, segment: Segment) -> bool:
        return self.first_ms <= segment.last_ms and (not self.last_ms or segment.first_ms <= self.last_ms)


ALWAYS: Final = Window()


class LookBack:
    """Of a page that has the newest ``limit`` rows of what the store has."""

    def __init__(self, page: Page, limit: int, segments: Sequence[Segment], floor_ms: int, during: Window) -> None:
        """``segments``: the newest first. ``floor_ms``: what ended then or later is in the store."""
        self._page = page
        self._limit = limit
        self._floor_ms = floor_ms
        self._rows = list(page.rows)
        self._keys = {(row.task_id, row.attempt_number) for row in page.rows}
        self._total, self._recorded = page.total, page.recorded
        older = [segment for segment in segments if segment.first_ms < floor_ms]
        self._left = deque(segment for segment in older if during.meets(segment))
        #: Not ``found`` yet.
        self._wanted: list[Segment] = []

    def wanted(self, count: int) -> list[Segment]:
        """The next ones, so many at most; none = the page has all that belongs on it."""
        if not self._left:
            return []
        full = len(self._rows) >= self._limit
        # Whatever is left ended before that, and so was made before.
        if full and self._rows[self._limit - 1].creation_time_ms >= self._newest_left():
            return []
        self._wanted = [self._left.popleft() for _ in range(min(count, len(self._left)))]
        return self._wanted

    def found(self, rows: Sequence[TaskRow], total: int, recorded: int) -> None:
        """In the segments that were wanted last: the newest rows, how many meet the filters, and how many there are."""
        for row in rows:
            key = row.task_id, row.attempt_number
            if key not in self._keys:  # two dashboards at a time record the same
                self._keys.add(key)
                self._rows.append(row)
        self._rows.sort(key=lambda row: (row.creation_time_ms, row.task_id, row.attempt_number), reverse=True)
        del self._rows[self._limit :]
        self._wanted = []
        self._total += total
        self._recorded += recorded

    def page(self, cut: str = "") -> Page:
        """``cut``: why not all that was wanted has been looked at, as the end of a sentence."""
        uncounted = unseen = ""
        if self._left or cut:
            at = datetime.fromtimestamp(self._newest_left() / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            if cut:
                unseen = f"Older tasks, which ended before {at}, were not looked at: {cut}."
            else:
                rows = sum(segment.rows for segment in self._left)
                uncounted = f"Not counted: {rows:,} older tasks, which ended before {at}; a larger limit reaches them."
        return replace(
            self._page,
            rows=self._rows,
            next_cursor="",
            total=self._total,
            recorded=self._recorded,
            uncounted=uncounted,
            unseen=unseen,
        )

    def _newest_left(self) -> int:
        return min([self._floor_ms, *(segment.last_ms for segment in [*self._wanted, *self._left][:1])])


def may_have_ended(filters: Sequence[Filter]) -> bool:
    """Segments have only what has ended."""
    alive = set(STATES) - set(ENDED)
    return not any(each.column == "state" and each.operator == "=" and each.value.upper() in alive for each in filters)
