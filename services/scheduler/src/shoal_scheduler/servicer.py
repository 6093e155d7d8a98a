"""Protobuf in, protobuf out; which nodes are chosen is decided in `policies`."""

from __future__ import annotations

import time
from typing import Any

from shoal_common.ids import NodeID
from shoal_common.placement.resources import ResourceSet
from shoal_proto.v1 import scheduler_pb2 as pb
from shoal_proto.v1.scheduler_pb2_grpc import SchedulerServiceServicer
from shoal_scheduler.policies import Placer, Request, node_id_of


class SchedulerServicer(SchedulerServiceServicer):
    def __init__(self, placer: Placer) -> None:
        self._placer = placer
        #: Since the start.
        self.placements = 0
        self.infeasible = 0

    async def PickNode(self, request: pb.PickNodeRequest, context: Any) -> pb.PickNodeResponse:
        asked = Request(
            resources=ResourceSet(request.resources.grains),
            strategy=request.strategy,
            asking=NodeID(request.asking_node_id) if request.asking_node_id else None,
            argument_bytes={node_id_of(node): size for node, size in request.argument_bytes.items()},
            count=max(1, request.count),
        )
        answer = self._placer.place(asked, time.monotonic())
        self.placements += sum(count for _, count in answer.placements)
        if not answer.placements:
            self.infeasible += answer.infeasible
            return pb.PickNodeResponse(infeasible=answer.infeasible, reason=answer.reason)
        first = answer.placements[0][0]
        return pb.PickNodeResponse(
            node_id=first.node_id,
            raylet_address=first.report.raylet_address,
            placements=[pb.Placement(node_id=node.node_id, count=n) for node, n in answer.placements if request.count],
        )
