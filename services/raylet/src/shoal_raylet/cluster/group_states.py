"""Whether placement groups have bundles by now, or never will have: asked of the GCS."""

from __future__ import annotations

import grpc.aio

from shoal_common.errors import NotFound
from shoal_common.rpc.client import service_errors
from shoal_proto.v1 import gcs_pb2
from shoal_proto.v1.gcs_pb2_grpc import PlacementGroupServiceStub

#: One long poll for a group that is not placed yet, in seconds.
POLL_S = 20.0
_UNPLACED = (gcs_pb2.PLACEMENT_GROUP_STATE_PENDING, gcs_pb2.PLACEMENT_GROUP_STATE_PREPARED)


class GroupStates:
    def __init__(self, gcs: grpc.aio.Channel) -> None:
        self._groups = PlacementGroupServiceStub(gcs)

    async def why_removed(self, group_id: bytes) -> str:
        """Answers when the group has bundles, or after ``POLL_S``: ""; or when it is removed: why.

        Raises: ServiceError.
        """
        try:
            group = await self._ask(group_id, known_version=0)
            if group.state in _UNPLACED:
                group = await self._ask(group_id, known_version=group.version)
        except NotFound as error:
            return str(error)
        if group.state == gcs_pb2.PLACEMENT_GROUP_STATE_REMOVED:
            return f"placement group {group_id.hex()} was removed: {group.removal_reason}"
        return ""

    async def _ask(self, group_id: bytes, known_version: int) -> gcs_pb2.PlacementGroupInfo:
        request = gcs_pb2.WaitPlacementGroupRequest(
            group_id=group_id, known_version=known_version, wait_ms=int(POLL_S * 1000)
        )
        with service_errors():
            response = await self._groups.WaitPlacementGroup(request, timeout=POLL_S + 5)
        return response.group
