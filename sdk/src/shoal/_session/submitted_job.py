"""What a driver is told that runs as the program of a submitted job (`shoal.job_submission`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Of the program's environment: the job as JSON.
JOB_VARIABLE = "SHOAL_JOB"
#: Of the metadata of the driver's job.
SUBMISSION_KEY = "job_submission_id"


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    #: Of the driver's job; with the submission's id under ``SUBMISSION_KEY``.
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: The document of the environment that it runs in, which its tasks and actors inherit; "" = none.
    runtime_env: str = ""


def submitted_job(environ: Mapping[str, str]) -> SubmittedJob:
    """Nothing for a driver that somebody has started."""
    text = environ.get(JOB_VARIABLE, "")
    if not text:
        return SubmittedJob()
    job = json.loads(text)
    return SubmittedJob({**job["metadata"], SUBMISSION_KEY: job["submission_id"]}, job["runtime_env"])


def variable(submission_id: str, metadata: Mapping[str, str], runtime_env: str) -> str:
    """The value of ``JOB_VARIABLE``."""
    return json.dumps({"submission_id": submission_id, "metadata": dict(metadata), "runtime_env": runtime_env})
