"""Objects between real raylets."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.clusters import MIB, ProcessCluster
from support.processes import eventually
from support.store_client import StoreClient, new_object_id

from shoal_common.kinds import StoreErrorKind

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


def test_all_nodes_ask_for_one_object_at_once(nodes: list[StoreClient]) -> None:
    here, *others = nodes
    data = os.urandom(40 * MIB)
    object_id = here.put(data)
    requests = [other.ask(object_id, here) for other in others]
    for other, request in zip(others, requests, strict=True):
        assert other.bytes_of(other.answer(request)) == data
        other.unpin(object_id)


def test_more_is_asked_for_at_once_than_fits(nodes: list[StoreClient]) -> None:
    """The arena holds six of them; the others come as files, or wait until there is room."""
    here, there, _ = nodes
    data = [os.urandom(10 * MIB) for _ in range(12)]
    ids = [here.put(each) for each in data]
    requests = [there.ask(object_id, here) for object_id in ids]
    for object_id, each, request in zip(ids, data, requests, strict=True):
        assert there.bytes_of(there.answer(request)) == each
        there.unpin(object_id)


def test_what_was_fetched_ahead_is_here_already(nodes: list[StoreClient]) -> None:
    here, there, _ = nodes
    data = [os.urandom(5 * MIB) for _ in range(3)]
    ids = [here.put(each) for each in data]
    there.prefetch(*ids, home=here)
    there.prefetch(*ids, home=here)
    assert [there.get(object_id, here) for object_id in ids] == data


def test_an_object_freed_while_it_is_read_elsewhere(nodes: list[StoreClient]) -> None:
    here, there, third = nodes
    for _ in range(5):
        object_id = here.put(os.urandom(30 * MIB))
        requests = [(other, other.ask(object_id, here)) for other in (there, third)]
        here.free(object_id)
        for other, request in requests:
            # Either it was here in time, or it is lost.
            located = other.answer(request)
            assert not located.error or located.error.kind is StoreErrorKind.OBJECT_LOST
            if not located.error:
                other.unpin(object_id)
    for each in nodes:
        eventually(lambda each=each: each.is_empty(), "all memory is free again")


def test_who_asks_before_it_is_written_waits(nodes: list[StoreClient]) -> None:
    here, there, _ = nodes
    object_id = new_object_id()
    place = here.create(object_id, 5 * MIB)
    request = there.ask(object_id, here)
    here.get(here.put(b"something else"))
    data = os.urandom(5 * MIB)
    here.write(object_id, place, data)
    assert there.bytes_of(there.answer(request)) == data


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
    assert located.error.kind is StoreErrorKind.OBJECT_LOST
