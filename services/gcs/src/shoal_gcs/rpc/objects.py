"""ObjectService: protobuf in, protobuf out."""

from __future__ import annotations

from typing import Any

import grpc.aio

from shoal_gcs.objects.manager import ObjectManager
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


class ObjectServicer(rpc.ObjectServiceServicer):
    def __init__(self, objects: ObjectManager) -> None:
        self._objects = objects

    async def ReportSpilled(self, request: pb.ReportSpilledRequest, context: Context) -> pb.ReportSpilledResponse:
        await self._objects.spilled(request)
        return pb.ReportSpilledResponse()

    async def ForgetSpilled(self, request: pb.ForgetSpilledRequest, context: Context) -> pb.ForgetSpilledResponse:
        await self._objects.forget_blob(request.key)
        return pb.ForgetSpilledResponse()

    async def ReportCopies(self, request: pb.ReportCopiesRequest, context: Context) -> pb.ReportCopiesResponse:
        return pb.ReportCopiesResponse(freed_object_ids=await self._objects.copies(request))

    async def LocateObject(self, request: pb.LocateObjectRequest, context: Context) -> pb.LocateObjectResponse:
        location = await self._objects.locate(request.object_id, request.wait_ms)
        return pb.LocateObjectResponse(
            node_id=location.node_id, blob_key=location.blob_key, offset=location.offset, size_bytes=location.size
        )

    async def FindLost(self, request: pb.FindLostRequest, context: Context) -> pb.FindLostResponse:
        return pb.FindLostResponse(object_ids=await self._objects.lost(request.object_ids, request.wait_ms))

    async def FreeObjects(self, request: pb.FreeObjectsRequest, context: Context) -> pb.FreeObjectsResponse:
        return await self._objects.free(request.object_ids)
