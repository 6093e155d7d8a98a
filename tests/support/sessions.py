"""Fixtures for tests whose process is a driver itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import shoal


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One cluster of two CPUs for the tests of a module."""
    with shoal.init(num_cpus=2, logging_level="ERROR", log_to_driver=False):
        yield


@pytest.fixture
def no_cluster() -> Iterator[None]:
    """For tests that call ``init`` themselves."""
    shoal.shutdown()
    yield
    shoal.shutdown()
