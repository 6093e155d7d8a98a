"""Named objects: what is kept under which name, how long, and how much of it."""

from __future__ import annotations

import random

import pytest
from support.walks import walks

from shoal_common.errors import ResourceExhausted
from shoal_gcs.named_objects.table import Changes, NamedObject, NamedObjectTable, Scope

JOB, OTHER, CACHE = Scope("space", "nightly"), Scope("space", "hourly"), Scope("", "")


def an_object(name: str, place: str, *, size: int = 10, end: int = 0, scope: Scope = JOB) -> NamedObject:
    return NamedObject(scope, name, place, size, 1_000, end)


@pytest.fixture
def table() -> NamedObjectTable:
    return NamedObjectTable(max_objects=3, max_bytes=100)


def places(objects: list[NamedObject]) -> list[str]:
    return [each.place for each in objects]


def test_it_is_found_by_its_name(table: NamedObjectTable) -> None:
    first = an_object("a", "p1")
    assert table.put(first) == Changes(written=[first])
    assert table.put(first) == Changes(), "asked again, as the answer may be lost"
    assert table.get(JOB, "a", 1_002) == first
    for scope, name in ((JOB, "b"), (OTHER, "a"), (CACHE, "a")):
        assert table.get(scope, name, 1_002) is None
    assert table.has_place("p1") and not table.has_place("p2")
    table.validate()


def test_the_last_one_of_a_name_counts(table: NamedObjectTable) -> None:
    first, second = an_object("a", "p1", end=2_000), an_object("a", "p2", size=100)
    table.put(first)
    assert table.put(second) == Changes(written=[second], replaced=[first])
    assert table.expire(3_000) == Changes(), "the end of what was replaced means nothing"
    assert table.get(JOB, "a", 3_000) == second
    table.validate()


def test_its_time_is_up_whatever_becomes_of_its_job(table: NamedObjectTable) -> None:
    table.put(an_object("with its job", "p1"))
    table.put(an_object("a while", "p2", end=1_500))
    assert places(table.job_over(JOB).gone) == ["p1"]
    assert table.get(JOB, "a while", 1_499) is not None
    assert table.get(JOB, "a while", 1_500) is None
    assert table.next_end_unix_ms() == 1_500
    assert places(table.expire(1_500).gone) == ["p2"]
    assert (table.scopes(), table.next_end_unix_ms()) == ([], None)
    table.validate()


def test_a_job_keeps_so_many_and_no_more(table: NamedObjectTable) -> None:
    for name in "abc":
        table.put(an_object(name, f"of {name}"))
    with pytest.raises(ResourceExhausted, match=r"the job 'nightly' keeps 3 named objects of 30 bytes, .* has 10"):
        table.put(an_object("d", "of d"))
    table.put(an_object("a", "of a again", size=80))
    with pytest.raises(ResourceExhausted):
        table.put(an_object("b", "of b again", size=11))
    assert table.get(JOB, "b", 1_000) == an_object("b", "of b"), "what was there stays"
    table.put(an_object("d", "of another", scope=OTHER))
    table.validate()


def test_the_cache_gives_up_what_ends_first(table: NamedObjectTable) -> None:
    for name, end in (("a", 3_000), ("b", 2_000), ("c", 4_000)):
        table.put(an_object(name, f"of {name}", end=end, scope=CACHE))
    assert places(table.put(an_object("d", "of d", end=1_500, scope=CACHE)).gone) == ["of b"]
    assert places(table.put(an_object("e", "of e", size=85, end=9_000, scope=CACHE)).gone) == ["of d", "of a"]
    with pytest.raises(ResourceExhausted, match=r"the cache has .* this one has 101"):
        table.put(an_object("f", "of f", size=101, end=9_000, scope=CACHE))
    table.validate()


@walks(20)
def test_any_order(seed: int) -> None:
    rng = random.Random(seed)
    table = NamedObjectTable(max_objects=5, max_bytes=200)
    blobs: set[str] = set()
    now = 1_000
    for step in range(400):
        now += rng.randrange(20)
        scope = rng.choice((JOB, OTHER, CACHE))
        match rng.randrange(8):
            case 0:
                changes = table.expire(now)
            case 1 if scope.job:
                changes = table.job_over(scope)
            case _:
                end = now + rng.randrange(1, 300) if not scope.job or rng.random() < 0.5 else 0
                name, size = rng.choice("abcdefgh"), rng.randrange(120)
                try:
                    changes = table.put(an_object(name, f"p{step}", size=size, end=end, scope=scope))
                except ResourceExhausted:
                    changes = Changes()
        blobs |= {each.place for each in changes.written}
        blobs -= {each.place for each in (*changes.gone, *changes.replaced)}
        table.validate()
        kept = {each.place for each_scope in table.scopes() for each in table.of(each_scope).values()}
        assert kept == blobs, "blobs are those of what has a name"
