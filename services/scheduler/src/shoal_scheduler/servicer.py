"""Protobuf in, protobuf out; which node is chosen is decided in `policies`."""

from __future__ import annotations

import random
import time
from typing import Any

from shoal_common.ids import NodeID
from shoal_common.resources import ResourceSet
from shoal_proto.v1 import scheduler_pb2 as pb
from shoal_proto.v1.scheduler_pb2_grpc import SchedulerServiceServicer
from shoal_scheduler.cluster_view import ClusterView
from shoal_scheduler.policies import Request, node_id_of, pick


class SchedulerServicer(SchedulerServiceServicer):
    def __init__(self, view: ClusterView, rng: random.Random) -> None:
        self._view = view
        self._rng = rng

    async def PickNode(self, request: pb.PickNodeRequest, context: Any) -> pb.PickNodeResponse:
        asked = Request(
            resources=ResourceSet(request.resources.grains),
            strategy=request.strategy,
            asking=NodeID(request.asking_node_id) if request.asking_node_id else None,
            argument_bytes={node_id_of(node): size for node, size in request.argument_bytes.items()},
        )
        choice = pick(asked, self._view, time.monotonic(), self._rng)
        if choice.node is None:
            return pb.PickNodeResponse(infeasible=choice.infeasible, reason=choice.reason)
        return pb.PickNodeResponse(node_id=choice.node.node_id, raylet_address=choice.node.report.raylet_address)
