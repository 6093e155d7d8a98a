"""Real etcd, NATS and MinIO servers of the tests: on free ports of loopback, their data in a directory.

They run on this machine, or in containers (`support.server_hosts`). Where neither can be had their tests fail in CI
(the variable CI is set there) and are skipped elsewhere, so that `make test` works on a machine with Python and make
alone: embedded clusters need none of them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import grpc
import pytest
import urllib3
from aetcd import rpc
from minio import Minio, MinioAdmin
from minio.credentials import StaticProvider
from support.networks import Machine
from support.processes import eventually
from support.server_hosts import BUILT, host

from shoal_common.blob.s3 import S3Settings
from shoal_common.tls import Tls


class Server:
    """One server. It keeps its port and its data when it is killed and started again."""

    def __init__(
        self,
        executable: str,
        service: str,
        install: str,
        directory: Path,
        tls: Tls | None = None,
        machine: Machine | None = None,
    ) -> None:
        """``machine``: where it runs, if not on the loopback of this one."""
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        reads = [Path(file) for file in (tls.cert, tls.key, tls.ca)] if tls else []
        self._host = host(executable, service, install, directory, reads, machine)
        self._executable = executable
        self.machine = machine
        self.ip = machine.address if machine else "127.0.0.1"
        self.port = free_port()
        self.address = f"{self.ip}:{self.port}"

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Added to that of the tests."""
        return {}

    def ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Returns once it answers."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        self._host.launch(self.arguments(), self.environment())

    def wait_until_ready(self) -> None:
        eventually(self._ready_or_dead, f"{self._executable} answers on {self.address}")

    def kill(self) -> None:
        """As ``kill -9``, also of one that is stopped."""
        self._host.kill()

    def stop(self) -> None:
        """It hangs: connections stay open and nothing answers."""
        self._host.stop()

    def resume(self) -> None:
        self._host.resume()

    def runs(self) -> bool:
        """It was started and has not ended, by itself or by a test."""
        return self._host.runs()

    def terminate(self) -> None:
        """SIGTERM; returns once it has ended."""
        self._host.terminate()

    def _ready_or_dead(self) -> bool:
        if why := self._host.why_ended():
            pytest.fail(f"{self._executable} has ended:\n{why}")
        return self.ready()


class EtcdServer(Server):
    """With ``tls`` it serves by that certificate, and asks clients for one of the same authority."""

    def __init__(self, directory: Path, tls: Tls | None = None, machine: Machine | None = None) -> None:
        super().__init__("etcd", "etcd-1", "apt-get install etcd-server", directory, tls, machine)
        self._tls = tls
        self._scheme = "http" if tls is None else "https"
        self.peer = f"http://127.0.0.1:{free_port()}"
        self.name = "default"
        #: All members of its cluster: name=peer,name=peer
        self.members = f"default={self.peer}"
        # A tenth of the defaults: the shortest lease depends on it (1 s instead of 2), and how soon it is up.
        self.timing = ["--heartbeat-interval=10", "--election-timeout=100"]

    def arguments(self) -> list[str]:
        client, peer = f"{self._scheme}://{self.address}", self.peer
        tls: list[str] = []
        if self._tls is not None:
            files = {"cert": self._tls.cert, "key": self._tls.key, "trusted-ca": self._tls.ca}
            tls = ["--client-cert-auth", *(f"--{name}-file={path}" for name, path in files.items())]
        return [
            *tls,
            *self.timing,
            f"--name={self.name}",
            f"--data-dir={self.directory / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={self.members}",
        ]

    def ready(self) -> bool:
        try:
            context = self._tls.context(server=False) if self._tls is not None else None
            with urllib.request.urlopen(
                f"{self._scheme}://{self.address}/health", timeout=1, context=context
            ) as answer:
                return b'"true"' in answer.read()
        except (urllib.error.URLError, OSError):
            return False

    def clear(self) -> None:
        """Deletes every entry."""
        with grpc.insecure_channel(self.address) as channel:
            rpc.KVStub(channel).DeleteRange(rpc.DeleteRangeRequest(key=b"\0", range_end=b"\0"), timeout=10)

    def put(self, key: str, value: bytes) -> None:
        with grpc.insecure_channel(self.address) as channel:
            rpc.KVStub(channel).Put(rpc.PutRequest(key=key.encode(), value=value), timeout=10)

    def keys(self) -> list[str]:
        with grpc.insecure_channel(self.address) as channel:
            answer = rpc.KVStub(channel).Range(rpc.RangeRequest(key=b"\0", range_end=b"\0", keys_only=True), timeout=10)
            return [kv.key.decode() for kv in answer.kvs]

    def rows(self, prefix: str) -> dict[str, bytes]:
        """Without the prefix."""
        start, end = prefix.encode(), prefix[:-1].encode() + bytes([ord(prefix[-1]) + 1])
        with grpc.insecure_channel(self.address) as channel:
            found = rpc.KVStub(channel).Range(rpc.RangeRequest(key=start, range_end=end), timeout=10).kvs
        return {kv.key.decode().removeprefix(prefix): kv.value for kv in found}

    def compact(self) -> None:
        """Forgets the history until now."""
        with grpc.insecure_channel(self.address) as channel:
            kv = rpc.KVStub(channel)
            revision = kv.Range(rpc.RangeRequest(key=b"\0"), timeout=10).header.revision
            kv.Compact(rpc.CompactionRequest(revision=revision, physical=True), timeout=10)

    def revoke_lease(self, lease_id: int) -> None:
        with grpc.insecure_channel(self.address) as channel:
            rpc.LeaseStub(channel).LeaseRevoke(rpc.LeaseRevokeRequest(ID=lease_id), timeout=10)

    def value(self, key: str) -> bytes | None:
        with grpc.insecure_channel(self.address) as channel:
            found = rpc.KVStub(channel).Range(rpc.RangeRequest(key=key.encode()), timeout=10).kvs
            return found[0].value if found else None

    def ask_for_passwords(self, password: str) -> None:
        """From now on only the user root gets in."""
        with grpc.insecure_channel(self.address) as channel:
            auth = rpc.AuthStub(channel)
            auth.UserAdd(rpc.AuthUserAddRequest(name="root", password=password), timeout=10)
            auth.RoleAdd(rpc.AuthRoleAddRequest(name="root"), timeout=10)
            auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="root", role="root"), timeout=10)
            auth.AuthEnable(rpc.AuthEnableRequest(), timeout=10)

    def forget(self) -> None:
        """Loses its data; to be started again."""
        shutil.rmtree(self.directory / "data")


class EtcdCluster:
    """Three members that are one etcd."""

    def __init__(self, directory: Path) -> None:
        self.members = [EtcdServer(directory / f"member{number}") for number in range(3)]
        for number, member in enumerate(self.members):
            member.name = f"member{number}"
            # A busy machine keeps them from talking to one another for longer than a single one needs.
            member.timing = ["--heartbeat-interval=50", "--election-timeout=500"]
        everybody = ",".join(f"{member.name}={member.peer}" for member in self.members)
        for member in self.members:
            member.members = everybody
        self.address = "+".join(member.address for member in self.members)

    def start(self) -> None:
        """None of them is ready before most of them are there."""
        for member in self.members:
            member.launch()
        for member in self.members:
            member.wait_until_ready()

    def kill(self) -> None:
        for member in self.members:
            member.kill()

    def clear(self) -> None:
        self.members[0].clear()


class NatsServer(Server):
    """With ``tls`` as `EtcdServer`."""

    def __init__(self, directory: Path, token: str, tls: Tls | None = None, machine: Machine | None = None) -> None:
        super().__init__("nats-server", "nats", "apt-get install nats-server", directory, tls, machine)
        self._configuration = self.directory / "nats.conf"
        self._monitor = f"{self.ip}:{free_port()}"
        lines = [f"host: {self.ip}\nport: {self.port}\nhttp: {self._monitor}", f'authorization {{ token: "{token}" }}']
        if tls is not None:
            lines.append(f'tls {{ cert_file: "{tls.cert}", key_file: "{tls.key}", ca_file: "{tls.ca}", verify: true }}')
        self._configuration.write_text("\n".join(lines) + "\n")
        self.url = f"nats://{self.address}"

    def arguments(self) -> list[str]:
        return ["--config", str(self._configuration)]

    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            with socket.create_connection((self.ip, self.port), timeout=1) as connection:
                return connection.recv(4) == b"INFO"
        return False

    def subscriptions(self) -> list[str]:
        """The subject of each subscription, sorted, as its own monitor lists them."""
        with urllib.request.urlopen(f"http://{self._monitor}/connz?subs=true&limit=1000", timeout=5) as answer:
            connections = json.load(answer)["connections"]
        return sorted(subject for connection in connections for subject in connection.get("subscriptions_list", []))


class MinioServer(Server):
    """On one drive. Not in Debian, so it is built from source."""

    ACCESS_KEY = "tests-access-key"
    SECRET_KEY = "tests-secret-key"

    def __init__(self, directory: Path, tls: Tls | None = None, machine: Machine | None = None) -> None:
        super().__init__("minio", "minio", f"make -f docker/local/Makefile {BUILT}/minio", directory, machine=machine)
        self._console_port = free_port()
        self._tls = tls
        certificates = self.directory / "certificates"
        certificates.mkdir()
        if tls:
            shutil.copy(tls.cert, certificates / "public.crt")
            shutil.copy(tls.key, certificates / "private.key")

    def arguments(self) -> list[str]:
        return [
            *("server", "--quiet", f"--certs-dir={self.directory / 'certificates'}"),
            *(f"--address={self.address}", f"--console-address=127.0.0.1:{self._console_port}"),
            str(self.directory / "data"),
        ]

    def environment(self) -> dict[str, str]:
        return {"MINIO_ROOT_USER": self.ACCESS_KEY, "MINIO_ROOT_PASSWORD": self.SECRET_KEY, "MINIO_BROWSER": "off"}

    def ready(self) -> bool:
        scheme = "https" if self._tls else "http"
        trust = ssl.create_default_context(cafile=self._tls.ca) if self._tls else None
        try:
            with urllib.request.urlopen(f"{scheme}://{self.address}/", timeout=1, context=trust):
                return True
        except urllib.error.HTTPError as error:
            with error:
                return error.code == HTTPStatus.FORBIDDEN  # it knows its users; its health checks succeed before
        except OSError:
            return False

    def settings(self, bucket: str) -> S3Settings:
        return S3Settings(self.address, bucket, self.ACCESS_KEY, self.SECRET_KEY)

    def limit(self, bucket: str, size_bytes: int) -> None:
        """The bucket is full with that much in it."""
        admin = MinioAdmin(
            endpoint=self.address, credentials=StaticProvider(self.ACCESS_KEY, self.SECRET_KEY), secure=False
        )
        admin.bucket_quota_set(bucket, size_bytes)

    def client(self) -> Minio:
        """MinIO's own client, for what it and not Shoal says of its state."""
        once = urllib3.PoolManager(retries=False, timeout=10)
        return Minio(self.address, self.ACCESS_KEY, self.SECRET_KEY, secure=False, http_client=once)


@contextlib.contextmanager
def running(*servers: Server | EtcdCluster) -> Iterator[None]:
    """Starts them, and ends them whatever happens."""
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.kill()


def _ports_of_this_process() -> Iterator[int]:
    """Below the ephemeral ports, and none of those of the processes that run tests beside this one."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = 12_000 // workers
    # Two checkouts may be tested at a time.
    offset = os.getpid() * 7
    return (20_000 + number * size + (offset + count) % size for count in itertools.count())


_ports = _ports_of_this_process()


def free_port() -> int:
    """Each time another one: no client takes it while its server is down for a moment."""
    for port in itertools.islice(_ports, 1000):
        with socket.socket() as probe:
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise RuntimeError("a thousand ports, and none is free")
