"""A cluster as it is deployed: sharded etcd, NATS, an active GCS and a standby, and raylets, as processes."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import Any

from support.clusters import ProcessCluster, RayletProcess, ServiceProcess
from support.processes import eventually
from support.servers import EtcdServer, NatsServer, free_port

from shoal_common.service.healthcheck import check


class DeployedCluster(ProcessCluster):
    """``gcs`` are further flags of both replicas."""

    def __init__(self, *, shards: int = 2, gcs: dict[str, Any] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="d-"))
        self.token = secrets.token_hex(16)
        self.cluster_id = "test"
        self.nodes = []
        self._services = []
        self.etcd = [EtcdServer(self.directory / f"etcd{number}") for number in range(shards)]
        self.nats = NatsServer(self.directory / "nats", self.token)
        for server in (*self.etcd, self.nats):
            server.start()
        self._gcs_ports = [free_port(), free_port()]
        self.health_addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        self._gcs_flags = gcs or {}
        scheduler_port = free_port()
        self.scheduler_addresses = [f"127.0.0.1:{scheduler_port}"]
        self.address = ",".join(f"127.0.0.1:{port}" for port in self._gcs_ports)
        self.replicas = [self.start_gcs(0)]
        self.leads(0)
        self.replicas.append(self.start_gcs(1))
        self.schedulers = [self._start("scheduler", "scheduler0", port=scheduler_port, nats_address=self.nats.address)]
        self.objectstore = self._start("objectstore", "objectstore", port=0, directory=self.directory / "blobs")
        self.schedulers[0].address()

    def start_gcs(self, number: int) -> ServiceProcess:
        """Returns when it leads or is ready to take over."""
        replica = self._start(
            "gcs",
            f"gcs{number}",
            port=self._gcs_ports[number],
            health_port=self.health_addresses[number].rpartition(":")[2],
            etcd=",".join(server.address for server in self.etcd),
            nats_address=self.nats.address,
            scheduler_addresses=",".join(self.scheduler_addresses),
            **{"silence_s": 1.0, "checks": 2, **self._gcs_flags},
        )
        eventually(lambda: not check(self.health_addresses[number]), f"{replica.name} is healthy")
        return replica

    def leads(self, number: int) -> None:
        """Returns when this replica serves."""
        address = f"127.0.0.1:{self._gcs_ports[number]}"
        eventually(lambda: not check(address), f"gcs{number} leads")

    def listens(self, number: int) -> bool:
        return not check(f"127.0.0.1:{self._gcs_ports[number]}")

    def add_node(self, cpus: float = 2, **flags: Any) -> RayletProcess:
        return super().add_node(cpus, nats_address=self.nats.address, **flags)

    def close(self) -> None:
        super().close()
        for server in (*self.etcd, self.nats):
            server.kill()
