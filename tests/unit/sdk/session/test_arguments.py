"""What ``init`` refuses before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal._launch.node_resources import check_amounts
from shoal._session.arguments import SYSTEM_SETTINGS, directory_given, system_settings


def test_unknown_settings_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"object_timeout_milliseconds mean nothing to Shoal.*memory_usage_threshold"):
        system_settings({"object_timeout_milliseconds": 200, "store_full_grace_s": 1})
    with pytest.raises(ValueError, match="memory_usage_threshold must be between 0 and 1"):
        system_settings({"memory_usage_threshold": 2})
    assert system_settings({"store_full_grace_s": 3})["store_full_grace_s"] == 3.0
    assert set(system_settings({})) == set(SYSTEM_SETTINGS)


def test_directories_are_paths() -> None:
    assert [directory_given("x", value) for value in (None, "/a", Path("/a"))] == ["", "/a", "/a"]
    with pytest.raises(TypeError, match="x must be the path of a directory or None, not int"):
        directory_given("x", 3)


@pytest.mark.parametrize(
    ("resources", "store", "message"),
    [
        ({"": 1}, None, "must be a text that is not empty"),
        ({7: 1}, None, "must be a text that is not empty"),
        ({"x" * 5000: 1}, None, "at most 4096 bytes"),
        (None, 10**14, "more than the .* bytes of memory and swap that this machine has"),
        (None, 1, "the minimum allowed"),
    ],
)
def test_what_no_node_can_have(resources: dict[str, float] | None, store: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_amounts(None, None, resources, None, store, None)
