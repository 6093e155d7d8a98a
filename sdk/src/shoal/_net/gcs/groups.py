"""PlacementGroupService, typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shoal._net.gcs.errors import NotFound
from shoal._net.gcs.records import BundleRecord, GroupRecord, GroupSpec
from shoal_common.placement.labels import decode_selector, encode_selector
from shoal_common.rpc.values import amounts, resource_set
from shoal_common.states import GroupState, PlacementStrategy
from shoal_proto.v1 import gcs_pb2

if TYPE_CHECKING:
    from shoal._net.gcs.calling import Calling

#: How much longer than a long poll its answer may take, in seconds.
_ANSWER_S = 30.0


class Groups:
    """See ``client`` for what all methods raise."""

    def __init__(self, gcs: Calling) -> None:
        self._gcs = gcs

    def create(self, spec: GroupSpec) -> None:
        """Returns when the group is recorded; its bundles are reserved afterwards. Idempotent.

        Raises: AlreadyExists, InvalidArgument.
        """
        info = gcs_pb2.PlacementGroupInfo(
            group_id=spec.group_id,
            job_id=spec.job_id,
            owner_id=spec.owner_id,
            name=spec.name,
            namespace=spec.namespace,
            detached=spec.detached,
            strategy=gcs_pb2.PlacementStrategy.ValueType(spec.strategy),
            bundles=[
                gcs_pb2.BundleInfo(resources=amounts(bundle.resources), selector=encode_selector(bundle.selector))
                for bundle in spec.bundles
            ],
        )
        self._gcs.call("PlacementGroup", "CreatePlacementGroup", gcs_pb2.CreatePlacementGroupRequest(group=info))

    def wait(self, group_id: bytes, known_version: int = 0, wait_s: float = 0.0) -> GroupRecord | None:
        """Its state when that is newer than ``known_version``, or after ``wait_s`` (30 s at most); None = it is
        forgotten."""
        request = gcs_pb2.WaitPlacementGroupRequest(
            group_id=group_id, known_version=known_version, wait_ms=round(wait_s * 1000)
        )
        try:
            response: gcs_pb2.WaitPlacementGroupResponse = self._gcs.call(
                "PlacementGroup", "WaitPlacementGroup", request, wait_s + _ANSWER_S
            )
        except NotFound:
            return None
        return _record(response.group)

    def begin_wait(self, group_id: bytes, done: Callable[[GroupRecord | None, Exception | None], None]) -> None:
        """Its state now; returns at once. ``done`` is called in a thread of gRPC's; NotFound is an error."""

        def answered(response: gcs_pb2.WaitPlacementGroupResponse | None, error: Exception | None) -> None:
            done(None if response is None else _record(response.group), error)

        request = gcs_pb2.WaitPlacementGroupRequest(group_id=group_id)
        self._gcs.call_async("PlacementGroup", "WaitPlacementGroup", request, answered, timeout_s=_ANSWER_S)

    def named(self, name: str, namespace: str) -> GroupRecord:
        """Raises: NotFound."""
        request = gcs_pb2.GetNamedPlacementGroupRequest(name=name, namespace=namespace)
        response: gcs_pb2.GetNamedPlacementGroupResponse = self._gcs.call(
            "PlacementGroup", "GetNamedPlacementGroup", request
        )
        return _record(response.group)

    def list(self) -> list[GroupRecord]:
        """In the order of their creation; removed ones too, as far as the GCS remembers."""
        request = gcs_pb2.ListPlacementGroupsRequest()
        response: gcs_pb2.ListPlacementGroupsResponse = self._gcs.call("PlacementGroup", "ListPlacementGroups", request)
        return [_record(info) for info in response.groups]

    def remove(self, group_id: bytes) -> None:
        """Idempotent."""
        self._gcs.call("PlacementGroup", "RemovePlacementGroup", gcs_pb2.RemovePlacementGroupRequest(group_id=group_id))


def _record(info: gcs_pb2.PlacementGroupInfo) -> GroupRecord:
    return GroupRecord(
        group_id=info.group_id,
        name=info.name,
        strategy=PlacementStrategy(info.strategy),
        bundles=tuple(
            BundleRecord(resource_set(bundle.resources), decode_selector(bundle.selector), bundle.node_id)
            for bundle in info.bundles
        ),
        state=GroupState(info.state),
        version=info.version,
        waits_for_quota=info.waits_for_quota,
    )
