"""Between protobuf and the types that the jobs' pure module speaks."""

from __future__ import annotations

from shoal_common.ids import JobID
from shoal_gcs.jobs.table import Job
from shoal_proto.v1 import gcs_pb2


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
    )
