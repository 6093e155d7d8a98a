"""A member of an etcd, and MinIO, are away for a while: what works meanwhile, what waits, and that nothing is lost.

Whole shards, and NATS: test_gcs_failover.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from support.actors import Counter
from support.clusters import MIB
from support.deployed import DeployedCluster
from support.processes import eventually

import shoal

OBJECT_BYTES = 8 * MIB
#: So many fit, about.
STORE_BYTES = 4 * OBJECT_BYTES
PATIENCE_S = 120


@pytest.fixture(scope="module")
def cluster() -> Iterator[DeployedCluster]:
    with DeployedCluster(in_three=True, minio=True) as cluster:
        # A ``put`` waits for spilling so long, before it becomes a file: 10 s otherwise.
        cluster.add_node(cpus=2, store_bytes=STORE_BYTES, store_full_grace_s=1.0)
        with cluster.connected():
            yield cluster


@shoal.remote
def total(values: np.ndarray) -> int:
    return int(values.sum())


def put(number: int) -> shoal.ObjectRef:
    return shoal.put(np.full(OBJECT_BYTES // 8, number))


def test_a_member_of_three_is_not_missed(cluster: DeployedCluster) -> None:
    before = Counter.remote()
    for calls, member in enumerate(cluster.etcd, 1):
        member.kill()
        after = Counter.remote()
        assert shoal.get([before.add.remote(), after.add.remote()], timeout=PATIENCE_S) == [calls, 1]
        member.start()


def test_while_minio_is_away_spilling_waits_and_nothing_is_lost(cluster: DeployedCluster) -> None:
    assert cluster.minio is not None
    [node] = cluster.nodes
    counter = Counter.remote()
    assert shoal.get(counter.add.remote(), timeout=PATIENCE_S) == 1
    refs = [put(number) for number in range(8)]
    eventually(cluster.blobs, "the oldest are spilled")
    cluster.minio.kill()
    refs += [put(number) for number in range(8, 12)]
    waiting = total.remote(refs[0])
    eventually(lambda: "restore_waits" in node.text(), "what lies in MinIO cannot be read")
    assert shoal.get(counter.add.remote(), timeout=PATIENCE_S) == 2
    assert shoal.wait([waiting], timeout=0)[0] == []
    cluster.minio.start()
    assert shoal.get(waiting, timeout=PATIENCE_S) == 0
    sums = [shoal.get(total.remote(ref), timeout=PATIENCE_S) for ref in refs]
    assert sums == [number * OBJECT_BYTES // 8 for number in range(12)]
    del refs, waiting
    eventually(lambda: not cluster.blobs(), "nothing is left in MinIO")
