"""JobService and FunctionService, typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from shoal._net.gcs.records import StartedJob
from shoal_common import function_chunks
from shoal_proto.v1 import common_pb2, gcs_pb2

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
        quota: Sequence[tuple[str, int]] = (),
    ) -> StartedJob:
        """Idempotent while the driver's job runs. ``namespace`` empty: one of its own. ``quota``: in grains, 0 =
        nothing of that; empty = the job may hold as much as there is."""
        request = gcs_pb2.StartJobRequest(
            driver_id=driver_id,
            node_id=node_id,
            namespace=namespace,
            pid=pid,
            entrypoint=entrypoint,
            metadata=metadata,
            quota=common_pb2.ResourceAmounts(grains=dict(quota)) if quota else None,
        )
        job: gcs_pb2.StartJobResponse = self._gcs.call("Job", "StartJob", request)
        return StartedJob(job.job_id, job.namespace, job.cluster_id, job.session_name)

    def hold_name(self, job_id: bytes, name: str, host: str, keep_s: float, *, attach: bool) -> int:
        """The job holds this name from now on: which driver of the name it has, from 1. ``attach``: go on with what is
        kept there; ``keep_s``: so long it is kept without a driver. Idempotent.

        Raises: AlreadyExists (another driver holds the name; or it is kept, without ``attach``).
        """
        request = gcs_pb2.HoldJobNameRequest(
            job_id=job_id, name=name, host=host, keep_ms=round(keep_s * 1000), attach=attach
        )
        response: gcs_pb2.HoldJobNameResponse = self._gcs.call("Job", "HoldJobName", request)
        return response.generation

    def complete(self, job_id: bytes, timeout_s: float) -> None:
        """Nothing is to be kept under its name when its driver leaves. Idempotent."""
        self._gcs.call("Job", "CompleteJob", gcs_pb2.CompleteJobRequest(job_id=job_id), timeout_s)


class Functions:
    """See ``client`` for what all methods raise."""

    def __init__(self, gcs: Calling) -> None:
        self._gcs = gcs

    def put(self, job_id: bytes, function_id: bytes, data: bytes) -> None:
        """Idempotent: an id stands for the same bytes for ever."""
        chunks = function_chunks.split(data)
        if not chunks:
            self._put(job_id=job_id, function_id=function_id, data=data)
            return

        def put_chunk(number: int) -> None:
            self._put(job_id=job_id, function_id=function_id, data=chunks[number - 1], chunk=number)

        with ThreadPoolExecutor(function_chunks.AT_ONCE) as pool:
            for _ in pool.map(put_chunk, range(1, len(chunks) + 1)):
                pass
        self._put(job_id=job_id, function_id=function_id, chunks=len(chunks), size_bytes=len(data))

    def _put(self, **fields: Any) -> None:
        self._gcs.call("Function", "PutFunction", gcs_pb2.PutFunctionRequest(**fields))

    def get(self, function_id: bytes) -> bytes:
        """Raises: NotFound, DataLoss."""
        function = self._get(function_id=function_id)
        chunks = [self._get(function_id=function_id, chunk=number).data for number in range(1, function.chunks + 1)]
        return function_chunks.join(function_id, [function.data, *chunks], function.size_bytes)

    def _get(self, **fields: Any) -> gcs_pb2.GetFunctionResponse:
        response: gcs_pb2.GetFunctionResponse = self._gcs.call(
            "Function", "GetFunction", gcs_pb2.GetFunctionRequest(**fields)
        )
        return response
