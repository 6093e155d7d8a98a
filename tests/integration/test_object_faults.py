"""Objects between real raylets that die, hang or leave."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.clusters import MIB, ProcessCluster, RayletProcess
from support.processes import eventually
from support.store_client import StoreClient

from shoal_common.channel import frames
from shoal_common.kinds import StoreErrorKind

#: The driver's job lives on whichever node; each process here is connected for a job that ends with it.
OTHER_JOB = b"job2"
OWNER = b"owner-elsewhere!"


class Started:
    """A cluster, and a process on each of its nodes."""

    def __init__(self, cluster: ProcessCluster) -> None:
        self.cluster = cluster
        self.processes: list[StoreClient] = []

    def nodes(self, count: int) -> list[tuple[RayletProcess, StoreClient]]:
        raylets = [self.cluster.add_node(cpus=1, wait=False) for _ in range(count)]
        for raylet in raylets:
            raylet.address()
        self.processes = [StoreClient(raylet, self.cluster.token, OTHER_JOB) for raylet in raylets]
        return list(zip(raylets, self.processes, strict=True))


@pytest.fixture
def cluster() -> Iterator[Started]:
    with ProcessCluster(gcs={"silence_s": 0.5, "checks": 1}) as cluster:
        started = Started(cluster)
        yield started
        for process in started.processes:
            process.close()


def test_a_source_that_dies_in_the_middle_is_replaced(cluster: Started) -> None:
    (_, home), (copier, copy), (_, third) = cluster.nodes(3)
    data = os.urandom(50 * MIB)
    object_id = home.put(data, owner=OWNER)
    assert copy.get(object_id, home) == data
    copier.stop()
    request = third.ask(object_id, home)
    # It owes its share of the chunks by now, or will in a moment.
    copier.kill()
    assert third.bytes_of(third.answer(request)) == data


def test_a_source_that_hangs_is_given_up(cluster: Started) -> None:
    (_, home), (copier, copy), (_, third) = cluster.nodes(3)
    data = os.urandom(20 * MIB)
    object_id = home.put(data, owner=OWNER)
    assert copy.get(object_id, home) == data
    copier.stop()
    assert third.get(object_id, home) == data
    copier.resume()


def test_a_copy_outlives_the_home(cluster: Started) -> None:
    (node, home), (_, copy), (_, third) = cluster.nodes(3)
    data = [os.urandom(5 * MIB) for _ in range(3)]
    ids = [home.put(each, owner=OWNER) for each in data]
    assert [copy.get(object_id, home) for object_id in ids] == data
    node.stop()
    request = third.ask(ids[0], home)
    node.kill()
    assert third.bytes_of(third.answer(request)) == data[0]
    for object_id, each in zip(ids[1:], data[1:], strict=True):
        assert third.get(object_id, home) == each
    # It is a primary copy now: what comes later does not push it out.
    for _ in range(4):
        copy.put(os.urandom(20 * MIB))
    assert copy.get(ids[0], home) == data[0]


def test_a_spilled_object_is_restored_on_any_node_after_its_home_has_died(cluster: Started) -> None:
    (node, home), (_, other), (_, third) = cluster.nodes(3)
    data = [os.urandom(12 * MIB) for _ in range(8)]
    ids = [home.put(each, owner=OWNER) for each in data]
    assert third.get(ids[0], home) == data[0], "spilled, and its home lives"
    node.kill()
    assert other.get(ids[0], home) == data[0]
    assert third.get(ids[1], home) == data[1]


def test_what_was_only_on_a_dead_node_is_lost_and_says_so(cluster: Started) -> None:
    (node, home), (_, other) = cluster.nodes(2)
    object_id = home.put(os.urandom(MIB), owner=OWNER)
    node.kill()
    located = other.pin(object_id, home)
    assert located.error.kind is StoreErrorKind.OBJECT_LOST
    assert node.node_id in located.error.text
    assert "left the cluster" in located.error.text


def test_a_node_that_leaves_brings_its_objects_to_safety(cluster: Started) -> None:
    (node, home), (_, other), (_, third) = cluster.nodes(3)
    data = [os.urandom(10 * MIB) for _ in range(4)]
    ids = [home.put(each, owner=OWNER) for each in data]
    assert other.get(ids[0], home) == data[0]
    node.end()
    assert node.wait() == 0
    assert other.get(ids[0], home) == data[0]
    assert [third.get(object_id, home) for object_id in ids] == data


def test_a_node_that_leaves_waits_for_the_objectstore_service(cluster: Started) -> None:
    (node, home), (_, other) = cluster.nodes(2)
    data = [os.urandom(10 * MIB) for _ in range(4)]
    ids = [home.put(each, owner=OWNER) for each in data]
    with cluster.cluster.objectstore_away():
        node.terminate()
        eventually(lambda: "spill_failed" in node.text(), "it cannot spill")
    assert node.wait() == 0
    assert [other.get(object_id, home) for object_id in ids] == data


def test_blobs_of_a_node_that_has_left_go_with_their_last_object(cluster: Started) -> None:
    (node, home), (_, other) = cluster.nodes(2)
    ids = [home.put(os.urandom(4 * MIB), owner=OWNER) for _ in range(24)]
    home.free(*ids[::2])
    assert home.pin(ids[0]).error
    node.end()
    assert node.wait() == 0
    blobs = cluster.cluster.directory / "blobs"
    assert list(blobs.rglob("spill/*/*/*"))
    other.free_elsewhere(ids[1::2], home)
    eventually(lambda: not list(blobs.rglob("spill/*/*/*")), "the blobs are deleted")


def test_a_restore_waits_for_the_objectstore_service(cluster: Started) -> None:
    ((node, home),) = cluster.nodes(1)
    data = [os.urandom(12 * MIB) for _ in range(8)]
    ids = [home.put(each) for each in data]
    with cluster.cluster.objectstore_away():
        impatient, patient = home.ask(ids[0]), home.ask(ids[0])
        eventually(lambda: "restore_waits" in node.text(), "it cannot be read")
        home.send(frames.ObjectGetEnd(impatient, ids[0]))
        assert "its spilled copy cannot be read now" in home.answer(impatient).error.text
    assert home.bytes_of(home.answer(patient)) == data[0]


def test_what_nobody_needs_does_not_hold_a_leaving_node_up(cluster: Started) -> None:
    ((node, home),) = cluster.nodes(1)
    home.put(os.urandom(10 * MIB))
    node.end()
    assert node.wait() == 0
    assert not any((cluster.cluster.directory / "blobs").rglob("spill/*/*/*"))


def test_objects_of_a_dead_home_are_freed(cluster: Started) -> None:
    (node, home), (_, copy), (_, third) = cluster.nodes(3)
    data = [os.urandom(12 * MIB) for _ in range(8)]
    ids = [home.put(each, owner=OWNER) for each in data]
    assert copy.get(ids[-1], home) == data[-1]
    node.kill()
    assert third.get(ids[-1], home) == data[-1]
    blobs = cluster.cluster.directory / "blobs"
    assert list(blobs.rglob("spill/*/*/*"))
    third.free_elsewhere(ids, home)
    eventually(lambda: not list(blobs.rglob("spill/*/*/*")), "the blobs are deleted")
    eventually(lambda: copy.pin(ids[-1]).error, "the copy is dropped")
