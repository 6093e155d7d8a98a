"""Looks into processes of the cluster, through the raylets of their nodes."""

from __future__ import annotations

from shoal_dashboard.cluster.cluster import Cluster
from shoal_dashboard.logs.query import QueryError, nodes_to_ask
from shoal_dashboard.profiles.request import Kind, RequestError, Wanted
from shoal_proto.v1 import raylet_pb2

#: As the raylet's: an answer comes by then after it is over, in seconds.
_GRACE_S = 40.0
_KINDS = {
    Kind.STACKS: raylet_pb2.PROFILE_KIND_STACKS,
    Kind.CPU: raylet_pb2.PROFILE_KIND_CPU,
    Kind.MEMORY: raylet_pb2.PROFILE_KIND_MEMORY,
}


class Profiles:
    """Belongs to one event loop."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def of(self, wanted: Wanted, pid: int, node_id: str = "", node_ip: str = "") -> bytes:
        """Of a driver or worker: stacks for humans, or a line for each stack with samples or bytes.

        Raises: RequestError: no such node; NotFound: no such process there; ResourceExhausted: somebody is at it;
        PreconditionFailed: what is needed for it is not there, and what to do; Unavailable, DeadlineExceeded.
        """
        if not node_id and not node_ip:
            raise RequestError("node_id or ip is required: whose process is it?")
        try:
            node = nodes_to_ask(await self._cluster.nodes(), node_id.lower(), node_ip)[0]
        except QueryError as error:
            raise RequestError(str(error)) from error
        request = raylet_pb2.ProfileRequest(
            kind=_KINDS[wanted.kind],
            pid=pid,
            seconds=wanted.seconds,
            native=wanted.native,
            idle=wanted.idle,
            leaks=wanted.leaks,
        )
        lasts_s = 0 if wanted.kind is Kind.STACKS else wanted.seconds
        return await self._cluster.raylets.profile(node, request, lasts_s + _GRACE_S)
