"""A cluster as it is deployed: sharded etcd, NATS, an active GCS and a standby, and raylets, as processes."""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.clusters import ProcessCluster, RayletProcess, ServiceProcess
from support.processes import eventually
from support.remains import Remains
from support.servers import EtcdCluster, EtcdServer, MinioServer, NatsServer, Server, free_port

from shoal_common.service.healthcheck import check

BUCKET = "shoal"


class DeployedCluster(ProcessCluster):
    """``in_three``: one shard of three members instead of two of one. ``minio``: spilled objects go there instead of
    into a directory. ``gcs`` are further flags of both replicas."""

    def __init__(self, *, in_three: bool = False, minio: bool = False, gcs: dict[str, Any] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="d-"))
        self.token = secrets.token_hex(16)
        self.cluster_id = "test"
        self.nodes = []
        self._services = []
        self._in_three = in_three
        if in_three:
            shard = EtcdCluster(self.directory / "etcd")
            self.etcd, self._etcd_address = shard.members, shard.address
        else:
            self.etcd = [EtcdServer(self.directory / f"etcd{number}") for number in range(2)]
            self._etcd_address = ",".join(server.address for server in self.etcd)
        self.nats = NatsServer(self.directory / "nats", self.token)
        self.minio = MinioServer(self.directory / "minio") if minio else None
        # Members of one etcd are ready once most of them are there.
        for server in self._servers():
            server.launch()
        for server in self._servers():
            server.wait_until_ready()
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
        self.objectstore = self._start("objectstore", "objectstore", port=0, **self._blob_flags())
        self.schedulers[0].address()

    def start_gcs(self, number: int) -> ServiceProcess:
        """Returns when it leads or is ready to take over."""
        replica = self._start(
            "gcs",
            f"gcs{number}",
            port=self._gcs_ports[number],
            health_port=self.health_addresses[number].rpartition(":")[2],
            etcd=self._etcd_address,
            nats_address=self.nats.address,
            scheduler_addresses=",".join(self.scheduler_addresses),
            **{"silence_s": 1.0, "checks": 2, "leader_ttl_s": 5.0, **self._gcs_flags},
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
        for server in self._servers():
            server.kill()

    def blobs(self, prefix: str = "spill/") -> list[str]:
        """Keys of what lies in MinIO, or else in the directory."""
        if self.minio is None:
            return super().blobs(prefix)
        found = self.minio.client().list_objects(BUCKET, prefix=prefix, recursive=True)
        return [str(blob.object_name) for blob in found]

    def rows(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for server in self.etcd[:1] if self._in_three else self.etcd:
            found |= server.rows(f"/shoal/{self.cluster_id}/")
        return found

    def remains(self) -> Remains:
        return replace(super().remains(), subscriptions=self.nats.subscriptions)

    def _servers(self) -> list[Server]:
        return [*self.etcd, self.nats, *([self.minio] if self.minio else [])]

    def _blob_flags(self) -> dict[str, Any]:
        if self.minio is None:
            return {"directory": self.directory / "blobs"}
        keys = {"access": MinioServer.ACCESS_KEY, "secret": MinioServer.SECRET_KEY}
        for kind, key in keys.items():
            (self.directory / kind).write_text(key)
        files = {f"s3_{kind}_key_file": self.directory / kind for kind in keys}
        return {"s3_endpoint": f"http://{self.minio.address}", "s3_bucket": BUCKET, **files}
