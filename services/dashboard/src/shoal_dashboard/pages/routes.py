"""Pages for people: an overview, a list of each resource, a page of each thing. They work without JavaScript."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from shoal_common.errors import InvalidRequest, NotFound
from shoal_common.state_rows import RESOURCES as KINDS
from shoal_dashboard.charts.call_tree import Branch, call_tree
from shoal_dashboard.context import Context
from shoal_dashboard.events.rows import QueryError as TaskQueryError
from shoal_dashboard.logs.logs import Logs
from shoal_dashboard.logs.query import LogQuery, gone_nodes
from shoal_dashboard.logs.query import QueryError as LogQueryError
from shoal_dashboard.pages import columns, configuration
from shoal_dashboard.pages.actor_calls import add_calls, checkpoints
from shoal_dashboard.pages.charts import last_values
from shoal_dashboard.pages.columns import RESOURCES, VIEW, Resource
from shoal_dashboard.pages.following import followed
from shoal_dashboard.pages.layout import HERE, PATIENCE_S, Layout
from shoal_dashboard.rest.envelope import NotKept
from shoal_dashboard.rest.state import State
from shoal_dashboard.state import page_rows
from shoal_dashboard.state.amounts import duration
from shoal_dashboard.state.query import Filter, Query, QueryError, Row, Selection, limit_of
from shoal_dashboard.waits.waits import Waits
from shoal_proto.v1 import gcs_pb2 as pb

#: Rows of a list, unless the address says more.
_ROWS, _MOST_ROWS = 100, 1_000
#: Of a job's output, in bytes.
_OUTPUT_BYTES = 64 * 1024
#: Of a log, the last ones.
_LOG_LINES = 1_000
_LOGS = f"{VIEW}/logs"
_NO_LOG: Mapping[str, Any] = {"trail": [], "groups": {}, "text": None, "whole": "", "searched": ""}
_LIVING_ACTORS = Query([Filter("state", "=", "ALIVE")], limit=_ROWS, detail=True)


def routes(context: Context) -> list[BaseRoute]:
    pages = _Pages(context)
    in_time = partial(followed, context)
    return [
        Mount("/static", StaticFiles(directory=HERE / "static")),
        Route("/", in_time(pages.overview)),
        Route(f"/{VIEW}/logs", in_time(pages.log_nodes)),
        Route(f"/{VIEW}/logs/{{node_id}}", in_time(pages.log_files)),
        Route(f"/{VIEW}/logs/{{node_id}}/{{file:path}}", in_time(pages.log_end)),
        Route(f"/{VIEW}/jobs/{{key}}/stop", pages.stop_job, methods=["POST"]),
        *(Route(f"/{VIEW}/{each.name}", in_time(partial(pages.listing, each))) for each in RESOURCES.values()),
        *(
            Route(f"/{VIEW}/{each.name}/{{key:path}}", in_time(partial(pages.item, each)))
            for each in RESOURCES.values()
        ),
    ]


class _Pages:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._state = State(context, PATIENCE_S)
        self._page = Layout().page
        self._read = {
            "jobs": self._state.jobs,
            "tasks": self._state.tasks,
            "actors": self._state.actors,
            "nodes": self._state.nodes,
            "workers": self._state.workers,
            "objects": self._state.objects,
            "placement_groups": self._state.placement_groups,
            "events": self._state.cluster_events,
        }

    async def overview(self, request: Request) -> Response:
        cluster = self._context.cluster
        nodes, actors, jobs, tasks = await asyncio.gather(
            cluster.nodes(PATIENCE_S),
            cluster.actors(),
            self._state.jobs(Query(limit=10, detail=True)),
            self._task_counts(),
        )
        living = [node for node in nodes if node.state != pb.NODE_STATE_DEAD]
        counts: dict[str, int] = {}
        for actor in actors:
            name = pb.ActorState.Name(actor.state).removeprefix("ACTOR_STATE_")
            counts[name] = counts.get(name, 0) + 1
        return self._page(
            request,
            "overview.html",
            {
                "nodes": len(living),
                "dead_nodes": len(nodes) - len(living),
                "use": [_share(line) for line in page_rows.resource_lines(living) if "_group_" not in line],
                "actors": _moods(counts),
                "tasks": _moods(tasks),
                "jobs": _table(RESOURCES["jobs"], jobs.rows),
            },
        )

    async def listing(self, resource: Resource, request: Request) -> Response:
        kind = KINDS[resource.rows_name or resource.name]
        parameters = request.query_params
        problem, selection = "", Selection([], 0, 0)
        known = (*kind.filterable_columns(), "limit", "cursor")
        try:
            if unknown := [name for name in parameters if name not in known]:
                raise QueryError(f"This list has no parameter {unknown[0]}; it has {', '.join(known)}")
            filters = [
                Filter(column, "=", value)
                for column, value in parameters.multi_items()
                if column in kind.filterable_columns() and value
            ]
            limit = min(limit_of(parameters.get("limit", str(_ROWS))), _MOST_ROWS)
            query = Query(
                filters,
                limit,
                detail=True,
                # Pages are asked again and again: they look through the archive only for one job, or one task.
                recent=not any(each.column in ("job_id", "task_id") for each in filters),
                cursor=parameters.get("cursor", ""),
                also=resource.also,
            )
            selection = await self._read[resource.name](query)
            if resource.name == "actors":
                await add_calls(self._context, selection.rows)
        except (QueryError, TaskQueryError, NotKept) as error:
            problem = str(error)
        shown = {column: parameters.get(column, "") for column in kind.filterable_columns()}
        here = {name: value for name, value in parameters.items() if name != "cursor" and value}
        following = f"?{urlencode({**here, 'cursor': selection.next_cursor})}" if selection.next_cursor else ""
        return self._page(
            request,
            "list.html",
            {
                "resource": resource,
                "table": _table(resource, selection.rows),
                "selection": selection,
                "filters": {name: value for name, value in shown.items() if name in resource.columns},
                "more_filters": {name: value for name, value in shown.items() if name not in resource.columns},
                "problem": problem or selection.missing,
                "first": f"?{urlencode(here)}" if parameters.get("cursor") else "",
                "following": following,
            },
            400 if problem else 200,
        )

    async def item(self, resource: Resource, request: Request) -> Response:
        key = request.path_params["key"]
        try:
            rows = await self._found(resource, key)
        except (QueryError, TaskQueryError, NotKept) as error:
            return self._page(request, "missing.html", {"problem": str(error)}, 404)
        if not rows:
            return self._unknown(request)
        if resource.name == "actors":
            await add_calls(self._context, rows)
        values = {
            "resource": resource,
            "key": key,
            "rows": [[(name, columns.cell(name, value)) for name, value in row.items()] for row in rows],
            "output": "",
            "running": False,
            "last": [],
            "job_id": rows[0]["job_id"] if resource.name == "jobs" else "",
            "related": [],
            "tree": None,
            "settings": None,
            "process": _process(rows[-1]),
            "printed": _printed(resource, rows[-1]),
            "waits": await Waits(self._context.cluster).of(resource.name, rows[-1]),
        }
        if resource.name == "jobs":
            values |= {**await self._job(rows[0]), **await self._tree(rows[0])}
        elif resource.name == "actors":
            values["related"] = await checkpoints(self._context, key)
        elif resource.name == "nodes":
            related, settings = await asyncio.gather(self._on_node(key), self._settings_of(key))
            last = last_values(self._context.ring, bytes.fromhex(key))
            values |= {"related": related, "settings": settings, "last": last}
        return self._page(request, "item.html", values)

    async def stop_job(self, request: Request) -> Response:
        key = request.path_params["key"]
        try:
            await self._context.jobs.stop(key)
        except NotFound:
            return self._unknown(request)
        return RedirectResponse(f"../{key}", 303)

    async def log_nodes(self, request: Request) -> Response:
        nodes = await self._context.cluster.nodes(PATIENCE_S)
        groups = {
            heading: [(f"{node.host} {node.node_id.hex()}", f"{_LOGS}/{node.node_id.hex()}") for node in of]
            for heading, of in (
                ("Of the node", [node for node in nodes if node.state != pb.NODE_STATE_DEAD]),
                ("Of nodes that are gone", gone_nodes(nodes, "", "")),
            )
        }
        return self._page(request, "logs.html", {**_NO_LOG, "heading": "Logs", "groups": groups})

    async def log_files(self, request: Request) -> Response:
        node_id = request.path_params["node_id"]
        try:
            groups = await Logs(self._context.cluster).files(node_id, "", "*")
        except (LogQueryError, NotFound) as error:
            return self._page(request, "missing.html", {"problem": str(error)}, 404)
        links = {
            group.replace("_", " "): [(name, f"{_LOGS}/{node_id}/{quote(name)}") for name in sorted(names)]
            for group, names in sorted(groups.items())
        }
        values = {"heading": f"Logs of {node_id}", "trail": [("Logs", _LOGS)], "groups": links, "searched": node_id}
        return self._page(request, "logs.html", {**_NO_LOG, **values})

    async def log_end(self, request: Request) -> Response:
        node_id, file = request.path_params["node_id"], request.path_params["file"]
        query = LogQuery(node_id=node_id, filename=file, lines=_LOG_LINES, without_colours=True)
        data = bytearray()
        try:
            async with contextlib.aclosing(Logs(self._context.cluster).read(query)) as pieces:
                async for piece in pieces:
                    data += piece
                    del data[:-_OUTPUT_BYTES]
        except (LogQueryError, NotFound, InvalidRequest) as error:
            return self._page(request, "missing.html", {"problem": str(error)}, 404)
        whole = urlencode({"node_id": node_id, "filename": file, "lines": -1, "download_filename": file})
        values = {
            "heading": file,
            "trail": [("Logs", _LOGS), (node_id, f"{_LOGS}/{node_id}")],
            "text": data.decode("utf-8", "replace") or "Nothing yet.",
            "whole": f"api/v0/logs/file?{whole}",
        }
        return self._page(request, "logs.html", {**_NO_LOG, **values})

    async def _found(self, resource: Resource, key: str) -> list[Row]:
        """All attempts of a task, and one row of everything else; none = there is no such thing."""
        keys = [resource.key] + (["job_id"] if resource.name == "jobs" else [])
        for name in keys:
            query = Query([Filter(name, "=", key)], limit=_ROWS, detail=True, also=resource.also)
            found = await self._read[resource.name](query)
            if found.rows:
                return sorted(found.rows, key=lambda row: row.get("attempt_number", 0))
        return []

    async def _job(self, row: Row) -> dict[str, Any]:
        submission_id = row["submission_id"]
        if not submission_id:
            return {}
        log = await self._context.jobs.log(submission_id)
        offset = await log.tail_offset(_OUTPUT_BYTES)
        data = bytearray()
        while piece := (await log.read(offset + len(data), _OUTPUT_BYTES)).data:
            data += piece
        cut = f"… {offset:,} bytes before this …\n" if offset else ""
        return {
            "output": cut + data.decode("utf-8", "replace") or "Nothing yet.",
            "running": row["status"] in ("PENDING", "RUNNING"),
        }

    async def _tree(self, row: Row) -> dict[str, Any]:
        """Of the job's tasks by function."""
        if not row["job_id"]:
            return {}
        branches, left_out = call_tree(await self._context.calls.of(row["job_id"], PATIENCE_S))
        return {"tree": [_branch(each, row["job_id"]) for each in branches], "left_out": left_out}

    async def _on_node(self, node_id: str) -> list[tuple[str, Any]]:
        wanted = [Filter("node_id", "=", node_id)]
        actors = await self._state.actors(Query([*wanted, *_LIVING_ACTORS.filters], limit=_ROWS, detail=True))
        related = [(f"Actors that live here: {actors.filtered}", _table(RESOURCES["actors"], actors.rows))]
        nodes = await self._context.cluster.nodes(PATIENCE_S)
        if living := [node for node in nodes if node.node_id.hex() == node_id and node.state != pb.NODE_STATE_DEAD]:
            workers = await self._state.workers_on(living[0], Query((), limit=_ROWS, detail=True))
            said = workers.missing or f"Processes: {workers.filtered}"
            related.append((said, _table(RESOURCES["workers"], workers.rows)))
        return related

    async def _settings_of(self, node_id: str) -> dict[str, Any] | None:
        """What its raylet runs with; None = it has left."""
        for node in await self._context.cluster.nodes(PATIENCE_S):
            if node.node_id.hex() == node_id and node.state != pb.NODE_STATE_DEAD:
                (answer,) = await self._context.cluster.settings_at([node.raylet_address])
                return configuration.service("raylet", node.raylet_address, answer)
        return None

    async def _task_counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        if self._context.tasks is not None:
            for function in await self._context.tasks.counts():
                for state, count in function.states.items():
                    counts[state] = counts.get(state, 0) + count
        return counts

    def _unknown(self, request: Request) -> Response:
        return self._page(request, "missing.html", {"problem": f"There is no {request.url.path}."}, 404)


def _table(resource: Resource, rows: list[Row]) -> dict[str, Any]:
    return {
        "columns": resource.columns,
        "rows": [(row.get(resource.key) or row.get("job_id"), columns.cells(resource.columns, row)) for row in rows],
    }


def _branch(branch: Branch, job_id: str) -> dict[str, Any]:
    """A row of the tree, with a link to its tasks."""
    calls = branch.calls
    return {
        "key": f"{branch.depth} {calls.caller} {calls.function}",
        "depth": branch.depth,
        "name": calls.function,
        "link": f"{VIEW}/tasks?{urlencode({'job_id': job_id, 'func_or_class_name': calls.function})}",
        "repeated": branch.repeated,
        "count": f"{calls.count:,}",
        "states": [(name, f"{count:,}", columns.mood(name)) for name, count in sorted(calls.states.items())],
        "mean": "" if branch.mean_ms is None else duration(branch.mean_ms),
        "longest": "" if branch.mean_ms is None else duration(calls.longest_ms),
    }


def _process(row: Row) -> str:
    """The query that names its process, where it has one that can be looked into; empty = it has none."""
    if row.get("state", row.get("status", "ALIVE")) not in ("ALIVE", "RUNNING") or row.get("is_alive") is False:
        return ""
    driver = row.get("driver_info") or {}
    pid = row.get("pid") or row.get("worker_pid") or driver.get("pid")
    node_id = row.get("node_id") or row.get("driver_node_id")
    return urlencode({"node_id": node_id, "pid": pid}) if pid and node_id else ""


def _printed(resource: Resource, row: Row) -> str:
    """The query for the log of what a task or actor has printed; empty = it has been on no node, or is neither."""
    if resource.name == "tasks" and row["node_id"]:
        return urlencode({"task_id": row["task_id"], "attempt_number": row["attempt_number"], "lines": -1})
    if resource.name == "actors" and row["node_id"]:
        return urlencode({"actor_id": row["actor_id"], "lines": -1})
    return ""


def _moods(counts: Mapping[str, int]) -> list[tuple[str, int, str]]:
    return [(state, count, columns.mood(state)) for state, count in counts.items() if count]


def _share(line: str) -> tuple[str, float]:
    """A line of use, ``1.5/4 CPU``, and the share of it in percent."""
    used, _, rest = line.partition("/")
    whole = rest.partition(" ")[0].removesuffix("GiB")
    return line, round(100 * float(used) / float(whole), 1) if float(whole) else 0.0
