"""The GCS's table of functions, as a node asks it for what its workers are to run."""

from __future__ import annotations

import asyncio

import grpc.aio

from shoal_common import function_chunks
from shoal_common.errors import DeadlineExceeded, Unavailable
from shoal_common.rpc.client import retrying, service_errors
from shoal_common.rpc.retry import RetryPolicy
from shoal_proto.v1 import gcs_pb2
from shoal_proto.v1.gcs_pb2_grpc import FunctionServiceStub

#: How long the GCS may hold an answer back until a function is there, in seconds.
FUNCTION_WAIT_S = 30.0


class FunctionTable:
    def __init__(self, gcs: grpc.aio.Channel) -> None:
        self._functions = FunctionServiceStub(gcs)

    async def fetch(self, function_id: bytes) -> bytes:
        """Waits for a GCS for as long as this node does without one (``rejoin_timeout_s``): it ends then, and the fetch
        with it. Raises: ServiceError when the GCS does not have it."""
        away = (Unavailable, DeadlineExceeded)
        return await retrying(lambda: self._ask(function_id), RetryPolicy(attempts=None), on=away)

    async def _ask(self, function_id: bytes) -> bytes:
        """Raises: ServiceError."""
        request = gcs_pb2.GetFunctionRequest(function_id=function_id, wait_ms=int(FUNCTION_WAIT_S * 1000))
        with service_errors():
            function = await self._functions.GetFunction(request, timeout=FUNCTION_WAIT_S + 5)
            chunks = [function.data]
            for first in range(1, function.chunks + 1, function_chunks.AT_ONCE):
                last = min(first + function_chunks.AT_ONCE - 1, function.chunks)
                requests = [
                    gcs_pb2.GetFunctionRequest(function_id=function_id, chunk=number)
                    for number in range(first, last + 1)
                ]
                chunks += [each.data for each in await asyncio.gather(*map(self._functions.GetFunction, requests))]
        return function_chunks.join(function_id, chunks, function.size_bytes)
