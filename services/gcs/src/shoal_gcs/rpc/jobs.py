"""JobService and FunctionService: protobuf in, protobuf out."""

from __future__ import annotations

from typing import Any

import grpc.aio

from shoal_gcs.endings import Endings
from shoal_gcs.jobs.functions import FunctionTable
from shoal_gcs.jobs.manager import JobManager
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


class JobServicer(rpc.JobServiceServicer):
    def __init__(self, jobs: JobManager, endings: Endings, cluster_id: str, session_name: str) -> None:
        self._jobs = jobs
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
        )
        return pb.StartJobResponse(
            job_id=job.job_id, namespace=job.namespace, cluster_id=self._cluster_id, session_name=self._session_name
        )

    async def FinishJob(self, request: pb.FinishJobRequest, context: Context) -> pb.FinishJobResponse:
        await self._endings.finish_job(request.job_id)
        return pb.FinishJobResponse()

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        return pb.ListJobsResponse(jobs=self._jobs.list_jobs())


class FunctionServicer(rpc.FunctionServiceServicer):
    def __init__(self, functions: FunctionTable) -> None:
        self._functions = functions

    async def PutFunction(self, request: pb.PutFunctionRequest, context: Context) -> pb.PutFunctionResponse:
        await self._functions.put(request.job_id, request.function_id, request.data)
        return pb.PutFunctionResponse()

    async def GetFunction(self, request: pb.GetFunctionRequest, context: Context) -> pb.GetFunctionResponse:
        return pb.GetFunctionResponse(data=await self._functions.get(request.function_id, request.wait_ms))
