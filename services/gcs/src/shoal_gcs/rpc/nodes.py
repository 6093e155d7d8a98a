"""NodeService: protobuf in, protobuf out."""

from __future__ import annotations

from typing import Any

import grpc.aio

from shoal_gcs.endings import Endings
from shoal_gcs.nodes.manager import NodeManager
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


class NodeServicer(rpc.NodeServiceServicer):
    def __init__(self, nodes: NodeManager, endings: Endings, cluster: pb.GetClusterResponse) -> None:
        self._nodes = nodes
        self._endings = endings
        self._cluster = cluster

    async def GetCluster(self, request: pb.GetClusterRequest, context: Context) -> pb.GetClusterResponse:
        return self._cluster

    async def RegisterNode(self, request: pb.RegisterNodeRequest, context: Context) -> pb.RegisterNodeResponse:
        await self._nodes.register(request.node)
        return pb.RegisterNodeResponse(cluster_id=self._cluster.cluster_id)

    async def DrainNode(self, request: pb.DrainNodeRequest, context: Context) -> pb.DrainNodeResponse:
        await self._nodes.drain(request.node_id, request.reason, request.deadline_unix_ms)
        return pb.DrainNodeResponse()

    async def UnregisterNode(self, request: pb.UnregisterNodeRequest, context: Context) -> pb.UnregisterNodeResponse:
        await self._nodes.unregister(request.node_id, request.reason)
        return pb.UnregisterNodeResponse()

    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesResponse:
        version = self._nodes.version
        nodes = [] if request.known_version == version else self._nodes.list_nodes()
        return pb.ListNodesResponse(nodes=nodes, version=version)

    async def ReportWorkerDeath(
        self, request: pb.ReportWorkerDeathRequest, context: Context
    ) -> pb.ReportWorkerDeathResponse:
        await self._endings.worker_died(request)
        return pb.ReportWorkerDeathResponse()
