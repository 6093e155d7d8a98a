"""Named jobs: which driver holds a name, and how long the name is kept when that driver is gone.

A name belongs to a namespace. It is *attached* while the job of a driver holds it. When that job ends the name is
*away*, and kept for as long as its driver has asked for, unless the driver has said that it is complete: then, or when
its time is up, the name is over, and with it all that was kept under it.

Pure: takes the time (Unix milliseconds), keeps no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from shoal_common.errors import AlreadyExists
from shoal_common.ids import JobID


class JobName(NamedTuple):
    namespace: str
    name: str


@dataclass(slots=True)
class NamedJob:
    name: JobName
    #: The job that holds it, or was the last to.
    job_id: JobID
    #: That job's driver, for humans.
    driver: str
    #: So long it is kept without a driver.
    keep_ms: int
    #: Counts the drivers that have held it, from 1.
    generation: int = 1
    #: Its driver has said that nothing is to be kept.
    complete: bool = False
    #: Since when it is without a driver; 0 = it is attached.
    away_unix_ms: int = 0

    @property
    def end_unix_ms(self) -> int | None:
        """When it is over; None = it is attached."""
        if not self.away_unix_ms:
            return None
        return self.away_unix_ms + (0 if self.complete else self.keep_ms)


class NamedJobTable:
    def __init__(self) -> None:
        self._by_name: dict[JobName, NamedJob] = {}
        self._by_job: dict[JobID, NamedJob] = {}

    def __contains__(self, name: JobName) -> bool:
        return name in self._by_name

    def __getitem__(self, name: JobName) -> NamedJob:
        return self._by_name[name]

    def of_job(self, job_id: bytes) -> NamedJob | None:
        """The name that it holds, or was the last to."""
        return self._by_job.get(JobID(job_id))

    def all(self) -> Collection[NamedJob]:
        return self._by_name.values()

    def load(self, named: Iterable[NamedJob]) -> None:
        for each in named:
            self._by_name[each.name] = self._by_job[each.job_id] = each

    def check(self, name: JobName, job_id: JobID, *, attach: bool) -> None:
        """Whether this job may hold the name now. Raises: AlreadyExists."""
        there = self._by_name.get(name)
        if there is None or there.job_id == job_id:
            return
        what = f"the job {name.name!r} of namespace {name.namespace!r}"
        if not there.away_unix_ms:
            raise AlreadyExists(f"{what} has a driver, {there.driver}: end that one first, or take another name")
        if not attach:
            raise AlreadyExists(
                f"{what} is kept for a driver that went away, {there.driver}: init(attach=True) goes on with it, and "
                "shutdown() ends it then, so that it can begin anew"
            )

    def hold(self, name: JobName, job_id: JobID, driver: str, keep_ms: int) -> NamedJob:
        """After ``check``. A repeat changes nothing."""
        there = self._by_name.get(name)
        if there is not None and there.job_id == job_id:
            return there
        generation = 1
        if there is not None:
            assert there.away_unix_ms, "it was checked"
            generation = there.generation + 1
            del self._by_job[there.job_id]
        held = NamedJob(name, job_id, driver, keep_ms, generation)
        self._by_name[name] = self._by_job[job_id] = held
        return held

    def completed(self, job_id: bytes) -> NamedJob | None:
        """Its driver ends on purpose. None = it holds no name."""
        held = self._by_job.get(JobID(job_id))
        if held is None or held.away_unix_ms:
            return None
        held.complete = True
        return held

    def left(self, job_id: bytes, now_unix_ms: int) -> NamedJob | None:
        """A job has ended. None = it holds no name."""
        held = self._by_job.get(JobID(job_id))
        if held is None or held.away_unix_ms:
            return None
        held.away_unix_ms = now_unix_ms
        return held

    def over(self, now_unix_ms: int) -> list[NamedJob]:
        """Those whose time is up; they are forgotten."""
        over = [each for each in self._by_name.values() if (each.end_unix_ms or now_unix_ms + 1) <= now_unix_ms]
        for each in over:
            del self._by_name[each.name]
            del self._by_job[each.job_id]
        return over

    def next_end_unix_ms(self) -> int | None:
        """When ``over`` has something to tell."""
        return min((end for each in self._by_name.values() if (end := each.end_unix_ms) is not None), default=None)

    def validate(self) -> None:
        """For tests: what is always true of it."""
        assert all(each.name == name for name, each in self._by_name.items())
        assert {each.job_id: each for each in self._by_name.values()} == self._by_job, "a job holds one name"
        assert all(each.generation >= 1 and each.keep_ms >= 0 for each in self._by_name.values())
