"""Requests that a browser makes because one of our own pages told it to."""

from __future__ import annotations

import pytest

from shoal_dashboard.security.origins import from_own_page

HOST = {"host": "cluster.example:8265"}


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        # Another name for us, known to the browser alone, does not make it another site's.
        ({"sec-fetch-site": "same-origin", "origin": "https://elsewhere.example"}, True),
        ({"origin": "http://cluster.example:8265"}, True),
        ({"origin": "http://Cluster.Example:8265"}, True),
        ({"origin": "http://cluster.example"}, False),
        ({"origin": "http://cluster.example:8265.evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "https://shoal.example", "x-forwarded-host": "shoal.example"}, True),
        ({}, False),
    ],
)
def test_whose_page_it_was(headers: dict[str, str], own: bool) -> None:
    assert from_own_page({**HOST, **headers}) is own
