"""Drivers outside of a cluster of two nodes, one of which is their gateway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from support.clusters import MIB, ProcessCluster, RayletProcess
from support.drivers import Driver
from support.processes import PATIENCE_S
from support.servers import free_port


@dataclass
class Outside:
    cluster: ProcessCluster
    node: RayletProcess
    port: int

    def environment(self, port: int | None = None, token: str | None = None) -> dict[str, str]:
        return {
            "SHOAL_ADDRESS": f"shoal://127.0.0.1:{port or self.port}",
            "SHOAL_AUTH_TOKEN": token if token is not None else self.cluster.token,
            "PYTHONWARNINGS": "error",
        }

    def client(self, code: str, *arguments: str, port: int | None = None) -> Driver:
        return Driver(code, *arguments, env=self.environment(port))

    def run(self, code: str) -> str:
        """What it prints, if it ends well."""
        with self.client(code) as client:
            output, _ = client.process.communicate(timeout=PATIENCE_S)
            assert client.process.returncode == 0, output
            return output


def start_gateway(cluster: ProcessCluster, grace_s: float, store_bytes: int = 256 * MIB) -> Outside:
    port = free_port()
    node = cluster.add_node(
        cpus=2, resources={"first": 1}, store_bytes=store_bytes, gateway_port=port, gateway_grace_s=grace_s
    )
    cluster.add_node(cpus=1, resources={"second": 1}, store_bytes=64 * MIB)
    return Outside(cluster, node, port)


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    """A gateway that keeps the session of a client that is cut off for longer than any test takes."""
    with ProcessCluster() as cluster:
        yield start_gateway(cluster, 3600.0)


@pytest.fixture(scope="module")
def impatient() -> Iterator[Outside]:
    """Sessions end two seconds after their connection, and the store is small."""
    with ProcessCluster() as cluster:
        yield start_gateway(cluster, 2.0, 32 * MIB)
