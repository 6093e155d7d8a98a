"""What Ray's page asks about the cluster as a whole, its nodes and its actors."""

from __future__ import annotations

import platform
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from shoal_dashboard.context import Context
from shoal_dashboard.rest.version import RAY_VERSION
from shoal_dashboard.state import page_rows
from shoal_proto.v1 import gcs_pb2 as pb

#: Actors in one answer at most; the newest.
MAX_ACTORS = 10_000


def routes(context: Context) -> list[BaseRoute]:
    async def cluster_status(request: Request) -> Response:
        nodes = await context.cluster.nodes()
        if request.query_params.get("format") == "1":
            return _answer("Got formatted cluster status.", clusterStatus=page_rows.cluster_status(nodes))
        living = [page_rows.node_summary(info) for info in nodes if info.state != pb.NODE_STATE_DEAD]
        # There is no autoscaler to have a status or an error.
        return _answer(
            "Got cluster status.", autoscalingStatus=None, autoscalingError=None, clusterStatus={"nodes": living}
        )

    async def cluster_metadata(_request: Request) -> Response:
        about = await context.cluster.about()
        return _answer(
            "", rayVersion=RAY_VERSION, pythonVersion=platform.python_version(), sessionName=about.session_name
        )

    async def component_activities(_request: Request) -> Response:
        return JSONResponse({"driver": page_rows.driver_activity(await context.cluster.jobs(), time.time())})

    async def nodes(request: Request) -> Response:
        view = request.query_params.get("view", "summary").lower()
        infos = await context.cluster.nodes()
        if view == "hostnamelist":
            hosts = {info.host for info in infos if info.state != pb.NODE_STATE_DEAD}
            return _answer("Node hostname list fetched.", hostNameList=sorted(hosts))
        if view != "summary":
            return JSONResponse({"result": False, "msg": f"Unknown view {view}", "data": {}}, 400)
        used = {info.node_id.hex(): "\n".join(page_rows.resource_lines([info])) for info in infos}
        return _answer(
            "Node summary fetched.", summary=[page_rows.node_summary(info) for info in infos], nodeLogicalResources=used
        )

    async def actors(request: Request) -> Response:
        wanted = {each for each in request.query_params.get("ids", "").split(",") if each}
        hosts = {info.node_id: info.host for info in await context.cluster.nodes()}
        infos = [info for info in await context.cluster.actors() if not wanted or info.actor_id.hex() in wanted]
        found = {info.actor_id.hex(): page_rows.actor(info, hosts) for info in infos[:MAX_ACTORS]}
        return _answer("All actors fetched.", actors=found)

    return [
        Route("/api/cluster_status", cluster_status),
        Route("/api/v0/cluster_metadata", cluster_metadata),
        Route("/api/component_activities", component_activities),
        Route("/nodes", nodes),
        Route("/logical/actors", actors),
    ]


def _answer(message: str, **data: Any) -> Response:
    return JSONResponse({"result": True, "msg": message, "data": data})
