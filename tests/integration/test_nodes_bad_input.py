"""Raylets that cannot join say why and end; wrong clocks do no harm."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from support.clusters import ProcessCluster

import shoal


@pytest.fixture(scope="module")
def cluster() -> Iterator[ProcessCluster]:
    with ProcessCluster() as cluster:
        cluster.add_node(cpus=1)
        yield cluster


def test_a_node_id_in_use(cluster: ProcessCluster) -> None:
    twin = cluster.add_node(node_id=cluster.nodes[0].node_id, wait=False)
    assert twin.wait() == 1
    assert "give this raylet a node id of its own" in twin.text()
    assert twin.processes() == set()


def test_a_channel_port_in_use(cluster: ProcessCluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = cluster.add_node(channel_port=port, wait=False)
        assert node.wait() == 1
    assert f"cannot listen on 127.0.0.1:{port}" in node.text()


def test_a_host_that_is_not_this_machines(cluster: ProcessCluster) -> None:
    node = cluster.add_node(host="192.0.2.1", wait=False)
    assert node.wait() == 1
    assert "192.0.2.1" in node.text()


def test_clocks_ten_minutes_apart(cluster: ProcessCluster) -> None:
    early = cluster.add_node(cpus=1, resources={"early": 1}, clock_offset_s=-600)
    late = cluster.add_node(cpus=1, resources={"late": 1}, clock_offset_s=600)

    @shoal.remote
    def where() -> str:
        return str(shoal.get_runtime_context().get_node_id())

    @shoal.remote(num_cpus=0)
    class Actor:
        def node(self) -> str:
            return str(shoal.get_runtime_context().get_node_id())

    with cluster.connected():
        for node, resource in ((early, "early"), (late, "late")):
            assert shoal.get(where.options(resources={resource: 0.1}).remote()) == node.node_id
            actor = Actor.options(resources={resource: 0.1}).remote()  # type: ignore[attr-defined]
            assert shoal.get(actor.node.remote()) == node.node_id
        assert all(node["Alive"] for node in shoal.nodes())


def test_a_wrong_token(cluster: ProcessCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "token", "not the token of this cluster")
    node = cluster.add_node(wait=False)
    assert node.wait() == 1
    assert "token" in node.text()
    assert "not the token of this cluster" not in node.text()
