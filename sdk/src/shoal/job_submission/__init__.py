"""Programs handed in to a cluster to be run there as jobs, as ``ray.job_submission`` has them."""

from shoal.job_submission.client import JobSubmissionClient
from shoal.job_submission.details import DriverInfo, JobDetails, JobErrorType, JobInfo, JobStatus, JobType

__all__ = ["DriverInfo", "JobDetails", "JobErrorType", "JobInfo", "JobStatus", "JobSubmissionClient", "JobType"]
