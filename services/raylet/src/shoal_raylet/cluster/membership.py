"""This node's place in the cluster: registered, drained before it leaves, unregistered, or given up by the cluster."""

from __future__ import annotations

import asyncio

import grpc.aio
import structlog

from shoal_common.errors import DeadlineExceeded, ServiceError, Unavailable
from shoal_common.rpc.client import service_errors
from shoal_proto.v1 import gcs_pb2
from shoal_proto.v1.gcs_pb2_grpc import NodeServiceStub

log = structlog.get_logger(__name__)

_CALL_TIMEOUT_S = 5.0
_REGISTER_RETRY_S = 0.1


class Membership:
    """Belongs to the event loop of ``channel``."""

    def __init__(self, channel: grpc.aio.Channel, node_id: bytes, incarnation: int) -> None:
        self._gcs = NodeServiceStub(channel)
        self._node_id = node_id
        self._incarnation = incarnation
        #: The GCS has registered this node, and not given it up since.
        self.joined = False
        self._given_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def list_nodes(self) -> list[gcs_pb2.NodeInfo]:
        """Raises: ServiceError."""
        with service_errors():
            response = await self._gcs.ListNodes(gcs_pb2.ListNodesRequest(), timeout=_CALL_TIMEOUT_S)
        return list(response.nodes)

    async def register(self, info: gcs_pb2.NodeInfo, gcs_address: str, within_s: float, advice: str) -> None:
        """``gcs_address`` and ``advice`` are for the message when the GCS does not answer ``within_s``.

        Raises: ServiceError when the GCS refuses the node; Unavailable when it does not answer.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        told = False
        while True:
            try:
                with service_errors():
                    await self._gcs.RegisterNode(gcs_pb2.RegisterNodeRequest(node=info), timeout=_CALL_TIMEOUT_S)
                self.joined = True
                return
            except (Unavailable, DeadlineExceeded) as error:
                if loop.time() >= deadline:
                    raise Unavailable(
                        f"the GCS at {gcs_address} did not register this node within {within_s:g} s: {error}. "
                        f"Is it running, and is the address right? {advice}"
                    ) from error
                if not told:
                    log.warning("waiting_for_gcs", address=gcs_address, reason=str(error))
                told = True
                await asyncio.sleep(_REGISTER_RETRY_S)

    async def drain(self, timeout_s: float) -> None:
        """Have nothing new placed here. Best effort: the node leaves all the same."""
        try:
            with service_errors():
                request = gcs_pb2.DrainNodeRequest(node_id=self._node_id, reason="the raylet is to stop")
                await self._gcs.DrainNode(request, timeout=timeout_s)
        except ServiceError as error:
            log.info("node_not_drained", reason=str(error))

    async def unregister(self, timeout_s: float) -> None:
        """Best effort: the GCS finds the end by itself."""
        if not self.joined:
            return  # the node of this id, if there is one, is another raylet's
        try:
            with service_errors():
                request = gcs_pb2.UnregisterNodeRequest(node_id=self._node_id, reason="the raylet was stopped")
                await self._gcs.UnregisterNode(request, timeout=timeout_s)
        except ServiceError as error:
            log.info("node_not_unregistered", reason=str(error))

    def declared_dead(self, node: gcs_pb2.NodeInfo) -> None:
        """The cluster has given up the node of this id; perhaps an earlier incarnation of it, which is past."""
        if node.incarnation == self._incarnation:
            self.joined = False
            if not self._given_up.done():
                self._given_up.set_result(f"the cluster has declared this node dead: {node.death_reason}")

    async def given_up(self) -> str:
        """Returns when the cluster has given this node up: why."""
        return await asyncio.shield(self._given_up)
