"""NamedObjectService: protobuf in, protobuf out."""

from __future__ import annotations

from typing import Any

import grpc.aio

from shoal_gcs.named_objects.manager import NamedObjectManager
from shoal_gcs.named_objects.messages import object_info
from shoal_gcs.named_objects.table import Scope
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


class NamedObjectServicer(rpc.NamedObjectServiceServicer):
    def __init__(self, objects: NamedObjectManager) -> None:
        self._objects = objects

    async def PutNamedObject(self, request: pb.PutNamedObjectRequest, context: Context) -> pb.PutNamedObjectResponse:
        await self._objects.put(request.object, request.job_id, request.ttl_ms)
        return pb.PutNamedObjectResponse()

    async def GetNamedObject(self, request: pb.GetNamedObjectRequest, context: Context) -> pb.GetNamedObjectResponse:
        found = self._objects.get(Scope(request.namespace, request.job), request.name)
        return pb.GetNamedObjectResponse(object=object_info(found) if found is not None else None)

    async def ListNamedObjects(
        self, request: pb.ListNamedObjectsRequest, context: Context
    ) -> pb.ListNamedObjectsResponse:
        found = self._objects.of(Scope(request.namespace, request.job))
        return pb.ListNamedObjectsResponse(objects=map(object_info, found))
