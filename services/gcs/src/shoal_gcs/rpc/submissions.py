"""SubmissionService: protobuf in, protobuf out."""

from __future__ import annotations

from typing import Any

import grpc.aio

from shoal_gcs.jobs.messages import submission_info
from shoal_gcs.jobs.submission_manager import SubmissionManager
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[Any, Any]


class SubmissionServicer(rpc.SubmissionServiceServicer):
    def __init__(self, submissions: SubmissionManager) -> None:
        self._submissions = submissions

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Context) -> pb.SubmissionInfo:
        return submission_info(await self._submissions.submit(request))

    async def BeginAttempt(self, request: pb.BeginAttemptRequest, context: Context) -> pb.SubmissionInfo:
        return submission_info(await self._submissions.begin(request))

    async def EndSubmission(self, request: pb.EndSubmissionRequest, context: Context) -> pb.SubmissionInfo:
        return submission_info(await self._submissions.finish(request))

    async def StopSubmission(self, request: pb.StopSubmissionRequest, context: Context) -> pb.SubmissionInfo:
        return submission_info(await self._submissions.stop(request.submission_id))

    async def DeleteSubmission(
        self, request: pb.DeleteSubmissionRequest, context: Context
    ) -> pb.DeleteSubmissionResponse:
        await self._submissions.delete(request.submission_id)
        return pb.DeleteSubmissionResponse()

    async def GetSubmission(self, request: pb.GetSubmissionRequest, context: Context) -> pb.SubmissionInfo:
        return submission_info(self._submissions.get(request.submission_id))

    async def ListSubmissions(self, request: pb.ListSubmissionsRequest, context: Context) -> pb.ListSubmissionsResponse:
        found, total = self._submissions.page(request.after, request.limit, living=request.living)
        return pb.ListSubmissionsResponse(submissions=map(submission_info, found), total=total)
