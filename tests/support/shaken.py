"""A deployment to be shaken: each process on a machine of its own, so that any can be killed, stopped or cut off.

Two GCS, two schedulers, two objectstores, an etcd, a NATS, a MinIO, and three nodes: ``home`` for drivers, and ``far1``
and ``far2`` with the resource ``far``. What has ended is started again by `revive`, as a supervisor would.
"""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from support.clusters import MIB, ProcessCluster, RayletProcess, ServiceProcess
from support.drivers import Driver
from support.networks import Machine, Switch
from support.processes import alive, eventually
from support.remains import Remains
from support.servers import EtcdServer, MinioServer, NatsServer, Server, free_port

from shoal_common.rpc.client import sync_channel
from shoal_common.service.healthcheck import check
from shoal_proto.v1 import gcs_pb2, gcs_pb2_grpc, raylet_pb2

NODES = ("home", "far1", "far2")
BUCKET = "shoal"
#: A node that is silent is dead after about three seconds, so that a fault of ten is one that costs it its life.
#: A GCS that a busy machine keeps from running for its lease ends, and nobody starts it again before `revive`: so that
#: lasts longer than usual.
_GCS_FLAGS = {"silence_s": 1.0, "checks": 2, "leader_ttl_s": 5.0}


class ShakenCluster(ProcessCluster):
    """Ends with ``close``."""

    def __init__(self, *, store_bytes: int = 64 * MIB) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="s-"))
        self.token = secrets.token_hex(16)
        self.cluster_id = "test"
        self.nodes = []
        self._services = []
        self._store_bytes = store_bytes
        self._starts = 0
        #: By the name of their machine. Servers keep their place here when they are killed, services get another one.
        self.servers: dict[str, Server] = {}
        self.services: dict[str, ServiceProcess] = {}
        self._makers: dict[str, Callable[[str], ServiceProcess]] = {}
        self.machines: dict[str, Machine] = {}
        self.switch = Switch()
        try:
            self._bring_up()
        except BaseException:
            self.close()
            raise

    def _bring_up(self) -> None:
        etcd, nats, minio = (self._machine(name) for name in ("etcd", "nats", "minio"))
        self.etcd = EtcdServer(self.directory / "etcd", machine=etcd)
        self.nats = NatsServer(self.directory / "nats", self.token, machine=nats)
        self.minio = MinioServer(self.directory / "minio", machine=minio)
        self.servers |= {"etcd": self.etcd, "nats": self.nats, "minio": self.minio}
        for server in self.servers.values():
            server.launch()
        for server in self.servers.values():
            server.wait_until_ready()
        for kind, start in (("gcs", self._gcs), ("scheduler", self._scheduler), ("objectstore", self._objectstore)):
            for number in range(2):
                self._makers[f"{kind}{number}"] = start
                self._machine(f"{kind}{number}")
        self._ports = {name: free_port() for name in (*self._makers, *NODES)}
        self._health_ports = {name: free_port() for name in self._makers}
        self._gateway_port = free_port()
        self.address = self._addresses("gcs")
        for name in NODES:
            self._makers[name] = self._raylet
            self._machine(name)
        #: Where drivers outside of the cluster are.
        self.outside = self._machine("outside")
        #: Nodes join in this order: a driver is on the first whose socket it sees.
        for name in self._makers:
            self.services[name] = self._makers[name](name)
            if name == "home":
                self.services[name].address()
        self.revive()
        self._usual_subscriptions = self.nats.subscriptions()

    def revive(self) -> None:
        """Starts what has ended; returns once every service is ready and the cluster has exactly these nodes."""
        eventually(self._whole, "everything is up, and the cluster has its nodes and no others")

    def node(self, name: str) -> RayletProcess:
        service = self.services[name]
        assert isinstance(service, RayletProcess)
        return service

    def part(self, name: str) -> ServiceProcess | Server:
        """What runs on this machine."""
        return self.servers.get(name) or self.services[name]

    def is_healthy(self, gcs: str) -> bool:
        """It leads, or is ready to take over."""
        return not check(f"{self.machines[gcs].address}:{self._health_ports[gcs]}")

    def active_gcs(self) -> str:
        """Which one leads."""
        return str(eventually(self._active_gcs, "a GCS leads"))

    def living_nodes(self) -> set[str]:
        """Their ids."""
        with sync_channel(self.address, self.token, patient=True) as channel:
            answer = gcs_pb2_grpc.NodeServiceStub(channel).ListNodes(gcs_pb2.ListNodesRequest())
        return {node.node_id.hex() for node in answer.nodes if node.state != gcs_pb2.NODE_STATE_DEAD}

    def stats(self, node: str) -> raylet_pb2.GetStatsResponse:
        """What a raylet says of itself."""
        return self.node(node).stats()

    def remains(self) -> Remains:
        nodes = {name: (lambda name=name: self.stats(name)) for name in NODES}
        return Remains(
            nodes=lambda: nodes,
            rows=lambda: self.etcd.rows(f"/shoal/{self.cluster_id}/"),
            blobs=self.blobs,
            subscriptions=self.nats.subscriptions,
            usual_subscriptions=self._usual_subscriptions,
        )

    def driver(self, code: str, *arguments: str, outside: bool = False) -> Driver:
        """A program on ``home``, or one that comes in by its gateway."""
        machine = self.outside if outside else self.machines["home"]
        gateway = f"shoal://{self.machines['home'].address}:{self._gateway_port}"
        environment = {"SHOAL_ADDRESS": gateway if outside else self.address, "SHOAL_AUTH_TOKEN": self.token}
        return Driver(code, *arguments, env=environment, python=(*machine.enter, sys.executable))

    def close(self) -> None:
        """How services end in order is tested elsewhere."""
        left = {pid for node in self.nodes for pid in node.processes()}
        for service in (*self.nodes, *self._services):
            service.kill()
        for server in self.servers.values():
            server.kill()
        eventually(lambda: not any(map(alive, left)), "the workers have ended")
        self.switch.close()
        shutil.rmtree(self.directory)

    def blobs(self, prefix: str = "spill/") -> list[str]:
        found = self.minio.client().list_objects(BUCKET, prefix=prefix, recursive=True)
        return [str(blob.object_name) for blob in found]

    def _whole(self) -> bool:
        for server in self.servers.values():
            if not server.runs():
                server.start()
        for name, service in self.services.items():
            if not service.runs():
                self.services[name] = self._makers[name](name)
        services = self.services.items()
        ready = all(
            self.is_healthy(name) if name.startswith("gcs") else service.started() for name, service in services
        )
        if not ready:
            return False
        try:
            return self.living_nodes() == {self.node(name).node_id for name in NODES}
        except grpc.RpcError:
            return False  # nobody leads just now, or one that has led until now was asked

    def _active_gcs(self) -> str:
        for name in ("gcs0", "gcs1"):
            if not check(f"{self.machines[name].address}:{self._ports[name]}"):
                return name
        return ""

    def _machine(self, name: str) -> Machine:
        self.machines[name] = self.switch.machine(name)
        return self.machines[name]

    def _addresses(self, kind: str) -> str:
        return ",".join(f"{self.machines[name].address}:{self._ports[name]}" for name in (f"{kind}0", f"{kind}1"))

    def _gcs(self, name: str) -> ServiceProcess:
        return self._start_on(
            name,
            "gcs",
            cluster_id=self.cluster_id,
            health_port=self._health_ports[name],
            etcd=self.etcd.address,
            nats_address=self.nats.address,
            scheduler_addresses=self._addresses("scheduler"),
            objectstore_addresses=self._addresses("objectstore"),
            **_GCS_FLAGS,
        )

    def _scheduler(self, name: str) -> ServiceProcess:
        return self._start_on(name, "scheduler", cluster_id=self.cluster_id, nats_address=self.nats.address)

    def _objectstore(self, name: str) -> ServiceProcess:
        keys = {"access": MinioServer.ACCESS_KEY, "secret": MinioServer.SECRET_KEY}
        for kind, key in keys.items():
            (self.directory / kind).write_text(key)
        return self._start_on(
            name,
            "objectstore",
            cluster_id=self.cluster_id,
            s3_endpoint=f"http://{self.minio.address}",
            s3_bucket=BUCKET,
            s3_access_key_file=self.directory / "access",
            s3_secret_key_file=self.directory / "secret",
        )

    def _raylet(self, name: str) -> ServiceProcess:
        resources = {"CPU": 4, **({"far": 1} if name != "home" else {})}
        flags: dict[str, Any] = {
            "node_id": secrets.token_hex(16),
            "port": self._ports[name],
            "host": self.machines[name].address,
            "channel_port": 0,
            "gcs_address": self.address,
            "scheduler_addresses": self._addresses("scheduler"),
            "objectstore_address": self._addresses("objectstore"),
            "nats_address": self.nats.address,
            "cluster_id": self.cluster_id,
            "session_dir": self.directory / f"{name}-{self._next()}",
            "resources": resources,
            "labels": {"name": name},
            "object_store_bytes": self._store_bytes,
            "prefault_bytes": 0,
            **({"gateway_port": self._gateway_port} if name == "home" else {}),
        }
        node = RayletProcess(f"{name}-{self._next()}", self.directory, self.token, flags, machine=self.machines[name])
        self.nodes.append(node)
        return node

    def _start_on(self, name: str, service: str, **flags: Any) -> ServiceProcess:
        machine = self.machines[name]
        flags = {"host": machine.address, "port": self._ports[name], **flags}
        process = ServiceProcess(service, f"{name}-{self._next()}", self.directory, self.token, flags, machine=machine)
        self._services.append(process)
        return process

    def _next(self) -> int:
        self._starts += 1
        return self._starts
