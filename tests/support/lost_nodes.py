"""A node for tests to lose, with everything on it, beside the driver's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.clusters import ProcessCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[ProcessCluster]:
    """Two nodes, the driver's with the resource ``home``, and one with ``there``, which each test replaces."""
    with ProcessCluster() as cluster:
        cluster.add_node(cpus=1, resources={"home": 10})
        _add_there(cluster)
        with cluster.connected():
            yield cluster


def lose_all(cluster: ProcessCluster) -> None:
    """Another node takes the place of the one that ends with everything on it."""
    victim = cluster.nodes[-1]
    _add_there(cluster)
    victim.kill()


def _add_there(cluster: ProcessCluster) -> None:
    cluster.add_node(cpus=2, resources={"there": 10})
