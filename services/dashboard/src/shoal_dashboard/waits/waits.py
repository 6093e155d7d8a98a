"""Why tasks, actors, objects and placement groups wait, for their pages: asked of the processes that know.

An object's owner explains it, which is asked through the raylet of its node; what an actor's threads wait for its own
process says; how an actor or a group stands the GCS knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shoal_common import ids
from shoal_common.errors import NotFound, ServiceError
from shoal_common.standing import GROUP_WAITS, ActorStanding, Room, group_told
from shoal_common.states import GroupState
from shoal_dashboard.cluster.cluster import Cluster
from shoal_dashboard.events.rows import ENDED
from shoal_dashboard.state.query import Row
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import raylet_pb2

#: A page waits so long for those who know, in seconds.
PATIENCE_S = 3.0


class Waits:
    """Belongs to one event loop."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def of(self, resource: str, row: Row) -> str:
        """For humans; empty = it waits for nothing, or there is nothing to say. Raises: Unavailable, DeadlineExceeded:
        the GCS does not answer."""
        if resource == "tasks" and row["state"] not in ENDED:
            return await self._owner_says(ids.object_of_task(bytes.fromhex(row["task_id"]), 0))
        if resource == "objects" and row["task_status"] == "RUNNING":
            return await self._owner_says(bytes.fromhex(row["object_id"]))
        if resource == "actors" and row["state"] != "DEAD":
            return await self._actor(bytes.fromhex(row["actor_id"]))
        if resource == "placement_groups":
            return await self._group(bytes.fromhex(row["placement_group_id"]))
        return ""

    async def _owner_says(self, object_id: bytes) -> str:
        living = [node for node in await self._cluster.nodes() if node.state != pb.NODE_STATE_DEAD]
        return await self._told(living, raylet_pb2.ExplainWaitRequest(object_id=object_id))

    async def _actor(self, actor_id: bytes) -> str:
        nodes = await self._cluster.nodes()
        actor = next((each for each in await self._cluster.actors() if each.actor_id == actor_id), None)
        if actor is None:
            return ""
        standing = ActorStanding(
            actor.state,
            actor.pid,
            bool(actor.address.node_id),
            actor.exit.detail,
            actor.death_reason,
            actor.waits_for_quota,
        )
        lines = []
        if actor.state != pb.ACTOR_STATE_ALIVE:
            lines.append(f"It is {standing.told(node.state for node in nodes)}.")
        place = [node for node in nodes if node.node_id == actor.address.node_id]
        if place:
            lines.append(await self._told(place, raylet_pb2.ExplainWaitRequest(actor_id=actor_id)))
        return "\n".join(filter(None, lines))

    async def _group(self, group_id: bytes) -> str:
        group = next((each for each in await self._cluster.placement_groups() if each.group_id == group_id), None)
        if group is None or GroupState(group.state) not in GROUP_WAITS:
            return ""
        rooms = [
            Room(node.total.grains, node.available.grains)
            for node in await self._cluster.nodes()
            if node.state == pb.NODE_STATE_ALIVE
        ]
        bundles = [None if bundle.node_id else bundle.resources.grains for bundle in group.bundles]
        lines = group_told(group.state, group.waits_for_quota, bundles, rooms)
        return "It is " + "\n".join(f"{line}." for line in lines)

    async def _told(self, nodes: Sequence[pb.NodeInfo], request: raylet_pb2.ExplainWaitRequest) -> str:
        """What the first of these nodes says that knows."""
        asking = {asyncio.create_task(self._cluster.raylets.explain_wait(node, request)) for node in nodes}
        silent = ""
        try:
            async with asyncio.timeout(PATIENCE_S):
                for answer in asyncio.as_completed(asking):
                    try:
                        return await answer
                    except NotFound:
                        continue  # another node may know
                    except ServiceError as error:
                        silent = str(error)
        except TimeoutError:
            silent = f"who knows has not answered within {PATIENCE_S:g} s"
        finally:
            for task in asking:
                task.cancel()
            if asking:
                await asyncio.wait(asking)
        return f"Not known: {silent}." if silent else "Not known: the process that owns it has ended."
