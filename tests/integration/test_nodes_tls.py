"""A cluster whose processes speak mutual TLS with each other, and with nobody else."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import Authority
from support.clusters import MIB, ProcessCluster
from support.servers import free_port

import shoal
from shoal_common.tls import VARIABLES


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def cluster(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessCluster]:
    name_identity(authority, monkeypatch)
    with ProcessCluster() as cluster:
        yield cluster


def name_identity(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = authority.issue()
    for variable, path in zip(VARIABLES, (tls.ca, tls.cert, tls.key), strict=True):
        monkeypatch.setenv(variable, str(path))


@shoal.remote
class Echo:
    def node(self) -> str:
        return shoal.get_runtime_context().get_node_id()

    def same(self, value: bytes) -> bytes:
        return value


def test_actors_on_other_nodes_are_called(cluster: ProcessCluster) -> None:
    first = cluster.add_node(cpus=1)
    second = cluster.add_node(cpus=1, resources={"far": 1})
    with cluster.connected():
        echo = Echo.options(resources={"far": 1}).remote()
        assert shoal.get(echo.node.remote(), timeout=60) == second.node_id != first.node_id
        # More than a TLS record, many at once.
        values = [bytes([i]) * 50_000 for i in range(100)]
        assert shoal.get([echo.same.remote(value) for value in values], timeout=60) == values
        # An object of several chunks, each way.
        large = os.urandom(10 * MIB)
        assert shoal.get(echo.same.remote(large), timeout=60) == large


def test_strangers_are_not_let_in(cluster: ProcessCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = cluster.add_node(cpus=1)
    with cluster.connected():
        [known] = shoal.nodes()
        assert known["NodeID"] == node.node_id
    # With the token, and a certificate of somebody else's authority, or none.
    name_identity(Authority(tmp_path / "stranger"), monkeypatch)
    with pytest.raises(ConnectionError, match=r"could not connect.*spoke mutual TLS"), cluster.connected():
        pass
    for variable in VARIABLES:
        monkeypatch.delenv(variable)
    with pytest.raises(ConnectionError, match=r"could not connect.*spoke without TLS"), cluster.connected():
        pass


def test_a_plain_connection_to_the_channel_is_closed(cluster: ProcessCluster) -> None:
    cluster.add_node(cpus=1, channel_port=(port := free_port()))
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        plain.sendall(b"\x10\x00\x00\x00 this is no TLS ")
        with contextlib.suppress(ConnectionResetError):
            # A TLS alert at most, and the end.
            assert b"token" not in b"".join(iter(lambda: plain.recv(1000), b""))
