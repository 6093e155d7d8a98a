"""Named jobs: who holds a name, how long it is kept, when it is over."""

from __future__ import annotations

import random

import pytest
from support.walks import walks

from shoal_common.errors import AlreadyExists
from shoal_common.ids import JobID, job_of_number
from shoal_gcs.jobs.named_jobs import JobName, NamedJobTable

NIGHTLY = JobName("space", "nightly")
J1, J2, J3 = map(job_of_number, (1, 2, 3))


@pytest.fixture
def table() -> NamedJobTable:
    return NamedJobTable()


def hold(
    table: NamedJobTable, job_id: JobID, name: JobName = NIGHTLY, *, attach: bool = False, keep_ms: int = 100
) -> int:
    table.check(name, job_id, attach=attach)
    return table.hold(name, job_id, f"driver {job_id.hex()}", keep_ms).generation


def test_a_driver_goes_on_with_what_another_has_left(table: NamedJobTable) -> None:
    assert hold(table, J1, attach=True) == 1, "there is nothing yet, and it begins"
    assert hold(table, J1, attach=True) == 1, "asked again, as the answer may be lost"
    assert table.next_end_unix_ms() is None
    away = table.left(J1, 1_000)
    assert away is not None and away.end_unix_ms == table.next_end_unix_ms() == 1_100
    assert table.of_job(J1) is away and table.of_job(J2) is None
    assert table.left(J1, 1_050) is None, "its end is told once"
    assert table.over(1_099) == []
    assert hold(table, J2, attach=True) == 2
    assert table.next_end_unix_ms() is None
    assert table.of_job(J1) is None
    assert table.left(J1, 1_200) is None, "the first driver holds nothing any more"
    assert NIGHTLY in table
    table.validate()


def test_there_is_one_driver_at_a_time(table: NamedJobTable) -> None:
    hold(table, J1)
    for attach in (False, True):
        with pytest.raises(AlreadyExists, match=r"'nightly' of namespace 'space' has a driver, driver 00000001: end"):
            hold(table, J2, attach=attach)
    assert hold(table, J2, JobName("elsewhere", "nightly")) == 1


def test_what_is_kept_is_not_begun_anew_by_mistake(table: NamedJobTable) -> None:
    hold(table, J1)
    table.left(J1, 1_000)
    with pytest.raises(AlreadyExists, match=r"is kept for a driver that went away, driver 00000001: init\(attach=True"):
        hold(table, J2)


def test_its_time_is_up(table: NamedJobTable) -> None:
    hold(table, J1)
    hold(table, J2, JobName("space", "other"), keep_ms=0)
    table.left(J1, 1_000)
    assert table.left(J2, 1_000) is not None
    assert [each.name.name for each in table.over(1_000)] == ["other"], "nothing was to be kept"
    assert [each.name for each in table.over(1_100)] == [NIGHTLY]
    assert NIGHTLY not in table
    assert hold(table, J3) == 1
    table.validate()


def test_a_complete_job_is_over_with_its_driver(table: NamedJobTable) -> None:
    hold(table, J1)
    assert table.completed(J1) is not None
    assert table.over(10_000) == [], "its driver is still there"
    table.left(J1, 10_000)
    assert [each.name for each in table.over(10_000)] == [NIGHTLY]
    assert table.completed(J1) is None


def test_another_gcs_takes_over(table: NamedJobTable) -> None:
    hold(table, J1)
    table.left(J1, 1_000)
    later = NamedJobTable()
    later.load(table.all())
    later.validate()
    assert later.next_end_unix_ms() == 1_100
    assert hold(later, J2, attach=True) == 2


@walks(20)
def test_any_order(seed: int) -> None:
    rng = random.Random(seed)
    table = NamedJobTable()
    holders: dict[JobName, JobID] = {}
    ended: set[JobID] = set()
    names = [JobName("space", name) for name in "ab"]
    now = 1_000
    for step in range(1, 120):
        now += rng.randrange(40)
        for each in table.over(now):
            assert holders.pop(each.name) in ended
        match rng.randrange(3):
            case 0:
                name, job_id = rng.choice(names), job_of_number(step)
                try:
                    hold(table, job_id, name, attach=rng.random() < 0.7)
                    assert name not in holders or holders[name] in ended
                    holders[name] = job_id
                except AlreadyExists:
                    assert name in holders
            case 1 if holders:
                job_id = rng.choice(list(holders.values()))
                table.left(job_id, now)
                ended.add(job_id)
            case 2 if holders and rng.random() < 0.3:
                table.completed(rng.choice(list(holders.values())))
        table.validate()
        assert {each.name for each in table.all()} == holders.keys()
