"""JobService and FunctionService: protobuf in, protobuf out."""

from __future__ import annotations

from typing import Any

import grpc.aio

from shoal_gcs.endings import Endings
from shoal_gcs.jobs.functions import FunctionTable
from shoal_gcs.jobs.manager import JobManager
from shoal_gcs.jobs.named_job_manager import NamedJobManager
from shoal_gcs.jobs.quota_manager import QuotaManager
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


class JobServicer(rpc.JobServiceServicer):
    def __init__(
        self,
        jobs: JobManager,
        quotas: QuotaManager,
        names: NamedJobManager,
        endings: Endings,
        cluster_id: str,
        session_name: str,
    ) -> None:
        self._jobs = jobs
        self._quotas = quotas
        self._names = names
        self._endings = endings
        self._cluster_id = cluster_id
        self._session_name = session_name

    async def StartJob(self, request: pb.StartJobRequest, context: Context) -> pb.StartJobResponse:
        job = await self._jobs.start(
            request.driver_id,
            request.namespace,
            request.pid,
            request.entrypoint,
            request.metadata,
            request.node_id,
            request.quota.grains if request.HasField("quota") else None,
        )
        return pb.StartJobResponse(
            job_id=job.job_id, namespace=job.namespace, cluster_id=self._cluster_id, session_name=self._session_name
        )

    async def HoldJobName(self, request: pb.HoldJobNameRequest, context: Context) -> pb.HoldJobNameResponse:
        generation = await self._jobs.hold_name(
            request.job_id, request.name, request.host, request.keep_ms, attach=request.attach
        )
        return pb.HoldJobNameResponse(generation=generation)

    async def CompleteJob(self, request: pb.CompleteJobRequest, context: Context) -> pb.CompleteJobResponse:
        await self._names.complete(request.job_id)
        return pb.CompleteJobResponse()

    async def FinishJob(self, request: pb.FinishJobRequest, context: Context) -> pb.FinishJobResponse:
        await self._endings.finish_job(request.job_id, request.failure)
        return pb.FinishJobResponse()

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        return pb.ListJobsResponse(jobs=self._jobs.list_jobs())

    async def AskAllowance(self, request: pb.AskAllowanceRequest, context: Context) -> pb.AskAllowanceResponse:
        return await self._quotas.ask(request)


class FunctionServicer(rpc.FunctionServiceServicer):
    def __init__(self, functions: FunctionTable) -> None:
        self._functions = functions

    async def PutFunction(self, request: pb.PutFunctionRequest, context: Context) -> pb.PutFunctionResponse:
        if request.chunk:
            await self._functions.put_chunk(request.job_id, request.function_id, request.chunk, request.data)
        else:
            size = request.size_bytes if request.chunks else len(request.data)
            row = pb.FunctionRow(data=request.data, size_bytes=size, chunks=request.chunks)
            await self._functions.put(request.job_id, request.function_id, row)
        return pb.PutFunctionResponse()

    async def GetFunction(self, request: pb.GetFunctionRequest, context: Context) -> pb.GetFunctionResponse:
        if request.chunk:
            return pb.GetFunctionResponse(data=await self._functions.get_chunk(request.function_id, request.chunk))
        row = await self._functions.get(request.function_id, request.wait_ms)
        return pb.GetFunctionResponse(data=row.data, chunks=row.chunks, size_bytes=row.size_bytes)
