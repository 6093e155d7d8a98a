"""KvService, typed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal_proto.v1 import gcs_pb2

if TYPE_CHECKING:
    from shoal._net.gcs.calling import Calling

#: How much longer than a long poll its answer may take, in seconds.
_ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class KvWritten:
    """``version``: the new one, or where ``refused`` the one that is there; 0 = none."""

    version: int
    refused: bool


class Kv:
    """See ``client`` for what all methods raise; InvalidArgument for keys and values that are too large."""

    def __init__(self, gcs: Calling) -> None:
        self._gcs = gcs

    def get(self, namespace: str, key: str) -> tuple[bytes, int] | None:
        """Value and version."""
        return _entry(self._gcs.call("Kv", "GetKv", gcs_pb2.GetKvRequest(namespace=namespace, key=key)))

    def put(self, namespace: str, key: str, value: bytes, expected_version: int | None, ttl_s: float) -> KvWritten:
        request = gcs_pb2.PutKvRequest(
            namespace=namespace,
            key=key,
            value=value,
            expected_version=expected_version,
            ttl_ms=round(ttl_s * 1000),
            write_id=os.urandom(16),
        )
        response: gcs_pb2.PutKvResponse = self._gcs.call("Kv", "PutKv", request)
        return KvWritten(response.version, response.refused)

    def delete(self, namespace: str, key: str, expected_version: int | None) -> KvWritten:
        """``version`` 0: there was none."""
        request = gcs_pb2.DeleteKvRequest(namespace=namespace, key=key, expected_version=expected_version)
        response: gcs_pb2.DeleteKvResponse = self._gcs.call("Kv", "DeleteKv", request)
        return KvWritten(response.version, response.refused)

    def watch(self, namespace: str, key: str, known_version: int, wait_s: float) -> tuple[bytes, int] | None:
        """What is there once its version is not the known one (0 = nothing), or after ``wait_s`` (30 s at most)."""
        request = gcs_pb2.WatchKvRequest(
            namespace=namespace, key=key, known_version=known_version, wait_ms=round(wait_s * 1000)
        )
        return _entry(self._gcs.call("Kv", "WatchKv", request, wait_s + _ANSWER_S))


def _entry(response: gcs_pb2.GetKvResponse) -> tuple[bytes, int] | None:
    return (response.value, response.version) if response.version else None
