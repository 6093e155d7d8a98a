"""A job as the REST interface tells it, Ray's ``JobDetails``: out of a submission and the drivers that it has started,
or of a driver that somebody started. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from shoal_common.states import SubmissionState
from shoal_proto.v1 import gcs_pb2 as pb

#: Of a driver's metadata, when it is the program of a submission.
SUBMISSION_KEY = "job_submission_id"
#: Of the process that makes supervisors.
INTERNAL_NAMESPACE = "shoal-jobs"


def drivers_by_submission(jobs: Iterable[pb.JobInfo]) -> dict[str, pb.JobInfo]:
    """The newest driver of each. ``jobs`` in the order they began."""
    return {job.metadata[SUBMISSION_KEY]: job for job in jobs if SUBMISSION_KEY in job.metadata}


def of_all(
    submissions: Iterable[pb.SubmissionInfo], jobs: Sequence[pb.JobInfo], addresses: Mapping[bytes, str]
) -> list[dict[str, Any]]:
    """The newest first; without what the dashboard itself runs. ``jobs`` in the order they began."""
    drivers = drivers_by_submission(jobs)
    found = [
        (each.submit_unix_ms, of_submission(each, drivers.get(each.submission_id), addresses)) for each in submissions
    ]
    found += [
        (job.start_unix_ms, of_driver(job, addresses))
        for job in jobs
        if drivers.get(job.metadata.get(SUBMISSION_KEY, "")) != job and job.namespace != INTERNAL_NAMESPACE
    ]
    return [details for _began, details in sorted(found, key=lambda each: -each[0])]


def of_submission(
    submission: pb.SubmissionInfo, driver: pb.JobInfo | None, addresses: Mapping[bytes, str]
) -> dict[str, Any]:
    """``addresses``: of the nodes, by id."""
    request = _told(submission.request)
    return {
        "type": "SUBMISSION",
        "job_id": driver.job_id.hex() if driver is not None else None,
        "submission_id": submission.submission_id,
        "driver_info": _driver(driver, addresses) if driver is not None else None,
        "status": SubmissionState(submission.state).name,
        "entrypoint": request["entrypoint"],
        "message": submission.message,
        "error_type": submission.error_type or None,
        "start_time": submission.start_unix_ms or submission.submit_unix_ms,
        "end_time": submission.end_unix_ms or None,
        "metadata": request.get("metadata") or {},
        "runtime_env": request.get("runtime_env") or {},
        "driver_agent_http_address": None,
        "driver_node_id": submission.node_id.hex() or None,
        "driver_exit_code": submission.exit_code if submission.exited else None,
        "attempt": submission.attempt,
        "max_restarts": submission.max_restarts,
        "priority": submission.priority,
    }


def of_driver(job: pb.JobInfo, addresses: Mapping[bytes, str]) -> dict[str, Any]:
    """Of one that nobody handed in. The code that it exited with nobody has collected."""
    return {
        "type": "DRIVER",
        "job_id": job.job_id.hex(),
        "submission_id": None,
        "driver_info": _driver(job, addresses),
        "status": _status(job).name,
        "entrypoint": job.entrypoint,
        "message": " ".join(filter(None, (_failure(job), _name(job)))) or None,
        "error_type": None,
        "start_time": job.start_unix_ms,
        "end_time": job.end_unix_ms or None,
        "metadata": dict(job.metadata),
        "runtime_env": {},
        "driver_agent_http_address": None,
        "driver_node_id": job.node_id.hex() or None,
        "driver_exit_code": None,
    }


def _told(request: bytes) -> dict[str, Any]:
    """With a ``?`` for what cannot be told as UTF-8, and numbers that JSON lacks as text: requests that were kept
    before such were refused must not break the list for everybody."""
    kept = json.loads(request, parse_constant=str)
    told: dict[str, Any] = json.loads(json.dumps(kept, ensure_ascii=False).encode("utf-8", "replace"))
    return told


def _status(job: pb.JobInfo) -> SubmissionState:
    if not job.end_unix_ms:
        return SubmissionState.RUNNING
    return SubmissionState.FAILED if job.failure else SubmissionState.SUCCEEDED


def _failure(job: pb.JobInfo) -> str:
    return f"The driver, pid {job.pid}, has failed: {job.failure}." if job.failure else ""


def _name(job: pb.JobInfo) -> str:
    """Empty = it has none."""
    if not job.name:
        return ""
    what = f"The job {job.name!r} of namespace {job.namespace!r}"
    if not job.end_unix_ms:
        return f"{what} is attached to this driver."
    if job.kept_until_unix_ms:
        until = datetime.fromtimestamp(job.kept_until_unix_ms / 1000, UTC)
        return f"{what} is away: what it has left is kept until {until:%Y-%m-%d %H:%M:%S} UTC."
    return f"{what} was attached to this driver."


def _driver(job: pb.JobInfo, addresses: Mapping[bytes, str]) -> dict[str, str]:
    return {"id": job.job_id.hex(), "node_ip_address": addresses.get(job.node_id, ""), "pid": str(job.pid)}
