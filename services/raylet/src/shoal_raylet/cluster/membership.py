"""This node's place in the cluster: registered, drained before it leaves, unregistered, or given up (``standing``)."""

from __future__ import annotations

import asyncio
import time

import grpc.aio
import structlog

from shoal_common.errors import DeadlineExceeded, ServiceError, Unavailable
from shoal_common.rpc.client import service_errors
from shoal_common.states import NodeState
from shoal_proto.v1 import gcs_pb2
from shoal_proto.v1.gcs_pb2_grpc import NodeServiceStub
from shoal_raylet.cluster.standing import GivenUp, OwnRow, Standing

log = structlog.get_logger(__name__)

_CALL_TIMEOUT_S = 5.0
_REGISTER_RETRY_S = 0.1


class Membership:
    """Belongs to the event loop of ``channel``."""

    def __init__(
        self, channel: grpc.aio.Channel, node_id: bytes, incarnation: int, gcs_address: str, rejoin_timeout_s: float
    ) -> None:
        """``gcs_address`` is for messages; ``rejoin_timeout_s``: see ``Standing``."""
        self._gcs = NodeServiceStub(channel)
        self._node_id = node_id
        self._gcs_address = gcs_address
        self._standing = Standing(incarnation, rejoin_timeout_s, gcs_address, asyncio.get_running_loop().time())
        #: The GCS has registered this node, and not given it up since.
        self.joined = False
        self._given_up: asyncio.Future[GivenUp] = asyncio.get_running_loop().create_future()

    async def list_nodes(self, known_version: int) -> gcs_pb2.ListNodesResponse:
        """Raises: ServiceError."""
        loop = asyncio.get_running_loop()
        try:
            with service_errors():
                request = gcs_pb2.ListNodesRequest(known_version=known_version)
                response = await self._gcs.ListNodes(request, timeout=_CALL_TIMEOUT_S)
        except ServiceError as error:
            self._settle(self._standing.unanswered(str(error), loop.time()))
            raise
        if response.version == known_version:
            self._standing.unchanged(loop.time())
        else:
            own = next((node for node in response.nodes if node.node_id == self._node_id), None)
            self._settle(self._standing.listed(_row(own) if own is not None else None, loop.time()))
        return response

    async def register(self, info: gcs_pb2.NodeInfo, within_s: float, advice: str) -> None:
        """``advice`` is for the message when the GCS does not answer ``within_s``.

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
                        f"the GCS at {self._gcs_address} did not register this node within {within_s:g} s: {error}. "
                        f"Is it running, and is the address right? {advice}"
                    ) from error
                if not told:
                    log.warning("waiting_for_gcs", address=self._gcs_address, reason=str(error))
                told = True
                await asyncio.sleep(_REGISTER_RETRY_S)

    async def drain(self, timeout_s: float, leaves_within_s: float) -> None:
        """Have nothing new placed here. Best effort: the node leaves all the same."""
        try:
            with service_errors():
                request = gcs_pb2.DrainNodeRequest(
                    node_id=self._node_id,
                    reason="the raylet is to stop",
                    deadline_unix_ms=int((time.time() + leaves_within_s) * 1000),
                )
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

    def told(self, node: gcs_pb2.NodeInfo) -> None:
        """The cluster has given up the node of this id; perhaps an earlier incarnation of it, which is past."""
        self._settle(self._standing.told(_row(node)))

    @property
    def why_given_up(self) -> str:
        """Empty = it was not."""
        return self._given_up.result().reason if self._given_up.done() else ""

    async def given_up(self) -> GivenUp:
        """Returns when this node is in no cluster any more."""
        return await asyncio.shield(self._given_up)

    def _settle(self, outcome: GivenUp | None) -> None:
        if outcome is not None and self.joined:
            self.joined = False
            self._given_up.set_result(outcome)


def _row(node: gcs_pb2.NodeInfo) -> OwnRow:
    return OwnRow(NodeState(node.state), node.incarnation, node.death_reason)
