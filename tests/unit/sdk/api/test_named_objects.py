"""Names of objects, and how long they are kept: what is refused before anybody is asked."""

from __future__ import annotations

from typing import Any

import pytest

from shoal._api.named_objects import find_named, put_named


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("", ValueError, "1 to 512 bytes"),
        ("a" * 513, ValueError, "1 to 512 bytes"),
        ("a" * 10_000, ValueError, "1 to 512 bytes"),
        ("\ud800", UnicodeEncodeError, "the name of an object must be valid Unicode"),
        (1, TypeError, "is a string"),
    ],
)
def test_names(name: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        put_named(1, name, None)
    with pytest.raises(error, match=message):
        find_named(name)


@pytest.mark.parametrize("ttl_s", [0, -1, float("inf"), 1e300, 10**400, 100 * 365 * 86_400 + 1])
def test_times(ttl_s: float) -> None:
    with pytest.raises(ValueError, match="ttl_s must be a number of seconds above 0, at most 3,153,600,000, or None"):
        put_named(1, "a", ttl_s)
