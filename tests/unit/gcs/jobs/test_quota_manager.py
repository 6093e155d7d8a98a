"""With which job the actors and groups count that live on from earlier drivers of a named job."""

from __future__ import annotations

import asyncio

from shoal_common.ids import JobID, job_of_number
from shoal_common.placement.resources import ResourceSet
from shoal_gcs.jobs.quota_manager import QuotaManager
from shoal_gcs.jobs.table import JobTable
from shoal_gcs.nodes.table import NodeTable

ONE, TWO, NOTHING = ResourceSet.of({"CPU": 1}), ResourceSet.of({"CPU": 2}), ResourceSet()
CAP = {"CPU": 10_000}


class AllowanceRows:
    def delete(self, row_id: str) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class Jobs:
    """Of one name, each with its quota."""

    def __init__(self) -> None:
        self.table = JobTable(finished_kept=10)
        nodes = NodeTable(silence_s=1, checks=1, dead_kept=1)
        self.quotas = QuotaManager(rows=AllowanceRows(), nodes=nodes)  # type: ignore[arg-type]

    def attach(self, number: int, quota: dict[str, int] | None) -> JobID:
        job = self.table.start(bytes([number]) * 16, "space", 1, "", {}, 0, quota=quota)
        assert job.job_id == job_of_number(number)
        job.name = "nightly"
        self.quotas.begin(job)
        self.quotas.goes_on(job.job_id, self.table.earlier_of_name(job.job_id))
        return job.job_id


async def test_kept_actors_count_for_the_next_driver() -> None:
    jobs = Jobs()
    first = jobs.attach(1, CAP)
    assert jobs.quotas.take(first, b"kept", ONE)
    second = jobs.attach(2, CAP)
    assert not jobs.quotas.take(second, b"new", ONE) and jobs.quotas.is_waiting(second, b"new")
    jobs.quotas.holds(first, b"kept", NOTHING)  # its process has died
    assert jobs.quotas.take(second, b"new", ONE)
    assert not jobs.quotas.take(first, b"kept", ONE), "its restart counts, too"
    third = jobs.attach(3, {"CPU": 20_000})
    assert jobs.quotas.take(first, b"kept", ONE) and not jobs.quotas.take(third, b"newer", ONE)


async def test_those_of_a_driver_without_a_quota_count_for_one_that_has_one() -> None:
    jobs = Jobs()
    first = jobs.attach(1, None)
    assert jobs.quotas.take(first, b"kept", TWO)
    second = jobs.attach(2, CAP)
    assert not jobs.quotas.has_room(second, b"new", ONE), "they hold more than all of it, and stay"
    jobs.quotas.holds(first, b"kept", NOTHING)
    assert jobs.quotas.has_room(second, b"new", ONE)


async def test_when_the_next_driver_is_gone_they_count_as_before() -> None:
    jobs = Jobs()
    first = jobs.attach(1, CAP)
    assert jobs.quotas.take(first, b"kept", ONE)
    second = jobs.attach(2, None)
    assert jobs.quotas.take(first, b"other", ONE), "no limit"
    jobs.quotas.holds(first, b"other", NOTHING)
    jobs.quotas.job_unused(second)
    assert not jobs.quotas.take(first, b"other", ONE)


async def test_a_gcs_that_takes_over_learns_the_same() -> None:
    jobs = Jobs()
    first, second = jobs.attach(1, CAP), jobs.attach(2, CAP)
    after = Jobs()
    for job in jobs.table.all():
        after.quotas.begin(job)
    after.quotas.goes_on(second, jobs.table.earlier_of_name(second))
    after.quotas.holds(first, b"kept", ONE)  # as its row says
    assert not after.quotas.take(second, b"new", ONE)
