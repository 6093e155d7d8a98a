"""What the GCS knows of objects: told of what is spilled and adopted, asked where a home has gone."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import grpc.aio

from shoal_common.errors import NO_ANSWER, NotFound
from shoal_common.rpc.client import retrying, service_errors
from shoal_common.rpc.retry import RetryPolicy
from shoal_proto.v1 import gcs_pb2
from shoal_proto.v1.gcs_pb2_grpc import ObjectServiceStub
from shoal_raylet.objects.entry import Entry

#: The GCS waits so long for reports of others before it says that an object is lost, in seconds.
LOCATE_WAIT_S = 10.0
_CALL_TIMEOUT_S = 10.0
#: Ids in one report at most.
_MAX_IDS = 10_000
#: A standby GCS takes over in seconds; what is not told by then is told again by whoever finds it missing.
_POLICY = RetryPolicy(attempts=15, initial_s=0.1, maximum_s=2.0)


class ObjectLocations:
    """Belongs to the event loop of ``channel``. All raise ServiceError when the GCS does not answer for a while."""

    def __init__(self, channel: grpc.aio.Channel, node_id: bytes) -> None:
        self._stub = ObjectServiceStub(channel)
        self._node_id = node_id
        self._rng = random.Random()

    async def spilled(self, key: str, entries: Sequence[Entry], nodes: Mapping[bytes, bytes]) -> None:
        """In one blob of this node; said again, others are not needed any more. ``nodes``: where owners are, as far as
        that is known here."""
        request = gcs_pb2.ReportSpilledRequest(job_id=entries[0].job_id, node_id=self._node_id, key=key)
        for entry in entries:
            request.objects.add(
                object_id=entry.object_id,
                owner_id=entry.owner,
                offset=entry.blob_offset,
                size_bytes=entry.size,
                owner_node_id=nodes.get(entry.owner, b""),
            )
        await self._call(partial(self._stub.ReportSpilled, request, timeout=_CALL_TIMEOUT_S))

    async def forget_blob(self, key: str) -> None:
        request = gcs_pb2.ForgetSpilledRequest(key=key)
        await self._call(partial(self._stub.ForgetSpilled, request, timeout=_CALL_TIMEOUT_S))

    async def copies(self, home: bytes, object_ids: Sequence[bytes]) -> list[bytes]:
        """This node's copies of what a home that is gone had; they are primary now. None: "I have looked".

        Returns those that nobody needs any more.
        """
        freed: list[bytes] = []
        for start in range(0, max(1, len(object_ids)), _MAX_IDS):
            request = gcs_pb2.ReportCopiesRequest(
                node_id=self._node_id,
                home_node_id=home,
                object_ids=object_ids[start : start + _MAX_IDS],
                more=start + _MAX_IDS < len(object_ids),
            )
            response = await self._call(partial(self._stub.ReportCopies, request, timeout=_CALL_TIMEOUT_S))
            freed += response.freed_object_ids
        return freed

    async def locate(self, object_id: bytes) -> gcs_pb2.LocateObjectResponse | None:
        """None = it is nowhere."""
        request = gcs_pb2.LocateObjectRequest(object_id=object_id, wait_ms=int(LOCATE_WAIT_S * 1000))
        try:
            with service_errors():
                return await self._stub.LocateObject(request, timeout=LOCATE_WAIT_S + _CALL_TIMEOUT_S)
        except NotFound:
            return None

    async def free(self, object_ids: Iterable[bytes]) -> gcs_pb2.FreeObjectsResponse:
        request = gcs_pb2.FreeObjectsRequest(object_ids=object_ids)
        call = partial(self._stub.FreeObjects, request, timeout=_CALL_TIMEOUT_S)
        response: gcs_pb2.FreeObjectsResponse = await self._call(call)
        return response

    async def _call(self, call: Callable[[], Awaitable[Any]]) -> Any:
        async def once() -> Any:
            with service_errors():
                return await call()

        return await retrying(once, _POLICY, on=NO_ANSWER, rng=self._rng)
