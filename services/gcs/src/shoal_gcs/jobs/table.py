"""Jobs: the drivers that have come, and those that have gone.

Pure: takes the time (Unix milliseconds), keeps no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from shoal_common.ids import JobID, job_of_number, number_of_job
from shoal_common.service.story import Story, explained, noted


@dataclass(slots=True)
class Job:
    job_id: JobID
    #: The driver's worker id.
    driver_id: bytes
    namespace: str
    pid: int
    #: The driver's command, for humans.
    entrypoint: str
    start_unix_ms: int
    #: 0 = running.
    end_unix_ms: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: Of the driver's raylet; empty = not known.
    node_id: bytes = b""
    #: Its namespace was made for it, and nobody else knows it.
    anonymous: bool = False
    #: What it may hold at once, in grains; None = as much as there is.
    quota: Mapping[str, int] | None = None
    #: That it holds, or held (see ``named_jobs``); empty = none.
    name: str = ""
    #: Of its driver, which did not end as it should; empty = it did, or runs.
    failure: str = ""


class JobTable:
    """Job ids count up from 1 and are never given again: the newest job is always remembered, also after its end."""

    def __init__(self, *, finished_kept: int) -> None:
        self._finished_kept = max(finished_kept, 1)
        #: In the order of their ids.
        self._jobs: dict[JobID, Job] = {}
        self._last = 0
        #: Not given to anybody.
        self._damaged: frozenset[str] = frozenset()
        self._story = Story("the job table")

    def __getitem__(self, job_id: bytes) -> Job:
        return self._jobs[JobID(job_id)]

    def __contains__(self, job_id: bytes) -> bool:
        return job_id in self._jobs

    def is_running(self, job_id: bytes) -> bool:
        return job_id in self._jobs and self[job_id].end_unix_ms == 0

    def all(self) -> list[Job]:
        """In the order they began."""
        return list(self._jobs.values())

    def earlier_of_name(self, job_id: bytes) -> list[bytes]:
        """Those that have held the name that this one holds, or has held last."""
        job = self._jobs.get(JobID(job_id))
        if job is None or not job.name:
            return []
        name = (job.namespace, job.name)
        return [each.job_id for each in self._jobs.values() if (each.namespace, each.name) == name and each is not job]

    def load(self, jobs: Iterable[Job], damaged: Collection[str] = ()) -> None:
        """``damaged``: ids, in hexadecimal, of jobs of which nothing else is known."""
        for job in sorted(jobs, key=lambda job: job.job_id):
            self._jobs[job.job_id] = job
            self._last = number_of_job(job.job_id)
        self._damaged = frozenset(damaged)

    @noted
    def start(
        self,
        driver_id: bytes,
        namespace: str,
        pid: int,
        entrypoint: str,
        metadata: Mapping[str, str],
        now_unix_ms: int,
        node_id: bytes = b"",
        anonymous: bool = False,
        quota: Mapping[str, int] | None = None,
    ) -> Job:
        """A repeat by a driver whose job runs asks for nothing."""
        known = next((job for job in self._jobs.values() if job.driver_id == driver_id and not job.end_unix_ms), None)
        if known is not None:
            return known
        job_id = self._next_id()
        while job_id.hex() in self._damaged:
            job_id = self._next_id()
        job = Job(
            job_id,
            driver_id,
            namespace,
            pid,
            entrypoint,
            now_unix_ms,
            metadata=dict(metadata),
            node_id=node_id,
            anonymous=anonymous,
            quota=quota,
        )
        self._jobs[job_id] = job
        return job

    def _next_id(self) -> JobID:
        self._last += 1
        return job_of_number(self._last)

    @noted
    def finish(self, job_id: bytes, now_unix_ms: int, failure: str = "") -> bool:
        """``failure``: of its driver; empty = none. False = it had ended before, or is not known."""
        if not self.is_running(job_id):
            return False
        self[job_id].end_unix_ms, self[job_id].failure = now_unix_ms, failure
        return True

    def validate(self) -> None:
        """For tests: what is always true of it."""
        ids = [number_of_job(job_id) for job_id in self._jobs]
        assert ids == sorted(set(ids)) and max(ids, default=self._last) == self._last
        assert all(job.job_id == job_id for job_id, job in self._jobs.items())
        drivers = [job.driver_id for job in self._jobs.values() if not job.end_unix_ms]
        assert len(drivers) == len(set(drivers)), "a driver has one job at a time"

    @explained
    def forget_excess(self, in_use: Callable[[bytes], bool]) -> list[Job]:
        """Forget the oldest finished jobs beyond the bound; those in use (by detached actors) stay."""
        finished = [job for job in self._jobs.values() if job.end_unix_ms]
        excess = max(0, len(finished) - self._finished_kept)
        forgotten = [job for job in finished[:excess] if not in_use(job.job_id)]
        for job in forgotten:
            del self._jobs[job.job_id]
        return forgotten
