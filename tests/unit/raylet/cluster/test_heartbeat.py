from __future__ import annotations

from shoal_raylet.cluster.heartbeat import pause_s


def test_nodes_of_a_large_cluster_send_fewer_heartbeats_each() -> None:
    assert pause_s(1) == pause_s(20) == 0.02
    assert pause_s(100) == 0.1
    assert pause_s(1000) == pause_s(100_000) == 1.0
