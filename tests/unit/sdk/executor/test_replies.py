"""What a call with several return values is answered."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from shoal._executor.replies import _parts


def values_then(count: int, error: BaseException | None) -> Iterator[int]:
    yield from range(count)
    if error is not None:
        raise error


@pytest.mark.parametrize(
    "result", [[1, 2], (1, 2), {1: "a", 2: "b"}, iter([1, 2]), "12"], ids=lambda result: type(result).__name__
)
def test_as_many_as_were_promised(result: Any) -> None:
    parts, error = _parts(result, 2)
    assert len(parts) == 2
    assert error is None


@pytest.mark.parametrize("result", [[], [1], [1, 2, 3]], ids=repr)
def test_another_number_is_an_error_of_all(result: list[int]) -> None:
    with pytest.raises(ValueError, match=f"returned {len(result)} objects, but num_returns=2"):
        _parts(result, 2)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_iterator_that_raises_before_the_last_value(count: int) -> None:
    raised = KeyError("none left")
    assert _parts(values_then(count, raised), 3) == (list(range(count)), raised)


def test_iterator_that_raises_after_the_last_value_has_its_values() -> None:
    error = KeyError("too late")
    assert _parts(values_then(3, error), 3) == ([0, 1, 2], error)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_what_ends_the_process_or_the_task_is_not_kept(error: BaseException) -> None:
    with pytest.raises(type(error)):
        _parts(values_then(1, error), 3)


def test_iterator_that_ends_early() -> None:
    parts, error = _parts(values_then(1, None), 3)
    assert parts == [0]
    assert "returned 1 objects, but num_returns=3" in str(error)


def test_endless_iterator() -> None:
    with pytest.raises(ValueError, match="more than 2 objects"):
        _parts(itertools.count(), 2)


def test_what_cannot_be_iterated_over() -> None:
    with pytest.raises(TypeError, match="returned one value of type int, but num_returns=2"):
        _parts(1, 2)


def test_no_values_are_asked_for() -> None:
    assert _parts(None, 0) == ([], None)
