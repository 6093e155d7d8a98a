"""Ray's state interface: ``GET /api/v0/<resource>`` lists, ``GET /api/v0/<resource>/summarize`` counts."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from shoal_common import ids
from shoal_common.errors import Unavailable
from shoal_common.events.node_events import SEVERITIES
from shoal_common.state_rows import RESOURCES, StateRow
from shoal_dashboard.cluster.raylets import Answers
from shoal_dashboard.context import Context
from shoal_dashboard.events import rows as events
from shoal_dashboard.events.look_back import ALWAYS, Window
from shoal_dashboard.events.store import TaskStore
from shoal_dashboard.jobs import details
from shoal_dashboard.rest.envelope import enveloped
from shoal_dashboard.state import cluster_rows, node_rows, task_rows
from shoal_dashboard.state.query import Query, QueryError, Row, Selection, parse, select
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import raylet_pb2

#: What was read so long ago, in seconds, is told to be as it is now.
_FRESH_S = 2.0

#: Of a job: what it has left ends so many milliseconds after it at most, as nodes' clocks and reports may be late.
AFTERMATH_MS = 600_000


def routes(context: Context) -> list[BaseRoute]:
    state = State(context)
    lists: dict[str, Callable[[Query], Awaitable[Selection]]] = {
        "actors": state.actors,
        "cluster_events": state.cluster_events,
        "jobs": state.jobs,
        "nodes": state.nodes,
        "objects": state.objects,
        "placement_groups": state.placement_groups,
        "runtime_envs": state.runtime_envs,
        "tasks": state.tasks,
        "workers": state.workers,
    }
    summaries: dict[str, Callable[[Query, str], Awaitable[dict[str, Any]]]] = {
        "actors": state.summarize_actors,
        "objects": state.summarize_objects,
        "tasks": state.summarize_tasks,
    }
    return [
        *(Route(f"/api/v0/{name}", enveloped(_listed(rows))) for name, rows in lists.items()),
        *(Route(f"/api/v0/{name}/summarize", enveloped(_summarized(count))) for name, count in summaries.items()),
    ]


class State:
    """What is asked about each resource. All raise: QueryError; Unavailable, DeadlineExceeded (no cluster)."""

    def __init__(self, context: Context, patience_s: float = math.inf) -> None:
        """``patience_s``: what takes longer to read is told as it was read last, with a warning that says when."""
        self._context = context
        self._patience_s = patience_s

    async def nodes(self, query: Query) -> Selection:
        infos = await self._context.cluster.nodes(self._patience_s)
        return await _selected("nodes", query, lambda: [cluster_rows.node(info) for info in infos])

    async def jobs(self, query: Query) -> Selection:
        """Newest first: those that were submitted, and drivers that somebody started."""
        infos, submissions = await self._context.cluster.jobs(), await self._context.jobs.all()
        hosts = await self._hosts()
        return await _selected("jobs", query, lambda: details.of_all(submissions, infos, hosts))

    async def actors(self, query: Query) -> Selection:
        """Newest first."""
        infos = await self._context.cluster.actors()
        return await _selected("actors", query, lambda: [cluster_rows.actor(info) for info in infos])

    async def placement_groups(self, query: Query) -> Selection:
        """Newest first."""
        infos = await self._context.cluster.placement_groups()
        rows = lambda: [cluster_rows.placement_group(info) for info in reversed(infos)]  # noqa: E731
        return await _selected("placement_groups", query, rows)

    async def workers(self, query: Query) -> Selection:
        """Those that run, and the drivers."""
        answers = await self._context.cluster.stats(self._patience_s)
        rows = await self._workers(answers)
        warnings = _read_before(answers)
        return await _selected("workers", query, lambda: rows, missing=answers.warning, warnings=warnings)

    async def workers_on(self, node: pb.NodeInfo, query: Query) -> Selection:
        """Those of one node that lives, which alone is asked, and the drivers there."""
        answers = await self._context.cluster.stats_of(node)
        rows = [row for row in await self._workers(answers) if row["node_id"] == node.node_id.hex()]
        return await _selected("workers", query, lambda: rows, missing=answers.warning)

    async def objects(self, query: Query) -> Selection:
        """Those in the nodes' stores. Of a node with very many, the newest; all are counted."""
        cluster = self._context.cluster
        answers, stats = await asyncio.gather(cluster.objects(self._patience_s), cluster.stats(self._patience_s))
        workers = await self._workers(stats)

        def rows() -> list[Row]:
            owners = node_rows.owners(workers)
            told = ((stats, node) for node, answer in answers.given for stats in answer.objects)
            return [node_rows.stored_object(stats, node, owners) for stats, node in told]

        there = sum(answer.total for _node, answer in answers.given)
        warnings = _read_before(answers)
        return await _selected("objects", query, rows, missing=answers.warning, total=there, warnings=warnings)

    async def runtime_envs(self, query: Query) -> Selection:
        answers = await self._context.cluster.stats(self._patience_s)
        rows = [node_rows.runtime_env(stats, node) for node, answer in answers.given for stats in answer.environments]
        return await _selected("runtime_envs", query, lambda: rows, missing=answers.warning)

    async def tasks(self, query: Query) -> Selection:
        """Newest first; attempts, each by itself."""
        await self._context.caught_up(query.after)
        store, filters = self._tasks(), task_rows.filters(query)
        page = await store.query(filters, cursor=query.cursor, limit=query.limit)
        if not query.recent and store.reaches_back(page, filters, query.limit):
            page = await store.look_back(page, filters, query.limit, await self._lifetime(filters))
        rows = [task_rows.row(attempt, detail=query.detail) for attempt in page.rows]
        return Selection(
            rows,
            total=page.recorded,
            filtered=page.total,
            missing=page.unseen,
            warnings=[page.uncounted] if page.uncounted and filters else [],
            next_cursor=page.next_cursor,
        )

    async def cluster_events(self, query: Query) -> Selection:
        """Newest first."""
        for each in query.filters:
            if each.column == "severity" and each.value.upper() not in SEVERITIES:
                raise QueryError(f"severity={each.value} is none of {', '.join(SEVERITIES)}")
        events = await self._tasks().cluster_events()
        return await _selected("cluster_events", query, lambda: [node_rows.cluster_event(*each) for each in events])

    async def summarize_actors(self, query: Query, _by: str) -> dict[str, Any]:
        infos = await self._context.cluster.actors()
        every = await _selected("actors", _all_of(query), lambda: [cluster_rows.actor(info) for info in infos])
        return cluster_rows.actor_summary(every.rows)

    async def summarize_objects(self, query: Query, _by: str) -> dict[str, Any]:
        every = await self.objects(_all_of(query))
        return node_rows.object_summary(every.rows)

    async def summarize_tasks(self, query: Query, by: str) -> dict[str, Any]:
        jobs = [each.value for each in query.filters if (each.column, each.predicate) == ("job_id", "=")]
        if len(jobs) != len(query.filters) or len(jobs) > 1:
            raise QueryError("tasks are summarized of all jobs, or of one: filter by job_id=...")
        if by not in ("func_name", "lineage"):
            raise QueryError(f"summary_by={by} is not supported: tasks are summarized by func_name or lineage")
        await self._context.caught_up(query.after)
        summary = await self._tasks().summary("lineage" if by == "lineage" else "func_name", *jobs)
        return task_rows.by_lineage(summary.lineage) if by == "lineage" else task_rows.by_function(summary.functions)

    async def _lifetime(self, filters: Sequence[events.Filter]) -> Window:
        """Of the job that is asked about, or whose task is."""
        asked = {each.column: each.value.lower() for each in filters if each.operator == "="}
        job_id = asked.get("job_id") or asked.get("task_id", "")[: 2 * ids.JOB_LENGTH]
        if job_id:
            for job in await self._context.cluster.jobs():
                if job.job_id.hex() == job_id:
                    # What a driver leaves behind ends after it.
                    return Window(job.start_unix_ms, job.end_unix_ms + AFTERMATH_MS if job.end_unix_ms else 0)
        return ALWAYS

    async def _hosts(self) -> dict[bytes, str]:
        return {info.node_id: info.host for info in await self._context.cluster.nodes(self._patience_s)}

    async def _workers(self, answers: Answers[raylet_pb2.GetStatsResponse]) -> list[Row]:
        """Of these nodes, and all drivers."""
        hosts = await self._hosts()
        jobs: Sequence[pb.JobInfo] = await self._context.cluster.jobs()
        rows = [node_rows.driver(job, hosts) for job in jobs if not job.end_unix_ms]
        rows += [node_rows.worker(stats, node) for node, answer in answers.given for stats in answer.workers]
        return rows

    def _tasks(self) -> TaskStore:
        if self._context.tasks is None:
            raise Unavailable("the cluster has not been found yet")
        return self._context.tasks


async def _selected(
    name: str,
    query: Query,
    rows: Callable[[], list[Row]],
    *,
    missing: str = "",
    total: int | None = None,
    warnings: Sequence[str] = (),
) -> Selection:
    """In a thread: ten thousand rows take a tenth of a second, in which others are to be answered."""
    kind: type[StateRow] = RESOURCES[name]
    found = await asyncio.to_thread(lambda: select(rows(), kind, query))
    told = [*found.warnings, *warnings]
    return replace(found, total=found.total if total is None else total, missing=missing, warnings=told)


def _read_before(answers: Answers[Any]) -> list[str]:
    if time.time() - answers.asked_at < _FRESH_S:
        return []
    there = len(answers.given) + len(answers.missing)
    moment = datetime.fromtimestamp(answers.asked_at, UTC)
    return [f"As it was at {moment:%H:%M:%S} UTC: to ask {there:,} nodes takes long"]


def _all_of(query: Query) -> Query:
    """For counting."""
    return Query(query.filters, limit=2**31, detail=True)


def _listed(rows: Callable[[Query], Awaitable[Selection]]) -> Callable[[Request], Awaitable[dict[str, Any]]]:
    async def answer(request: Request) -> dict[str, Any]:
        selection = await rows(parse(request.query_params.multi_items()))
        return {
            "total": selection.total,
            # Ray cuts before it filters; here nothing is cut.
            "num_after_truncation": selection.total,
            "num_filtered": selection.filtered,
            "result": selection.rows,
            "partial_failure_warning": selection.missing,
            "warnings": selection.warnings or None,
        }

    return answer


def _summarized(
    count: Callable[[Query, str], Awaitable[dict[str, Any]]],
) -> Callable[[Request], Awaitable[dict[str, Any]]]:
    async def answer(request: Request) -> dict[str, Any]:
        query = parse(request.query_params.multi_items())
        summary = await count(query, request.query_params.get("summary_by", "func_name"))
        total = sum(value for name, value in summary.items() if name.startswith("total_") and isinstance(value, int))
        return {
            "total": total,
            "num_after_truncation": total,
            "num_filtered": total,
            "result": {"node_id_to_summary": {"cluster": summary}},
            "partial_failure_warning": "",
            "warnings": None,
        }

    return answer
