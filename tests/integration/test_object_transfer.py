"""Objects between real raylets."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.clusters import MIB, ProcessCluster
from support.store_client import StoreClient

KIB = 1024


@pytest.fixture(scope="module")
def cluster() -> Iterator[ProcessCluster]:
    with ProcessCluster() as cluster:
        for _ in range(3):
            cluster.add_node(cpus=1, store_bytes=64 * MIB)
        yield cluster


@pytest.fixture
def nodes(cluster: ProcessCluster) -> Iterator[list[StoreClient]]:
    """A process on each node."""
    clients = [StoreClient(node, cluster.token) for node in cluster.nodes]
    yield clients
    for client in clients:
        client.close()


def test_an_object_is_read_on_another_node(nodes: list[StoreClient]) -> None:
    here, there, third = nodes
    data = os.urandom(20 * MIB + 12345)
    object_id = here.put(data)
    assert there.get(object_id, here) == data
    assert there.get(object_id, here) == data, "the copy is there now"
    assert third.get(object_id, here) == data


def test_many_small_objects_at_once(nodes: list[StoreClient]) -> None:
    here, there, _ = nodes
    data = [os.urandom(150 * KIB) for _ in range(100)]
    ids = [here.put(each) for each in data]
    requests = [there.ask(object_id, here) for object_id in ids]
    assert [there.bytes_of(there.answer(request)) for request in requests] == data


def test_more_is_read_than_fits(nodes: list[StoreClient]) -> None:
    here, there, _ = nodes
    data = [os.urandom(10 * MIB) for _ in range(5)]
    for each in data:
        for _ in range(2):
            object_id = here.put(each)
            assert there.get(object_id, here) == each


def test_a_freed_object_is_lost_everywhere(nodes: list[StoreClient]) -> None:
    here, there, _ = nodes
    object_id = here.put(os.urandom(MIB))
    there.get(object_id, here)
    here.free(object_id)
    here.get(here.put(b"after it"))
    located = there.pin(object_id, here)
    while not located.error:
        there.unpin(object_id)
        located = there.pin(object_id, here)
    assert "ObjectLostError" in located.error
