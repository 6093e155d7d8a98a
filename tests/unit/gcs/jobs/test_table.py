"""Jobs come and go, their ids only go up."""

from __future__ import annotations

import itertools

from shoal_gcs.jobs.table import Job, JobTable

_drivers = itertools.count()


def start(jobs: JobTable, now: int = 1_000) -> Job:
    return jobs.start(b"driver %d" % next(_drivers), "space", 42, "python main.py", {"key": "value"}, now)


def test_a_driver_that_asks_again_gets_its_job() -> None:
    jobs = JobTable(finished_kept=10)
    job = jobs.start(b"driver", "space", 42, "python main.py", {}, 1_000)
    assert jobs.start(b"driver", "another", 42, "python main.py", {}, 2_000) is job
    jobs.finish(job.job_id, 3_000)
    assert jobs.start(b"driver", "space", 42, "python main.py", {}, 4_000) is not job


def test_ids_count_up_from_one_in_four_bytes() -> None:
    jobs = JobTable(finished_kept=10)
    assert [start(jobs).job_id for _ in range(3)] == [b"\0\0\0\1", b"\0\0\0\2", b"\0\0\0\3"]
    assert [job.job_id for job in jobs.all()] == [b"\0\0\0\1", b"\0\0\0\2", b"\0\0\0\3"]


def test_a_job_ends_once() -> None:
    jobs = JobTable(finished_kept=10)
    job_id = start(jobs).job_id
    assert jobs.is_running(job_id)
    assert jobs.finish(job_id, 2_000, "killed") is True
    assert jobs.finish(job_id, 3_000, "its node is gone") is False
    assert not jobs.is_running(job_id)
    assert (jobs[job_id].end_unix_ms, jobs[job_id].failure) == (2_000, "killed")
    assert jobs.finish(b"\0\0\0\\9", 2_000) is False


def test_ids_go_on_after_a_restart() -> None:
    old = JobTable(finished_kept=10)
    stored = [start(old) for _ in range(11)]
    new = JobTable(finished_kept=10)
    new.load(reversed(stored))
    assert [job.job_id for job in new.all()] == [job.job_id for job in stored]
    assert start(new).job_id == b"\0\0\0\x0c"


def test_the_id_of_a_job_of_which_nothing_else_is_known_is_not_given_again() -> None:
    jobs = JobTable(finished_kept=10)
    jobs.load([start(jobs)], {"00000002", "00000003", "ffffffff", "something else"})
    assert start(jobs).job_id == b"\0\0\0\4"


def test_the_oldest_finished_jobs_are_forgotten_but_those_in_use() -> None:
    jobs = JobTable(finished_kept=1)
    ids = [start(jobs).job_id for _ in range(5)]
    for job_id in ids[:4]:
        jobs.finish(job_id, 2_000)
    forgotten = jobs.forget_excess(lambda job_id: job_id == ids[1])
    assert [job.job_id for job in forgotten] == [ids[0], ids[2]]
    assert [job.job_id for job in jobs.all()] == [ids[1], ids[3], ids[4]]


def test_the_newest_job_is_always_remembered() -> None:
    jobs = JobTable(finished_kept=0)
    for _ in range(3):
        jobs.finish(start(jobs).job_id, 2_000)
    jobs.forget_excess(lambda _: False)
    assert [job.job_id for job in jobs.all()] == [b"\0\0\0\3"]
