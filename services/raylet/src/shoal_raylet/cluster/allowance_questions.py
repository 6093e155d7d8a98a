"""How much jobs with a quota may hold on this node: asked of the GCS."""

from __future__ import annotations

import grpc.aio

from shoal_common.rpc.client import service_errors
from shoal_common.rpc.values import amounts, resource_set
from shoal_proto.v1 import gcs_pb2
from shoal_proto.v1.gcs_pb2_grpc import JobServiceStub
from shoal_raylet.actions import AskAllowance
from shoal_raylet.leases.allowances import AllowanceAnswer

_CALL_TIMEOUT_S = 10.0


class AllowanceQuestions:
    def __init__(self, gcs: grpc.aio.Channel, node_id: bytes, incarnation: int) -> None:
        self._jobs = JobServiceStub(gcs)
        self._node_id = node_id
        self._incarnation = incarnation

    async def ask(self, question: AskAllowance) -> AllowanceAnswer:
        """Raises: ServiceError; NotFound when the job is over."""
        request = gcs_pb2.AskAllowanceRequest(
            job_id=question.job_id,
            node_id=self._node_id,
            incarnation=self._incarnation,
            number=question.number,
            keeps=amounts(question.keeps),
            wants=map(amounts, question.wants),
        )
        with service_errors():
            answer = await self._jobs.AskAllowance(request, timeout=_CALL_TIMEOUT_S)
        return AllowanceAnswer(
            resource_set(answer.granted),
            resource_set(answer.left),
            resource_set(answer.for_tasks),
            resource_set(answer.asked_back),
        )
