"""``TaskStore``: what the rest of the service asks about tasks. Filters come before limits, and counts are exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from shoal_common.events.node_events import ClusterEvent
from shoal_dashboard.events.look_back import ALWAYS, Window
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
from shoal_dashboard.events.sheet import Grid, Lanes
from shoal_dashboard.events.timeline_queries import Sheet


class TaskStore(Protocol):
    """Belongs to one event loop, which it does not hold up."""

    async def query(
        self, filters: Sequence[Filter] = (), sort: Sort = NEWEST_FIRST, cursor: str = "", limit: int = 100
    ) -> Page:
        """Rows that meet all ``filters``. ``limit``: at most ``MAX_LIMIT``. What comes in meanwhile moves no page.

        Raises: QueryError.
        """

    def reaches_back(self, page: Page, filters: Sequence[Filter], limit: int) -> bool:
        """The archive may have rows that belong on this page, the first one of a query, newest first."""

    async def look_back(self, page: Page, filters: Sequence[Filter], limit: int, during: Window = ALWAYS) -> Page:
        """The page with what only the archive has of it, among what ended in that time, as far as some seconds
        allow. Raises: QueryError."""

    async def get(self, task_id: str) -> list[TaskRow]:
        """All attempts, the first one first; none = it is not known, or has no row. Raises: QueryError."""

    async def summary(self, by: Literal["func_name", "lineage"] = "func_name", job_id: str = "") -> Summary:
        """Of one job, or of all."""

    async def timeline(
        self, job_id: str = "", start_ms: int = 0, end_ms: int = 0, limit: int = 20_000
    ) -> list[TaskRow]:
        """Attempts that have begun to run, and did so at some time in the window (0 = no bound): the longest ones when
        there are more than ``limit``; in the order of their beginnings."""

    async def lanes(self, job_id: str = "") -> Lanes:
        """Where the tasks of one job, or of all, have run. Raises: QueryError."""

    async def sheet(self, job_id: str, lanes: Lanes, grid: Grid) -> Sheet:
        """What ran in that time on these lanes, which are those of the same job. Raises: QueryError."""

    async def task_at(self, job_id: str, lane_id: str, at_ms: int, near_ms: int, *, by_worker: bool) -> str:
        """The task that ran at that time in that worker, or on that node, or the nearest one that is so near;
        "" = there is none. Raises: QueryError."""

    async def errors(self, filters: Sequence[Filter] = (), limit: int = 100) -> list[ErrorGroup]:
        """Failures that meet the filters by what went wrong, the most frequent first."""

    async def counts(self, job_id: str = "") -> list[FunctionCounts]:
        """Exact counts of one job, or of all, by function."""

    async def calls(self, job_id: str = "") -> list[Calls]:
        """Who calls whom in one job, or in all, the most frequent first; of tasks with rows. Raises: QueryError."""

    async def actor_calls(self, actor_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """Of each of these actors how many of its calls with rows are in which state; those without one are left out.
        Raises: QueryError."""

    async def cluster_events(self) -> list[tuple[str, ClusterEvent]]:
        """What has happened to nodes, workers, actors and jobs, each with an id: the newest ones, newest first."""
