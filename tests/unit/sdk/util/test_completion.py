"""Iterators over results: how much is awaited and submitted at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from shoal.util import as_completed, completion, map_unordered


class Fake:
    """Stands in for ``shoal`` and for a remote function; the newest refs are ready first."""

    def __init__(self) -> None:
        self.submitted: list[int] = []
        self.waits: list[tuple[int, int, dict[str, Any]]] = []

    def remote(self, item: int) -> int:
        self.submitted.append(item)
        return item

    def wait(self, refs: list[int], *, num_returns: int, **kwargs: Any) -> tuple[list[int], list[int]]:
        self.waits.append((len(refs), num_returns, kwargs))
        return refs[-num_returns:], refs[:-num_returns]

    def get(self, refs: list[int]) -> list[int]:
        return [-ref for ref in refs]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    monkeypatch.setattr(completion, "shoal", SimpleNamespace(wait=fake.wait, get=fake.get))
    return fake


def test_results_come_chunk_by_chunk(fake: Fake) -> None:
    assert list(as_completed(range(1, 6), chunk_size=2)) == [-4, -5, -2, -3, -1]  # type: ignore[arg-type]
    assert [(refs, wanted) for refs, wanted, _ in fake.waits] == [(5, 2), (3, 2), (1, 1)]


def test_refs_instead_of_values(fake: Fake) -> None:
    assert list(as_completed([1, 2], chunk_size=1, yield_obj_refs=True)) == [2, 1]  # type: ignore[list-item]


def test_callers_list_is_left_alone(fake: Fake) -> None:
    refs: Any = [1, 2, 3]
    list(as_completed(refs))
    assert refs == [1, 2, 3]


def test_other_keywords_go_to_wait(fake: Fake) -> None:
    list(as_completed([1], fetch_local=False))  # type: ignore[list-item]
    assert fake.waits[0][2] == {"fetch_local": False}


def test_tasks_in_flight_are_limited(fake: Fake) -> None:
    results = map_unordered(fake, range(1, 10), backpressure_size=3, chunk_size=1)  # type: ignore[arg-type]
    assert next(results) == -3
    assert fake.submitted == [1, 2, 3]
    assert sorted([-3, *results]) == list(range(-9, 0))
    assert max(refs for refs, _, _ in fake.waits) == 3


def test_no_limit(fake: Fake) -> None:
    results = map_unordered(fake, range(1, 201), backpressure_size=None)  # type: ignore[arg-type]
    next(results)
    assert len(fake.submitted) == 200


def test_items_are_taken_as_needed(fake: Fake) -> None:
    def endless() -> Any:
        item = 0
        while True:
            item += 1
            yield item

    results = map_unordered(fake, endless(), backpressure_size=2, chunk_size=1)  # type: ignore[arg-type]
    assert [next(results) for _ in range(3)] == [-2, -3, -4]


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [({"chunk_size": 0}, "chunk_size"), ({"num_returns": 1}, "num_returns"), ({"backpressure_size": 0}, "positive")],
)
def test_bad_arguments(fake: Fake, kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        next(map_unordered(fake, [1], **kwargs))  # type: ignore[arg-type]
    if "backpressure_size" not in kwargs:
        with pytest.raises(ValueError, match=text):
            next(as_completed([1], **kwargs))  # type: ignore[list-item]
