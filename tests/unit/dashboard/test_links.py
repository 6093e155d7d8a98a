"""Relative addresses."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest

from shoal_dashboard.links import is_inside, root_of


@pytest.mark.parametrize("prefix", ["", "/clusters/a"])
@pytest.mark.parametrize("path", ["/", "/jobs", "/jobs/", "/jobs/01/logs", "/login"])
def test_the_root_is_found_from_everywhere_behind_any_path(prefix: str, path: str) -> None:
    assert urljoin(f"http://host{prefix}{path}", root_of(path)) == f"http://host{prefix}/"


@pytest.mark.parametrize("address", ["/", "/jobs", "/jobs?state=RUNNING&q=a%20b"])
def test_addresses_of_ours(address: str) -> None:
    assert is_inside(address)


@pytest.mark.parametrize(
    "address", ["", "jobs", "//evil.example", "/\\evil.example", "https://evil.example", "/a\r\nb", "/\t/evil.example"]
)
def test_addresses_that_lead_elsewhere(address: str) -> None:
    assert not is_inside(address)
