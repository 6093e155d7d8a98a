"""Submitted jobs, as the dashboard serves them: what the GCS keeps of them, what they print, and that those which are
admitted get a supervisor. Any number of dashboards may do so at once: a supervisor is made once, by its name."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from shoal_common.errors import NotFound, ServiceError
from shoal_common.logs.job_logs import JobLog
from shoal_common.rpc.client import aio_channel, retrying, service_errors
from shoal_dashboard.cluster.cluster import Cluster
from shoal_dashboard.config import DashboardConfig
from shoal_dashboard.jobs.packages import Packages
from shoal_dashboard.jobs.request import JobRequest
from shoal_dashboard.jobs.starter import Starter
from shoal_proto.v1 import gcs_pb2 as pb
from shoal_proto.v1 import gcs_pb2_grpc as rpc

#: Of one call to the GCS, in seconds.
_DEADLINE_S = 10.0
#: What waits for a supervisor is looked for so often, in seconds: while there are jobs, and else.
_LOOK_EVERY_S, _LOOK_RARELY_S = 1.0, 5.0
_PAGE = 1_000
#: A job that was to be stopped and has not ended after so long loses its supervisor, in seconds: well above the
#: grace of its program.
_STOP_WITHIN_S = 30.0

_log = structlog.get_logger()


class Jobs:
    """Belongs to one event loop. All methods raise: Unavailable, DeadlineExceeded, and what is said."""

    def __init__(self, config: DashboardConfig, cluster: Cluster) -> None:
        self._config = config
        self._cluster = cluster
        self._channel = aio_channel(config.gcs_address, config.token, _DEADLINE_S, tls=config.tls)
        self._gcs = rpc.SubmissionServiceStub(self._channel)
        self._starter = Starter(config.driver_address or config.gcs_address, config.token, self._on_answer)
        self._news = asyncio.Event()
        #: When it was first seen that they are to be stopped, on the loop's clock.
        self._stopping: dict[str, float] = {}
        self._failures: set[asyncio.Task[None]] = set()
        self._looking = asyncio.create_task(self._look_forever())

    async def close(self) -> None:
        self._looking.cancel()
        await asyncio.wait([self._looking, *self._failures])
        await self._starter.stop()
        await self._channel.close()

    async def submit(self, request: JobRequest) -> pb.SubmissionInfo:
        """Raises: AlreadyExists, InvalidRequest, NotFound (a package that nobody has uploaded), ResourceExhausted."""
        packages = await self.packages()
        environment = dict(request.document.get("runtime_env", {}))
        if "working_dir" in environment:
            environment["working_dir"] = await packages.resolved(environment["working_dir"])
        if "py_modules" in environment:
            environment["py_modules"] = [await packages.resolved(each) for each in environment["py_modules"]]
        submission = pb.SubmitJobRequest(
            submission_id=request.submission_id,
            request=JobRequest("", 0, 0, {**request.document, "runtime_env": environment}).encoded(),
            priority=request.priority,
            max_restarts=request.max_restarts,
            write_id=os.urandom(16),
        )
        made: pb.SubmissionInfo = await self._ask("SubmitJob", submission)
        self._news.set()
        return made

    async def get(self, submission_id: str) -> pb.SubmissionInfo:
        """Raises: NotFound."""
        found: pb.SubmissionInfo = await self._ask(
            "GetSubmission", pb.GetSubmissionRequest(submission_id=submission_id)
        )
        return self._told(found)

    async def page(self, after: str = "", limit: int = _PAGE, *, living: bool = False) -> pb.ListSubmissionsResponse:
        """The newest first. Raises: NotFound, when ``after`` is gone."""
        request = pb.ListSubmissionsRequest(after=after, limit=limit, living=living)
        found: pb.ListSubmissionsResponse = await self._ask("ListSubmissions", request)
        for each in found.submissions:
            self._told(each)
        return found

    def _told(self, submission: pb.SubmissionInfo) -> pb.SubmissionInfo:
        """With what this dashboard knows of why it waits."""
        if self._starter.problem and submission.admitted and submission.state == pb.SUBMISSION_STATE_PENDING:
            submission.message = f"Job has not started yet: {self._starter.problem}"
        return submission

    async def all(self, *, living: bool = False) -> Sequence[pb.SubmissionInfo]:
        """The GCS keeps a bounded number of them."""
        found: list[pb.SubmissionInfo] = []
        while True:
            page = await self.page(found[-1].submission_id if found else "", living=living)
            found += page.submissions
            if len(page.submissions) < _PAGE:
                return found

    async def stop(self, submission_id: str) -> bool:
        """False = it had ended. Raises: NotFound."""
        before = await self.get(submission_id)
        if before.end_unix_ms:
            return False
        after: pb.SubmissionInfo = await self._ask(
            "StopSubmission", pb.StopSubmissionRequest(submission_id=submission_id)
        )
        if after.end_unix_ms and before.admitted:
            # Its supervisor may wait for resources for ever.
            await self._tell({"kill": submission_id})
        return True

    async def delete(self, submission_id: str) -> None:
        """With what it printed. Raises: NotFound, PreconditionFailed."""
        await self._ask("DeleteSubmission", pb.DeleteSubmissionRequest(submission_id=submission_id))
        await (await self.log(submission_id)).delete()

    async def log(self, submission_id: str) -> JobLog:
        return JobLog(await self._cluster.blobs(), submission_id)

    async def packages(self) -> Packages:
        return Packages(await self._cluster.blobs())

    # --- supervisors ---

    async def _look_forever(self) -> None:
        while True:
            living = 0
            try:
                living = await self._look()
            except ServiceError as error:
                _log.info("jobs_not_read", reason=str(error))
            self._news.clear()
            try:
                async with asyncio.timeout(_LOOK_EVERY_S if living else _LOOK_RARELY_S):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _look(self) -> int:
        """How many there are that have not ended."""
        living = await self.all(living=True)
        for each in living:
            waits = each.admitted and each.state == pb.SUBMISSION_STATE_PENDING
            if waits and not self._starter.rests and each.submission_id not in self._starter.making:
                await self._tell({"start": each.submission_id, "request": json.loads(each.request)})
        now = asyncio.get_running_loop().time()
        self._stopping = stopping_since(self._stopping, living, now)
        for submission_id, since in self._stopping.items():
            if now - since >= _STOP_WITHIN_S:
                await self._tell({"kill": submission_id})  # the GCS ends a job whose supervisor is gone
        return len(living)

    async def _tell(self, message: Mapping[str, Any]) -> None:
        try:
            await self._starter.send(message)
        except OSError as error:
            _log.warning("job_starter_not_told", reason=str(error))  # found again at the next look

    def _on_answer(self, answer: Mapping[str, Any]) -> None:
        if "failed" in answer:
            task = asyncio.create_task(self._fail(answer["failed"], answer["error_type"], answer["message"]))
            self._failures.add(task)
            task.add_done_callback(self._failures.discard)

    async def _fail(self, submission_id: str, kind: str, message: str) -> None:
        try:
            request = pb.EndSubmissionRequest(
                submission_id=submission_id,
                state=pb.SUBMISSION_STATE_FAILED,
                message=message,
                error_type=kind,
            )
            await self._ask("EndSubmission", request)
        except NotFound:
            return
        except ServiceError as error:
            _log.warning("job_not_ended", submission_id=submission_id, reason=str(error))

    # --- whom it asks ---

    async def _ask(self, method: str, request: Any) -> Any:
        async def once() -> Any:
            with service_errors():
                return await getattr(self._gcs, method)(request)

        return await retrying(once)


def stopping_since(before: Mapping[str, float], living: Sequence[pb.SubmissionInfo], now: float) -> dict[str, float]:
    """Those that are to be stopped and live, and since when that is known: ``before`` or ``now``. Pure."""
    return {each.submission_id: before.get(each.submission_id, now) for each in living if each.stop_requested}
