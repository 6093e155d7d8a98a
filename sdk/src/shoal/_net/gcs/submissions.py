"""SubmissionService as a supervisor asks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal_common.states import SubmissionState
from shoal_proto.v1 import gcs_pb2

if TYPE_CHECKING:
    from shoal._net.gcs.calling import Calling


@dataclass(frozen=True, slots=True)
class SubmissionRecord:
    #: As it was handed in: JSON.
    request: bytes
    state: SubmissionState
    attempt: int
    stop_requested: bool


class Submissions:
    """See ``client`` for what all methods raise; NotFound for a submission that was deleted."""

    def __init__(self, gcs: Calling) -> None:
        self._gcs = gcs

    def get(self, submission_id: str) -> SubmissionRecord:
        request = gcs_pb2.GetSubmissionRequest(submission_id=submission_id)
        return _record(self._gcs.call("Submission", "GetSubmission", request))

    def begin(
        self,
        submission_id: str,
        attempt_id: bytes,
        *,
        actor_id: bytes,
        node_id: bytes,
        failure: str,
        exit_code: int | None,
    ) -> SubmissionRecord:
        """RUNNING: start the program. ``failure`` and ``exit_code``: of this supervisor's attempt before."""
        request = gcs_pb2.BeginAttemptRequest(
            submission_id=submission_id,
            attempt_id=attempt_id,
            actor_id=actor_id,
            node_id=node_id,
            failure=failure,
            exit_code=exit_code,
        )
        return _record(self._gcs.call("Submission", "BeginAttempt", request))

    def end(
        self, submission_id: str, attempt_id: bytes, state: SubmissionState, message: str, exit_code: int | None
    ) -> None:
        request = gcs_pb2.EndSubmissionRequest(
            submission_id=submission_id,
            attempt_id=attempt_id,
            state=gcs_pb2.SubmissionState.ValueType(state),
            message=message,
            exit_code=exit_code,
        )
        self._gcs.call("Submission", "EndSubmission", request)


def _record(info: gcs_pb2.SubmissionInfo) -> SubmissionRecord:
    return SubmissionRecord(info.request, SubmissionState(info.state), info.attempt, info.stop_requested)
