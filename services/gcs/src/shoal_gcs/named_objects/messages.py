"""Between protobuf and the types that the table of named objects speaks."""

from __future__ import annotations

import hashlib

from shoal_gcs.named_objects.table import NamedObject, Scope
from shoal_proto.v1 import gcs_pb2 as pb


def row_id_of(info: pb.NamedObjectInfo) -> str:
    """Names may hold whatever keys cannot."""
    return hashlib.sha256("\0".join((info.namespace, info.job, info.name)).encode()).hexdigest()


def object_of_row(info: pb.NamedObjectInfo) -> NamedObject:
    return NamedObject(
        scope=Scope(info.namespace, info.job),
        name=info.name,
        place=info.place,
        size_bytes=info.size_bytes,
        stored_unix_ms=info.stored_unix_ms,
        end_unix_ms=info.end_unix_ms,
    )


def object_info(each: NamedObject) -> pb.NamedObjectInfo:
    return pb.NamedObjectInfo(
        namespace=each.scope.namespace,
        job=each.scope.job,
        name=each.name,
        place=each.place,
        size_bytes=each.size_bytes,
        stored_unix_ms=each.stored_unix_ms,
        end_unix_ms=each.end_unix_ms,
    )
