from __future__ import annotations

from shoal_common import ids


def test_an_object_names_its_task_and_its_job() -> None:
    job = ids.JobID(b"\0\0\0\7")
    task = ids.TaskIDs(job).next()
    first, second = ids.object_of_task(task, 0), ids.object_of_task(task, 1)
    assert first != second
    assert ids.task_of_object(first) == task
    assert ids.job_of(task) == ids.job_of(first) == job
    assert ids.object_of_task(task, 0) == first


def test_lengths_are_as_documented() -> None:
    job = ids.JobID(b"\0\0\0\7")
    task = ids.TaskIDs(job).next()
    assert len(task) == ids.TASK_LENGTH
    assert len(ids.object_of_task(task, 3)) == ids.OBJECT_LENGTH
    assert len(ids.new_actor_id(job)) == ids.ACTOR_LENGTH


def test_an_actor_names_its_job() -> None:
    job = ids.JobID(b"abcd")
    assert ids.job_of_actor(ids.new_actor_id(job)) == job


def test_jobs_are_numbers() -> None:
    assert ids.number_of_job(ids.job_of_number(258)) == 258
    assert len(ids.job_of_number(1)) == ids.JOB_LENGTH


def test_nil_is_all_ones() -> None:
    assert ids.is_nil(ids.nil(ids.ACTOR_LENGTH))
    assert not ids.is_nil(bytes(ids.ACTOR_LENGTH))


def test_the_latest_task_is_known_until_another_is_made() -> None:
    made, other = ids.TaskIDs(ids.job_of_number(1)), ids.TaskIDs(ids.job_of_number(1))
    first, second, foreign = made.next(), made.next(), other.next()
    assert made.is_latest(second)
    assert not made.is_latest(second)  # one was used up
    assert not made.is_latest(first)
    assert not made.is_latest(foreign)


def test_two_processes_never_make_the_same_task_id() -> None:
    job = ids.JobID(b"abcd")
    one, other = ids.TaskIDs(job), ids.TaskIDs(job)
    made = {one.next() for _ in range(100)} | {other.next() for _ in range(100)}
    assert len(made) == 200
