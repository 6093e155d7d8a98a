"""Whoever dies, nothing remains: neither on this machine nor, of a dead job, in what keeps a cluster's state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.clusters import ProcessCluster, ServiceProcess
from support.leftovers import adopting, nothing_left
from support.sessions import cluster, no_cluster

__all__ = ["cluster", "no_cluster"]


@pytest.fixture(scope="module", autouse=True)
def nothing_remains(temporary_directory: None) -> Iterator[None]:
    """With what the tests of a module share."""
    with pytest.MonkeyPatch.context() as patch, adopting(), nothing_left():
        patch.setattr(ProcessCluster, "looks_at_its_end", True)
        yield


@pytest.fixture(autouse=True)
def nothing_remains_of_a_test(nothing_remains: None) -> Iterator[None]:
    with nothing_left(shared=ServiceProcess.pids):
        yield
