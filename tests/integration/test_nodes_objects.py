"""Large values on several nodes, as programs see them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from support.clusters import MIB, ProcessCluster
from support.processes import eventually

import shoal
from shoal import exceptions


@pytest.fixture(scope="module")
def cluster() -> Iterator[ProcessCluster]:
    """This process is a driver on the first of three nodes."""
    with ProcessCluster() as cluster:
        for name in ("first", "second", "third"):
            cluster.add_node(cpus=2, resources={name: 2})
        with cluster.connected():
            yield cluster


@shoal.remote(num_cpus=0)
def make(mib: int, fill: int) -> Any:
    return np.full(mib * MIB, fill, dtype=np.uint8)


@shoal.remote(num_cpus=0)
def total(*arrays: Any) -> int:
    return sum(int(array[0]) * array.nbytes for array in arrays) // MIB


@shoal.remote(num_cpus=0)
def total_of(refs: list[Any]) -> int:
    return sum(int(array[0]) * array.nbytes for array in shoal.get(refs)) // MIB


def on(node: str) -> dict[str, Any]:
    return {"resources": {node: 0.01}}


def test_results_come_from_where_they_were_made(cluster: ProcessCluster) -> None:
    refs = [make.options(**on(node)).remote(10, 3) for node in ("first", "second", "third")]
    for array in shoal.get(refs):
        assert array.nbytes == 10 * MIB
        assert (array == 3).all()
        assert not array.flags.writeable


def test_arguments_go_to_where_the_task_runs(cluster: ProcessCluster) -> None:
    mine = shoal.put(np.full(5 * MIB, 1, dtype=np.uint8))
    theirs = make.options(**on("second")).remote(5, 2)
    for node in ("first", "second", "third"):
        assert shoal.get(total.options(**on(node)).remote(mine, theirs)) == 15
        assert shoal.get(total_of.options(**on(node)).remote([mine, theirs])) == 15


def test_a_large_value_goes_along_as_an_argument(cluster: ProcessCluster) -> None:
    assert shoal.get(total.options(**on("third")).remote(np.full(7 * MIB, 1, dtype=np.uint8))) == 7


def test_more_than_all_stores_hold_passes_through(cluster: ProcessCluster) -> None:
    """Each node's arena has 64 MiB."""
    for _ in range(3):
        made = [make.options(**on("second")).remote(10, 1) for _ in range(10)]
        sums = [total.options(**on("third")).remote(ref) for ref in made]
        assert shoal.get(sums, timeout=120) == [10] * 10
        assert sum(int(array[0]) for array in map(shoal.get, made)) == 10


def test_what_nobody_refers_to_any_more_goes_everywhere(cluster: ProcessCluster) -> None:
    ref = make.options(**on("second")).remote(10, 1)
    assert shoal.get(total.options(**on("third")).remote(ref)) == 10
    assert shoal.get(ref).nbytes == 10 * MIB
    del ref
    eventually(lambda: store_use() == 0, "the stores are empty")


def test_threads_that_read_an_object_at_the_same_time_all_let_go_of_it(cluster: ProcessCluster) -> None:
    refs = [shoal.put(np.zeros(MIB)) for _ in range(4)]
    together = threading.Barrier(4)

    def read() -> None:
        for ref in refs:
            together.wait(60)
            shoal.get(ref)

    with ThreadPoolExecutor(4) as threads:
        for reading in [threads.submit(read) for _ in range(4)]:
            reading.result(60)
    refs.clear()
    eventually(lambda: store_use() == 0, "the stores are empty")


def store_use() -> float:
    """Bytes used in the stores of all nodes."""
    total, free = shoal.cluster_resources(), shoal.available_resources()
    return total["object_store_memory"] - free["object_store_memory"]


@shoal.remote(num_cpus=0)
def make_later(mib: int, seconds: float) -> Any:
    time.sleep(seconds)
    return np.full(mib * MIB, 1, dtype=np.uint8)


def test_a_node_that_is_stopped_finishes_its_tasks_and_leaves_its_objects(cluster: ProcessCluster) -> None:
    node = cluster.add_node(cpus=2, resources={"leaving": 1})
    here = on("leaving")
    made = [make.options(**here, max_retries=0).remote(10, fill) for fill in (1, 2)]
    assert shoal.get(total.options(**on("third")).remote(made[0])) == 10, "one of them has a copy elsewhere"
    shoal.wait(made, num_returns=2, fetch_local=False)
    shoal.get(make_later.options(**here).remote(1, 0))
    running = make_later.options(**here, max_retries=0).remote(10, 2)
    eventually(lambda: shoal.available_resources().get("leaving", 1) < 1, "it runs")
    node.terminate()
    assert (shoal.get(running, timeout=60) == 1).all()
    assert node.wait() == 0
    assert [int(array[-1]) for array in shoal.get(made, timeout=60)] == [1, 2]


def test_what_was_only_on_a_dead_node_is_lost(cluster: ProcessCluster) -> None:
    node = cluster.add_node(cpus=1, resources={"fourth": 1})
    copied, lost = [make.options(**on("fourth"), max_retries=0).remote(10, fill) for fill in (4, 5)]
    shoal.wait([copied, lost], num_returns=2, fetch_local=False)
    assert shoal.get(total.options(**on("third")).remote(copied)) == 40
    node.kill()
    assert (shoal.get(copied, timeout=60) == 4).all(), "another node has a copy"
    text = f"max_retries=0.*node {node.node_id}.*left the cluster"
    with pytest.raises(exceptions.ObjectReconstructionFailedError, match=text):
        shoal.get(lost, timeout=60)


def test_what_was_let_go_before_a_death_was_known_goes_with_its_copies(cluster: ProcessCluster) -> None:
    node = cluster.add_node(cpus=1, resources={"fifth": 1})
    ref = make.options(**on("fifth"), max_retries=0).remote(10, 1)
    assert shoal.get(total.options(**on("third")).remote(ref)) == 10
    node.stop()
    del ref
    node.kill()
    eventually(lambda: not any(each["Alive"] for each in shoal.nodes() if each["NodeID"] == node.node_id), "it is dead")
    eventually(lambda: store_use() == 0, "the stores are empty")
