"""JobService and FunctionService, typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shoal._net.gcs.records import StartedJob
from shoal_proto.v1 import gcs_pb2

if TYPE_CHECKING:
    from shoal._net.gcs.calling import Calling


class Jobs:
    """See ``client`` for what all methods raise."""

    def __init__(self, gcs: Calling) -> None:
        self._gcs = gcs

    def start(
        self,
        *,
        driver_id: bytes,
        node_id: bytes,
        namespace: str,
        pid: int,
        entrypoint: str,
        metadata: Mapping[str, str],
    ) -> StartedJob:
        """Idempotent while the driver's job runs. ``namespace`` empty: one of its own."""
        request = gcs_pb2.StartJobRequest(
            driver_id=driver_id,
            node_id=node_id,
            namespace=namespace,
            pid=pid,
            entrypoint=entrypoint,
            metadata=metadata,
        )
        job: gcs_pb2.StartJobResponse = self._gcs.call("Job", "StartJob", request)
        return StartedJob(job.job_id, job.namespace, job.cluster_id, job.session_name)


class Functions:
    """See ``client`` for what all methods raise."""

    def __init__(self, gcs: Calling) -> None:
        self._gcs = gcs

    def put(self, job_id: bytes, function_id: bytes, data: bytes) -> None:
        """Idempotent: an id stands for the same bytes for ever."""
        request = gcs_pb2.PutFunctionRequest(job_id=job_id, function_id=function_id, data=data)
        self._gcs.call("Function", "PutFunction", request)

    def get(self, function_id: bytes) -> bytes:
        """Raises: NotFound."""
        request = gcs_pb2.GetFunctionRequest(function_id=function_id)
        response: gcs_pb2.GetFunctionResponse = self._gcs.call("Function", "GetFunction", request)
        return response.data
