"""KvService: protobuf in, protobuf out."""

from __future__ import annotations

from typing import Any

import grpc.aio

from shoal_gcs.kv.manager import Found, KvManager
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


class KvServicer(rpc.KvServiceServicer):
    def __init__(self, kv: KvManager) -> None:
        self._kv = kv

    async def GetKv(self, request: pb.GetKvRequest, context: Context) -> pb.GetKvResponse:
        return _answer(await self._kv.get(request.namespace, request.key))

    async def PutKv(self, request: pb.PutKvRequest, context: Context) -> pb.PutKvResponse:
        done = await self._kv.put(
            request.namespace,
            request.key,
            request.value,
            request.expected_version if request.HasField("expected_version") else None,
            request.ttl_ms / 1000,
            request.write_id,
        )
        return pb.PutKvResponse(version=done.version, refused=done.refused)

    async def DeleteKv(self, request: pb.DeleteKvRequest, context: Context) -> pb.DeleteKvResponse:
        expected = request.expected_version if request.HasField("expected_version") else None
        done = await self._kv.delete(request.namespace, request.key, expected)
        return pb.DeleteKvResponse(version=done.version, refused=done.refused)

    async def WatchKv(self, request: pb.WatchKvRequest, context: Context) -> pb.GetKvResponse:
        found = await self._kv.watch(request.namespace, request.key, request.known_version, request.wait_ms / 1000)
        return _answer(found)


def _answer(found: Found | None) -> pb.GetKvResponse:
    return pb.GetKvResponse() if found is None else pb.GetKvResponse(value=found.value, version=found.version)
