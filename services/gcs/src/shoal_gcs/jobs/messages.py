"""Between protobuf and the types that the jobs' pure modules speak."""

from __future__ import annotations

import hashlib

from shoal_common.ids import JobID
from shoal_common.states import SubmissionState
from shoal_gcs.jobs.named_jobs import JobName, NamedJob
from shoal_gcs.jobs.submissions import Submission
from shoal_gcs.jobs.table import Job
from shoal_proto.v1 import common_pb2, gcs_pb2


def job_of_row(info: gcs_pb2.JobInfo) -> Job:
    return Job(
        job_id=JobID(info.job_id),
        driver_id=info.driver_id,
        namespace=info.namespace,
        pid=info.pid,
        entrypoint=info.entrypoint,
        start_unix_ms=info.start_unix_ms,
        end_unix_ms=info.end_unix_ms,
        metadata=dict(info.metadata),
        node_id=info.node_id,
        anonymous=info.anonymous_namespace,
        quota=dict(info.quota.grains) if info.HasField("quota") else None,
        name=info.name,
        failure=info.failure,
    )


def job_info(job: Job) -> gcs_pb2.JobInfo:
    return gcs_pb2.JobInfo(
        job_id=job.job_id,
        driver_id=job.driver_id,
        namespace=job.namespace,
        pid=job.pid,
        entrypoint=job.entrypoint,
        start_unix_ms=job.start_unix_ms,
        end_unix_ms=job.end_unix_ms,
        metadata=job.metadata,
        node_id=job.node_id,
        anonymous_namespace=job.anonymous,
        quota=common_pb2.ResourceAmounts(grains=job.quota) if job.quota is not None else None,
        name=job.name,
        failure=job.failure,
    )


def named_job_row_id(info: gcs_pb2.NamedJobInfo) -> str:
    """Names may hold whatever keys cannot."""
    return hashlib.sha256(f"{info.namespace}\0{info.name}".encode()).hexdigest()


def named_job_of_row(info: gcs_pb2.NamedJobInfo) -> NamedJob:
    return NamedJob(
        name=JobName(info.namespace, info.name),
        job_id=JobID(info.job_id),
        driver=info.driver,
        keep_ms=info.keep_ms,
        generation=info.generation,
        complete=info.complete,
        away_unix_ms=info.away_unix_ms,
    )


def named_job_info(each: NamedJob) -> gcs_pb2.NamedJobInfo:
    return gcs_pb2.NamedJobInfo(
        namespace=each.name.namespace,
        name=each.name.name,
        job_id=each.job_id,
        driver=each.driver,
        keep_ms=each.keep_ms,
        generation=each.generation,
        complete=each.complete,
        away_unix_ms=each.away_unix_ms,
    )


def submission_of_row(info: gcs_pb2.SubmissionInfo) -> Submission:
    return Submission(
        submission_id=info.submission_id,
        request=info.request,
        submit_unix_ms=info.submit_unix_ms,
        priority=info.priority,
        max_restarts=info.max_restarts,
        write_id=info.write_id,
        state=SubmissionState(info.state),
        admitted=info.admitted,
        stop_requested=info.stop_requested,
        attempt=info.attempt,
        attempt_id=info.attempt_id,
        actor_id=info.actor_id,
        node_id=info.node_id,
        message=info.message,
        error_type=info.error_type,
        exit_code=info.exit_code if info.exited else None,
        start_unix_ms=info.start_unix_ms,
        end_unix_ms=info.end_unix_ms,
    )


def submission_info(each: Submission) -> gcs_pb2.SubmissionInfo:
    return gcs_pb2.SubmissionInfo(
        submission_id=each.submission_id,
        request=each.request,
        submit_unix_ms=each.submit_unix_ms,
        priority=each.priority,
        max_restarts=each.max_restarts,
        write_id=each.write_id,
        state=gcs_pb2.SubmissionState.ValueType(each.state),
        admitted=each.admitted,
        stop_requested=each.stop_requested,
        attempt=each.attempt,
        attempt_id=each.attempt_id,
        actor_id=each.actor_id,
        node_id=each.node_id,
        message=each.message,
        error_type=each.error_type,
        exit_code=each.exit_code or 0,
        exited=each.exit_code is not None,
        start_unix_ms=each.start_unix_ms,
        end_unix_ms=each.end_unix_ms,
    )
