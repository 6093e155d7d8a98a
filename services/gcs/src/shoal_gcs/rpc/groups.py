"""PlacementGroupService: protobuf in, protobuf out."""

from __future__ import annotations

from typing import Any

import grpc.aio

from shoal_gcs.groups.manager import PlacementGroupManager
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


class PlacementGroupServicer(rpc.PlacementGroupServiceServicer):
    def __init__(self, groups: PlacementGroupManager) -> None:
        self._groups = groups

    async def CreatePlacementGroup(
        self, request: pb.CreatePlacementGroupRequest, context: Context
    ) -> pb.CreatePlacementGroupResponse:
        await self._groups.create(request.group)
        return pb.CreatePlacementGroupResponse()

    async def WaitPlacementGroup(
        self, request: pb.WaitPlacementGroupRequest, context: Context
    ) -> pb.WaitPlacementGroupResponse:
        group = await self._groups.wait(request.group_id, request.known_version, request.wait_ms)
        return pb.WaitPlacementGroupResponse(group=group)

    async def GetNamedPlacementGroup(
        self, request: pb.GetNamedPlacementGroupRequest, context: Context
    ) -> pb.GetNamedPlacementGroupResponse:
        return pb.GetNamedPlacementGroupResponse(group=self._groups.get_named(request.name, request.namespace))

    async def ListPlacementGroups(
        self, request: pb.ListPlacementGroupsRequest, context: Context
    ) -> pb.ListPlacementGroupsResponse:
        return pb.ListPlacementGroupsResponse(groups=self._groups.list_groups())

    async def RemovePlacementGroup(
        self, request: pb.RemovePlacementGroupRequest, context: Context
    ) -> pb.RemovePlacementGroupResponse:
        await self._groups.remove(request.group_id)
        return pb.RemovePlacementGroupResponse()
