"""What the raylet tells the GCS: sent in order per subject, repeated while the GCS does not answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import grpc.aio
import structlog

from shoal_common.errors import NO_ANSWER, ServiceError
from shoal_common.rpc.client import retrying, service_errors
from shoal_common.rpc.retry import RetryPolicy
from shoal_common.rpc.values import worker_address_message, worker_exit_message
from shoal_proto.v1 import gcs_pb2
from shoal_proto.v1.gcs_pb2_grpc import ActorServiceStub, JobServiceStub, NodeServiceStub
from shoal_raylet.actions import ReportActorStarted
from shoal_raylet.leases.exit_reason import ExitReason
from shoal_raylet.leases.worker_pool import Worker

log = structlog.get_logger(__name__)

CALL_TIMEOUT_S = 10.0
#: About two minutes: a standby GCS takes over in seconds. After that the GCS finds the dead by itself.
_POLICY = RetryPolicy(attempts=40, initial_s=0.1, maximum_s=5.0)


class GcsReports:
    """Belongs to the event loop of ``channel``."""

    def __init__(self, channel: grpc.aio.Channel, node_id: bytes) -> None:
        self._nodes = NodeServiceStub(channel)
        self._actors = ActorServiceStub(channel)
        self._jobs = JobServiceStub(channel)
        self._node_id = node_id
        self._rng = random.Random()
        #: The newest report on each subject; the next one waits for it.
        self._last: dict[bytes, asyncio.Task[None]] = {}

    def actor_started(self, report: ReportActorStarted, worker: Worker | None) -> None:
        request = gcs_pb2.ReportActorStartedRequest(
            actor_id=report.actor_id,
            incarnation=report.incarnation,
            creation_error=report.creation_error,
            failure=report.failure,
            runtime_env_failed=report.environment_failed,
        )
        if worker is not None and worker.address is not None:
            request.pid = worker.pid
            request.address.CopyFrom(worker_address_message(worker.address))
        self._submit(report.actor_id, lambda: self._actors.ReportActorStarted(request, timeout=CALL_TIMEOUT_S))

    def worker_died(self, worker: Worker, reason: ExitReason) -> None:
        request = gcs_pb2.ReportWorkerDeathRequest(
            node_id=self._node_id,
            worker_id=worker.worker_id,
            actor_id=worker.actor_id,
            incarnation=worker.incarnation,
            exit=worker_exit_message(reason.kind, reason.detail),
        )
        subject = worker.actor_id or worker.worker_id
        self._submit(subject, lambda: self._nodes.ReportWorkerDeath(request, timeout=CALL_TIMEOUT_S))

    def job_finished(self, job_id: bytes, failure: str) -> None:
        """``failure``: of its driver; empty = it has ended as it should."""
        request = gcs_pb2.FinishJobRequest(job_id=job_id, failure=failure)
        self._submit(job_id, lambda: self._jobs.FinishJob(request, timeout=CALL_TIMEOUT_S))

    async def stop(self, timeout_s: float) -> None:
        """Reports under way have ``timeout_s`` to get through."""
        tasks = list(self._last.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _submit(self, subject: bytes, call: Callable[[], Awaitable[object]]) -> None:
        task = asyncio.create_task(self._send(self._last.get(subject), call))
        self._last[subject] = task

        def forget(done: asyncio.Task[None]) -> None:
            if self._last.get(subject) is done:
                del self._last[subject]

        task.add_done_callback(forget)

    async def _send(self, previous: asyncio.Task[None] | None, call: Callable[[], Awaitable[object]]) -> None:
        if previous is not None:
            await asyncio.wait([previous])

        async def once() -> None:
            with service_errors():
                await call()

        try:
            await retrying(once, _POLICY, on=NO_ANSWER, rng=self._rng)
        except NO_ANSWER as error:
            log.error("report_to_gcs_lost", reason=str(error))
        except ServiceError as error:
            log.error("report_refused_by_gcs", error=type(error).__name__, reason=str(error))
