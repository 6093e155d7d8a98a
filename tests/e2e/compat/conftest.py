from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e.compat.target import QUIET, ray

CLUSTER = {"num_cpus": 4, "resources": {"custom": 2}, "namespace": "compat"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One cluster for all tests of a module; they must leave its CPUs free."""
    ray.init(**CLUSTER, **QUIET)
    yield
    ray.shutdown()


@pytest.fixture
def no_cluster() -> Iterator[None]:
    """For tests that call ``init`` themselves."""
    ray.shutdown()
    yield
    ray.shutdown()
