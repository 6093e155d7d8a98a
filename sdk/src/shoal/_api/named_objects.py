"""Values under names: `shoal.put(value, name=...)`, `shoal.get_object(name)`, and which there are."""

from __future__ import annotations

from typing import Any, TypeVar

from shoal import _current
from shoal._api.option_rules import key_problem
from shoal._core.object_ref import ObjectRef
from shoal._text import check_text
from shoal._values.numbers import MAX_KEPT_S, seconds

T = TypeVar("T")


def put_named(value: T, name: str, ttl_s: float | None) -> ObjectRef[T]:
    """As ``shoal.put``."""
    _check(name)
    if ttl_s is not None and not 0 < seconds(ttl_s, "ttl_s") <= MAX_KEPT_S:
        raise ValueError(f"ttl_s must be a number of seconds above 0, at most {MAX_KEPT_S:,}, or None, not {ttl_s!r}")
    return _current.connected().named_objects.put(name, value, ttl_s)


def find_named(name: str) -> ObjectRef[Any]:
    """As ``shoal.get_object``."""
    _check(name)
    return _current.connected().named_objects.get(name)


def list_named_objects() -> list[str]:
    """The names under which this job keeps objects, sorted: what was put there, and keys of calls that have ended.

    Raises: ValueError when the job has no name itself.
    """
    core = _current.connected()
    return [each.name for each in core.gcs.named_objects.list(core.named_objects.scope)]


def _check(name: str) -> None:
    """Raises: TypeError, ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"the name of an object is a string, not {type(name).__name__}")
    if problem := key_problem("The name of an object", name):
        raise ValueError(problem)
    check_text("the name of an object", name)
