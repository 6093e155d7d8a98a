"""NamedObjectService, typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal._net.gcs.records import NamedObjectRecord, Scope
from shoal_proto.v1 import gcs_pb2

if TYPE_CHECKING:
    from shoal._net.gcs.calling import Calling


class NamedObjects:
    """See ``client`` for what all methods raise."""

    def __init__(self, gcs: Calling) -> None:
        self._gcs = gcs

    def put(self, scope: Scope, name: str, place: str, size_bytes: int, job_id: bytes, ttl_s: float | None) -> None:
        """Name what is stored in ``place``, for ``ttl_s`` seconds; None = as long as its job is kept. Idempotent.

        Raises: RpcError that says why it is refused.
        """
        info = gcs_pb2.NamedObjectInfo(
            namespace=scope.namespace, job=scope.job, name=name, place=place, size_bytes=size_bytes
        )
        ttl_ms = max(1, round(ttl_s * 1000)) if ttl_s is not None else 0
        request = gcs_pb2.PutNamedObjectRequest(object=info, job_id=job_id, ttl_ms=ttl_ms)
        self._gcs.call("NamedObject", "PutNamedObject", request)

    def get(self, scope: Scope, name: str) -> NamedObjectRecord | None:
        """None = there is none."""
        request = gcs_pb2.GetNamedObjectRequest(namespace=scope.namespace, job=scope.job, name=name)
        response: gcs_pb2.GetNamedObjectResponse = self._gcs.call("NamedObject", "GetNamedObject", request)
        return _record(response.object) if response.HasField("object") else None

    def list(self, scope: Scope) -> list[NamedObjectRecord]:
        """By name."""
        request = gcs_pb2.ListNamedObjectsRequest(namespace=scope.namespace, job=scope.job)
        response: gcs_pb2.ListNamedObjectsResponse = self._gcs.call("NamedObject", "ListNamedObjects", request)
        return [_record(info) for info in response.objects]


def _record(info: gcs_pb2.NamedObjectInfo) -> NamedObjectRecord:
    return NamedObjectRecord(info.name, info.place, info.size_bytes, info.end_unix_ms)
