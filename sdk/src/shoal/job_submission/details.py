"""What there is to know of a job, as the dashboard's REST tells it; the names and values are Ray's."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Self

#: Of the actors that run submitted jobs, one each.
NAMESPACE = "shoal-jobs"


class JobStatus(enum.StrEnum):
    """Of a job: it waits, it runs, or how it has ended."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    def is_terminal(self) -> bool:
        return self in (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)


class JobType(enum.StrEnum):
    #: Handed in by `JobSubmissionClient` or ``shoal job submit``.
    SUBMISSION = "SUBMISSION"
    #: Somebody has started the driver.
    DRIVER = "DRIVER"


class JobErrorType(enum.StrEnum):
    """Why a submitted job has failed."""

    #: Its runtime environment could not be made.
    RUNTIME_ENV_SETUP_FAILURE = "RUNTIME_ENV_SETUP_FAILURE"
    #: Its supervisor could not be made, for lack of a node that has what the job asks for, or otherwise.
    JOB_SUPERVISOR_ACTOR_START_FAILURE = "JOB_SUPERVISOR_ACTOR_START_FAILURE"
    JOB_SUPERVISOR_ACTOR_START_TIMEOUT = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
    JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE = "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE"
    #: Its supervisor was lost with its process or its node, once more than ``max_restarts``.
    JOB_SUPERVISOR_ACTOR_DIED = "JOB_SUPERVISOR_ACTOR_DIED"
    JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE = "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE"
    #: The program ended with another exit code than 0.
    JOB_ENTRYPOINT_COMMAND_ERROR = "JOB_ENTRYPOINT_COMMAND_ERROR"
    JOB_ENTRYPOINT_COMMAND_START_ERROR = "JOB_ENTRYPOINT_COMMAND_START_ERROR"


@dataclasses.dataclass(frozen=True)
class DriverInfo:
    """``id``: the job's, in hexadecimal. ``node_ip_address`` and ``pid`` of the driver's process."""

    id: str
    node_ip_address: str
    pid: str


@dataclasses.dataclass(frozen=True)
class JobDetails:
    """``job_id``: of the driver's job, None = it has not called ``init`` (yet). ``submission_id``: None for a job that
    was not handed in. ``start_time`` and ``end_time``: Unix milliseconds. ``message``: for humans, why it waits or how
    it ended. ``attempt``, ``max_restarts`` and ``priority`` are Shoal's own."""

    type: JobType
    status: JobStatus
    entrypoint: str
    job_id: str | None = None
    submission_id: str | None = None
    driver_info: DriverInfo | None = None
    message: str | None = None
    error_type: JobErrorType | None = None
    start_time: int | None = None
    end_time: int | None = None
    metadata: dict[str, str] | None = None
    runtime_env: dict[str, Any] | None = None
    driver_agent_http_address: str | None = None
    driver_node_id: str | None = None
    driver_exit_code: int | None = None
    attempt: int = 0
    max_restarts: int = 0
    priority: int = 0

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Fields that this version does not know are left out: the dashboard may be newer."""
        known = {field.name for field in dataclasses.fields(cls)}
        given = {name: value for name, value in document.items() if name in known}
        given["type"] = JobType(given["type"])
        given["status"] = JobStatus(given["status"])
        if given.get("error_type"):
            given["error_type"] = JobErrorType(given["error_type"])
        if given.get("driver_info"):
            driver = given["driver_info"]
            given["driver_info"] = DriverInfo(driver["id"], driver["node_ip_address"], driver["pid"])
        return cls(**given)


#: Ray has two names for it: what it keeps, and what it tells.
JobInfo = JobDetails
