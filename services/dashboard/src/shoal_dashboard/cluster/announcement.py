"""Tells the cluster where its dashboard is (`shoal_common.dashboard_place`), for as long as it runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import grpc.aio
import structlog

from shoal_common.dashboard_place import KEY, NAMESPACE, TTL_S
from shoal_common.errors import NO_ANSWER, ServiceError
from shoal_common.rpc.client import service_errors
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1.gcs_pb2_grpc import KvServiceStub

if TYPE_CHECKING:  # this class is in the stub file only
    from shoal_proto.v1.gcs_pb2_grpc import KvServiceAsyncStub

#: Between two tellings, in seconds, and before another try when the GCS did not answer.
_AGAIN_S = TTL_S / 3
_RETRY_S = 1.0
#: At the end the cluster may be gone already.
_WITHDRAW_DEADLINE_S = 1.0

_log = structlog.get_logger()


async def announce(channel: grpc.aio.Channel, url: str) -> None:
    """Until it is cancelled; then it is withdrawn, unless another one has announced itself meanwhile."""
    kv: KvServiceAsyncStub = KvServiceStub(channel)
    version, waits = 0, False
    try:
        while True:
            try:
                version = await _put(kv, url)
            except ServiceError as error:
                if not waits:
                    say = _log.info if isinstance(error, NO_ANSWER) else _log.error
                    say("cluster_away", error=str(error))
                waits = True
                await asyncio.sleep(_RETRY_S)
            else:
                if waits:
                    _log.info("cluster_found")
                waits = False
                await asyncio.sleep(_AGAIN_S)
    finally:
        if version:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await kv.DeleteKv(
                    pb.DeleteKvRequest(namespace=NAMESPACE, key=KEY, expected_version=version),
                    timeout=_WITHDRAW_DEADLINE_S,
                )


async def _put(kv: KvServiceAsyncStub, url: str) -> int:
    """The version of the entry. Raises: ServiceError."""
    request = pb.PutKvRequest(
        namespace=NAMESPACE, key=KEY, value=url.encode(), ttl_ms=round(TTL_S * 1000), write_id=os.urandom(16)
    )
    with service_errors():
        return (await kv.PutKv(request)).version
