"""Carries out what `submissions` decides: rows, and an event for whoever shows or starts them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from shoal_common.bus import subjects
from shoal_common.errors import InvalidRequest
from shoal_common.states import SubmissionState
from shoal_gcs.config import GcsConfig
from shoal_gcs.events import EventPublisher
from shoal_gcs.jobs import messages
from shoal_gcs.jobs.submissions import ENDS, Changes, Submission, SubmissionTable
from shoal_gcs.store.rows import Rows, message, written
from shoal_proto.v1 import gcs_pb2 as pb

#: Of a request: entrypoint, environment and metadata as JSON.
MAX_REQUEST_BYTES = 500_000
MAX_ID_LENGTH = 256
MAX_MESSAGE_LENGTH = 20_000
PAGE = 1_000


class SubmissionManager:
    """All methods raise: Unavailable (the store does not take it), and what the table raises."""

    def __init__(self, config: GcsConfig, *, table: SubmissionTable, rows: Rows, publisher: EventPublisher) -> None:
        self._cluster_id = config.cluster_id
        self._table = table
        self._rows = rows
        self._publisher = publisher

    async def load(self) -> None:
        infos = await self._rows.load(message(pb.SubmissionInfo, lambda info: row_id(info.submission_id)))
        self._table.load(map(messages.submission_of_row, infos))

    async def submit(self, request: pb.SubmitJobRequest) -> Submission:
        """Raises: InvalidRequest, AlreadyExists, ResourceExhausted."""
        if not 1 <= len(request.submission_id) <= MAX_ID_LENGTH or not request.submission_id.isprintable():
            raise InvalidRequest(f"a submission id has 1 to {MAX_ID_LENGTH} printable characters")
        if len(request.request) > MAX_REQUEST_BYTES:
            size = len(request.request)
            raise InvalidRequest(f"the submission has {size} bytes, more than {MAX_REQUEST_BYTES}: upload files")
        if request.max_restarts < -1:
            raise InvalidRequest("max_restarts is a number of restarts, or -1: for ever")
        new = Submission(
            submission_id=request.submission_id,
            request=request.request,
            submit_unix_ms=_unix_ms(),
            priority=request.priority,
            max_restarts=request.max_restarts,
            write_id=request.write_id,
        )
        await self._write(self._table.submit(new))
        return self._table[request.submission_id]

    async def begin(self, request: pb.BeginAttemptRequest) -> Submission:
        """Raises: NotFound."""
        exit_code = request.exit_code if request.HasField("exit_code") else None
        failure = request.failure[:MAX_MESSAGE_LENGTH]
        each = self._table[request.submission_id]
        await self._write(
            self._table.begin(
                request.submission_id,
                request.attempt_id,
                request.actor_id,
                request.node_id,
                failure,
                exit_code,
                _unix_ms(),
            )
        )
        return each

    async def finish(self, request: pb.EndSubmissionRequest) -> Submission:
        """Raises: NotFound, InvalidRequest."""
        state = SubmissionState(request.state) if request.state else None
        if state not in ENDS:
            raise InvalidRequest("a submission ends as STOPPED, SUCCEEDED or FAILED")
        exit_code = request.exit_code if request.HasField("exit_code") else None
        each = self._table[request.submission_id]
        text = request.message[:MAX_MESSAGE_LENGTH]
        await self._write(
            self._table.finish(
                request.submission_id, request.attempt_id, state, text, request.error_type, exit_code, _unix_ms()
            )
        )
        return each

    async def stop(self, submission_id: str) -> Submission:
        """Raises: NotFound."""
        each = self._table[submission_id]
        await self._write(self._table.stop(submission_id, _unix_ms()))
        return each

    async def delete(self, submission_id: str) -> None:
        """Raises: NotFound, PreconditionFailed."""
        await self._write(self._table.delete(submission_id))

    def get(self, submission_id: str) -> Submission:
        """Raises: NotFound."""
        return self._table[submission_id]

    def page(self, after: str, limit: int, *, living: bool) -> tuple[list[Submission], int]:
        """With how many there are. Raises: NotFound."""
        size = min(limit, PAGE) if limit > 0 else PAGE
        return self._table.page(after, size, living=living), self._table.count(living=living)

    def actor_died(self, actor_id: bytes, reason: str) -> None:
        """A detached one, for good."""
        self._begin_writing(self._table.actor_died(actor_id, reason, _unix_ms()))

    def end_orphans(self, is_alive: Callable[[bytes], bool]) -> None:
        """After the actors are loaded: an earlier GCS may not have ended what its supervisor's end ends."""
        for each in self._table.page("", len(self._table), living=True):
            if each.actor_id and not is_alive(each.actor_id):
                self.actor_died(each.actor_id, "it was gone when the GCS started anew")

    async def _write(self, changes: Changes) -> None:
        await written(self._begin_writing(changes))

    def _begin_writing(self, changes: Changes) -> list[asyncio.Future[None]]:
        saves = [self._rows.delete(row_id(submission_id)) for submission_id in changes.forgotten]
        for each in changes.written:
            info = messages.submission_info(each)

            def publish(data: bytes = info.SerializeToString(), submission_id: str = each.submission_id) -> None:
                self._publisher.publish(subjects.submission(self._cluster_id, row_id(submission_id)), data)

            saves.append(self._rows.put(row_id(each.submission_id), info.SerializeToString(), publish))
        return saves


def row_id(submission_id: str) -> str:
    """What keys and subjects can hold."""
    return submission_id.encode().hex()


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000
