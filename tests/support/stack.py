"""The deployment of compose.yaml, or with compose.tls.yaml, under a test: brought up from local images, looked into and
shaken.

Where there is no Docker engine its tests fail in CI (the variable CI is set there) and are skipped elsewhere.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import urllib3
from minio import Minio
from support.drivers import Driver
from support.processes import PATIENCE_S, eventually
from support.server_hosts import ROOT, docker_client
from support.servers import free_port
from testcontainers.compose import DockerCompose

from shoal_common.tls import VARIABLES

IMAGES = ROOT / "docker" / "local-images.env"
#: Bringing up, scaling and taking down end within this time, in seconds.
COMPOSE_TIMEOUT_S = 240.0
#: Without any cache the images take minutes; MinIO is compiled.
BUILD_TIMEOUT_S = 1200.0
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
#: Of iptables: chains, and what names the other side in them.
_WAYS = (("INPUT", "--source"), ("OUTPUT", "--destination"))


def engine() -> docker.DockerClient:
    """A client of this machine's Docker engine; without one, or without what the images are made with, no test."""
    try:
        client = docker_client()
    except docker.errors.DockerException as error:
        _without(f"there is no Docker engine ({error}): install docker.io and start dockerd")
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        _without("docker compose (version 2) is not installed: docker/README.md says how")
    if shutil.which("mmdebstrap") is None and not (ROOT / ".cache" / "images" / "base.tar").exists():
        _without("mmdebstrap is not installed, which makes the base image: apt-get install mmdebstrap")
    return client


def _without(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"the container tests cannot run: {reason}")
    pytest.skip(f"the container tests need Docker: {reason}")


def build_images() -> None:
    """All images, from this checkout; seconds when nothing has changed."""
    _run(
        ["make", "--jobs", "--file", "docker/local/Makefile", f"PYTHON={sys.executable}"],
        dict(os.environ),
        BUILD_TIMEOUT_S,
    )


class Stack:
    """One deployment, apart from all others of this machine: its project is named after this checkout."""

    def __init__(
        self,
        client: docker.DockerClient,
        directory: Path,
        *,
        certificates: Path | None = None,
        store_bytes: int = 256 << 20,
    ) -> None:
        """``directory`` takes a file of settings; ``store_bytes`` is each node's. ``certificates``: everything speaks
        TLS, with those of this folder, which docker/make-certs has made."""
        self.client = client
        self.certificates = certificates
        self.project = f"shoal-{'tls' if certificates else 'test'}-{zlib.crc32(os.fsencode(ROOT)):08x}"
        files = ["compose.yaml", "compose.tls.yaml"] if certificates else ["compose.yaml"]
        settings = {
            "COMPOSE_PROJECT_NAME": self.project,
            "SHOAL_CERTS": str(certificates or ""),
            "SHOAL_GATEWAY_PORT": str(free_port()),
            "SHOAL_DASHBOARD_PORT": str(free_port()),
            "SHOAL_RAYLET_OBJECT_STORE_BYTES": str(store_bytes),
        }
        # In a file and not in the environment, which testcontainers does not pass on from anywhere but this process.
        file = directory / f"{self.project}.env"
        file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._env_files = [str(IMAGES), str(file)]
        self._testcontainers = DockerCompose(ROOT, compose_file_name=files, env_file=self._env_files)
        #: What starts each command of Compose on this deployment.
        self._command = self._testcontainers.docker_compose_command()

    @contextlib.contextmanager
    def deployed(self, **replicas: int) -> Iterator[Stack]:
        """It runs, as after ``up``. Afterwards nothing of it is left."""
        try:
            self.down()  # of a run that was killed
            if replicas:
                self.up(**replicas)
            else:
                self._testcontainers.start()
            self.gateway_port = self._testcontainers.get_service_port("gateway", 10001)
            self.dashboard_port = self._testcontainers.get_service_port("dashboard", 8265)
            yield self
        finally:
            self.down()
            left = self.leftovers()
        assert not left

    def compose(self, *arguments: str, timeout: float = COMPOSE_TIMEOUT_S) -> str:
        """``docker compose`` with these arguments; its standard output. Fails with all that it printed."""
        return _run([*self._command, *arguments], dict(os.environ), timeout)

    def run_script(self, script: str, directory: Path) -> None:
        """Runs it in a directory where ``docker compose`` means this deployment."""
        files = self._testcontainers.compose_file_name or []
        environment = {
            **os.environ,
            "COMPOSE_FILE": os.pathsep.join(str(ROOT / file) for file in files),
            "COMPOSE_ENV_FILES": ",".join(self._env_files),
        }
        _run(["bash", "-euc", script], environment, COMPOSE_TIMEOUT_S, directory)

    def up(self, **replicas: int) -> None:
        """Returns once all are healthy, so many of these services and as many of the others as compose.yaml says; also
        brings back what has been stopped or killed. ``DockerCompose`` of testcontainers has no ``--scale``."""
        scale = [word for service, number in replicas.items() for word in ("--scale", f"{service}={number}")]
        self.compose("up", "--detach", "--wait", "--no-build", *scale)

    def restore(self) -> None:
        """As after ``up``, whatever a test has done."""
        for container in self.containers():
            if container.status == "paused":
                container.unpause()
            if container.status == "running" and not container.attrs["NetworkSettings"]["Networks"]:
                self.network().connect(container, aliases=[service_of(container)])
        # ``up`` does not wait for what is unhealthy already, as after a pause.
        eventually(lambda: "unhealthy" not in map(health, self.running()), "all are healthy again")
        self.up()

    def down(self) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5")

    def drive_from_outside(self, *command: str | Path, directory: Path = ROOT, **environment: str) -> str:
        """Runs a program of this machine, through the gateway; what it prints."""
        usual = {
            "SHOAL_ADDRESS": f"shoal://localhost:{self.gateway_port}",
            "SHOAL_AUTH_TOKEN": self.read("gateway", "/run/shoal/token"),
            "PYTHONWARNINGS": "error",
        }
        if self.certificates:
            usual |= identity(self.certificates)
        return _run([sys.executable, *map(str, command)], {**os.environ, **usual, **environment}, PATIENCE_S, directory)

    def drive(self, *command: str) -> str:
        """Runs a program in a driver's container; what it prints."""
        return self.compose("run", "--rm", "--no-deps", "-T", "driver", *command, timeout=PATIENCE_S)

    @contextlib.contextmanager
    def driver(self, code: str, *arguments: str) -> Iterator[Driver]:
        """A program in a driver's container, to talk with; its container is gone afterwards."""
        name = f"{self.project}-driver-{secrets.token_hex(4)}"
        run = [*self._command, "run", "--rm", "--no-deps", "-T", "--name", name, "driver", "python"]
        with Driver(code, *arguments, env=dict(os.environ), python=run) as driver:
            yield driver
            for container in self.client.containers.list(all=True, filters={"name": name}):
                container.remove(force=True)

    def containers(self, service: str = "") -> list[Any]:
        """Its containers, of one service or of all, those that have ended too; a replica's number orders them."""
        labels = [f"{PROJECT_LABEL}={self.project}", *([f"{SERVICE_LABEL}={service}"] if service else [])]
        found = self.client.containers.list(all=True, filters={"label": labels})
        return sorted(found, key=lambda container: (len(container.name), container.name))

    def running(self, service: str = "") -> list[Any]:
        return [container for container in self.containers(service) if container.status == "running"]

    def read(self, service: str, path: str) -> str:
        """A file as a container of this service sees it."""
        output, _, _ = self._testcontainers.exec_in_container(["cat", path], service)
        return output.strip()

    def logs(self, *services: str) -> str:
        """What these services, or all, have printed."""
        return "".join(self._testcontainers.get_logs(*services))

    def address(self, service: str, network: str = "default") -> str:
        """Where this machine reaches a container of this service."""
        return self.address_of(self.running(service)[0], network)

    def address_of(self, container: Any, network: str = "default") -> str:
        """Empty when it is not in that network."""
        networks = container.attrs["NetworkSettings"]["Networks"]
        return str(networks.get(f"{self.project}_{network}", {}).get("IPAddress", ""))

    def network(self, name: str = "default") -> Any:
        return self.client.networks.get(f"{self.project}_{name}")

    @contextlib.contextmanager
    def cut(self, container: Any, *hosts: str) -> Iterator[None]:
        """No packet passes between this container and these addresses; nobody is told."""
        if os.geteuid() != 0 or not shutil.which("nsenter") or not shutil.which("iptables"):
            _without("cutting the network between two containers takes root, nsenter and iptables")
        inside = ["nsenter", "--target", str(container.attrs["State"]["Pid"]), "--net", "iptables"]
        rules = [[chain, way, host, "--jump", "DROP"] for host in hosts for chain, way in _WAYS]
        for rule in rules:
            _run([*inside, "--insert", *rule], dict(os.environ), 30)
        try:
            yield
        finally:
            for rule in rules:
                _run([*inside, "--delete", *rule], dict(os.environ), 30)

    def active_gcs(self) -> Any:
        """The one that leads, as shard 0 of etcd says it: the id of its container is its host's name."""
        leader = self.etcdctl("etcd-1", "get", "/shoal/leader", "--print-value-only")
        [active] = [gcs for gcs in self.containers("gcs") if leader.startswith(gcs.short_id)]
        return active

    def etcdctl(self, shard: str, *arguments: str) -> str:
        code, output = self.running(shard)[0].exec_run(["etcdctl", *arguments], environment={"ETCDCTL_API": "3"})
        assert code == 0, output
        return str(output.decode())

    def keys(self, shard: str, table: str) -> list[str]:
        """Ids in one table of one shard, as etcd's own client lists them."""
        prefix = f"/shoal/default/{table}/"
        found = self.etcdctl(shard, "get", "--prefix", "--keys-only", prefix)
        return [line.removeprefix(prefix) for line in found.split()]

    def row(self, shard: str, table: str, row_id: str) -> bytes:
        """What etcd has under this id, which must be there."""
        found = self.etcdctl(shard, "get", f"/shoal/default/{table}/{row_id}", "--write-out=json")
        return base64.b64decode(json.loads(found)["kvs"][0]["value"])

    def spilled(self, job: str) -> list[str]:
        """What MinIO has of a job, as its own client sees it."""
        https = self.certificates and urllib3.PoolManager(
            ca_certs=str(self.certificates / "ca.pem"), assert_hostname="minio"
        )
        client = Minio(
            f"{self.address('minio')}:9000",
            self.read("minio", "/run/shoal-minio/user"),
            self.read("minio", "/run/shoal-minio/password"),
            secure=bool(https),
            http_client=https,
        )
        return [item.object_name for item in client.list_objects("shoal", prefix=f"spill/{job}/", recursive=True)]

    def leftovers(self) -> list[str]:
        label = {"label": f"{PROJECT_LABEL}={self.project}"}
        found = self.client.containers.list(all=True, filters=label)
        found += self.client.volumes.list(filters=label) + self.client.networks.list(filters=label)
        return [item.name for item in found]


def health(container: Any) -> str:
    """ "healthy", "unhealthy", "starting", or "none"."""
    container.reload()
    return str(container.attrs["State"].get("Health", {}).get("Status", "none"))


def identity(certificates: Path) -> dict[str, str]:
    """The variables of a driver outside, with the certificate that is meant for it."""
    files = (certificates / "client" / name for name in ("ca.pem", "cert.pem", "key.pem"))
    return dict(zip(VARIABLES, map(str, files), strict=True))


def service_of(container: Any) -> str:
    return str(container.labels[SERVICE_LABEL])


def _run(command: list[str], environment: dict[str, str], timeout: float, directory: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
