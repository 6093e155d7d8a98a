"""A cluster of real processes on this machine: GCS, schedulers, objectstore service, raylets.

with ProcessCluster(directory) as cluster:
    first, second = cluster.add_node(cpus=2), cluster.add_node(cpus=2)
    with cluster.connected():
        shoal.get(f.remote())
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.networks import Machine
from support.processes import PATIENCE_S, alive, descendants, eventually, stopped
from support.remains import Remains
from support.servers import free_port

import shoal
from shoal_common.rpc.client import sync_channel
from shoal_proto.v1 import raylet_pb2, raylet_pb2_grpc

MIB = 1 << 20
_DOWN_WITHIN_S = 15


#: ``python -m shoal_<service>``, on a machine whose clock is wrong by so many seconds. (Not for gRPC, which takes
#: the time of its deadlines from ``time.time`` and of their end from the system.)
_PROGRAM = """
import runpy, sys, time
offset_s, service = float(sys.argv.pop(1)), sys.argv.pop(1)
right_ns = time.time_ns
time.time_ns = lambda: right_ns() + int(offset_s * 1e9)
runpy.run_module(f"shoal_{service}", run_name="__main__")
"""


class ServiceProcess:
    """``python -m shoal_<service>`` with its log in a file. A test run that is killed takes it along."""

    #: All that have been started. A test may start some for a cluster that it shares with others.
    pids: ClassVar[set[int]] = set()

    def __init__(
        self,
        service: str,
        name: str,
        directory: Path,
        token: str,
        flags: dict[str, Any],
        clock_offset_s: float = 0.0,
        machine: Machine | None = None,
    ) -> None:
        self.name = name
        #: Where it runs, if not on the loopback of this one.
        self.machine = machine
        self.log = directory / f"{name}.log"
        arguments = [f"--{key.replace('_', '-')}={_text(value)}" for key, value in flags.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "--", *(machine.enter if machine else ())),
                    *(sys.executable, "-c", _PROGRAM),
                    *(str(clock_offset_s), service, *arguments),
                ],
                env={**os.environ, "SHOAL_AUTH_TOKEN": token},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self._process.pid
        self.pids.add(self.pid)

    def address(self) -> str:
        """``host:port`` of its gRPC server, once it has started."""
        address: str = eventually(self._address, f"{self.name} has started")
        return address

    def started(self) -> bool:
        """It says that it listens."""
        return bool(self._listens_at())

    def _address(self) -> str:
        if self._process.poll() is not None:
            pytest.fail(f"{self.name} has ended with code {self._process.returncode}:\n{self.text()}")
        return self._listens_at()

    def _listens_at(self) -> str:
        address = ""
        for line in self.text().splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                # A node that was given up listens somewhere else once it has joined anew.
                if event.get("event") in ("service_started", "node_has_joined_anew"):
                    address = str(event["address"])
        return address

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, within: float = PATIENCE_S) -> int:
        """Its exit code."""
        return self._process.wait(within)

    def kill(self) -> None:
        """As ``kill -9``, also of a process that is stopped."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """It hangs: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        eventually(lambda: stopped(self.pid), f"{self.name} is stopped")

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM: it begins to stop."""
        self._process.terminate()

    def runs(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """SIGTERM, and SIGKILL where that does not help in time."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_DOWN_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()


class RayletProcess(ServiceProcess):
    def __init__(
        self,
        name: str,
        directory: Path,
        token: str,
        flags: dict[str, Any],
        clock_offset_s: float = 0.0,
        machine: Machine | None = None,
    ) -> None:
        #: In hexadecimal.
        self.node_id: str = flags["node_id"]
        self.session_dir: Path = flags["session_dir"]
        self._token = token
        super().__init__("raylet", name, directory, token, flags, clock_offset_s, machine)

    def stats(self) -> raylet_pb2.GetStatsResponse:
        """What it says of itself."""
        with sync_channel(self.address(), self._token) as channel:
            return raylet_pb2_grpc.RayletServiceStub(channel).GetStats(raylet_pb2.GetStatsRequest())

    def freeze(self) -> None:
        """The whole machine hangs, with its workers."""
        self.stop()
        for pid in self.processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in {self.pid, *self.processes()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def end(self) -> None:
        if self._process.poll() is None:
            self.thaw()
        super().end()

    def processes(self) -> set[int]:
        """The workers, their template and whatever they have started."""
        return {pid for pid in descendants(self.pid) if alive(pid)}


class ProcessCluster:
    """Everything listens on the loopback, on free ports. ``gcs`` and ``scheduler`` are further flags of theirs."""

    #: Before it ends as it should, nothing may be left of any job.
    looks_at_its_end = False

    def __init__(self, *, schedulers: int = 1, gcs: dict[str, Any] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="c-"))
        self.token = secrets.token_hex(16)
        self.cluster_id = "test"
        self.nodes: list[RayletProcess] = []
        self._services: list[ServiceProcess] = []
        ports = [free_port() for _ in range(schedulers)]
        self.scheduler_addresses = [f"127.0.0.1:{port}" for port in ports]
        objectstore_port = free_port()
        self._gcs_flags = {"objectstore_addresses": f"127.0.0.1:{objectstore_port}", **(gcs or {})}
        #: ``host:port`` of the GCS, for ``shoal.init``.
        self.address = f"127.0.0.1:{free_port()}"
        self.start_the_gcs()
        self.schedulers = [
            self._start("scheduler", f"scheduler{number}", port=port, gcs_address=self.address)
            for number, port in enumerate(ports)
        ]
        self.objectstore = self._start(
            "objectstore", "objectstore", port=objectstore_port, directory=self.directory / "blobs"
        )
        for scheduler in self.schedulers:
            scheduler.address()

    def __enter__(self) -> ProcessCluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self.looks_at_its_end:
                self.remains().check()
        finally:
            self.close()

    @property
    def environment(self) -> dict[str, str]:
        """For drivers that are processes of their own."""
        return {"SHOAL_ADDRESS": self.address, "SHOAL_AUTH_TOKEN": self.token}

    def add_node(
        self,
        cpus: float = 2,
        *,
        resources: dict[str, float] | None = None,
        labels: dict[str, str] | None = None,
        store_bytes: int = 64 * MIB,
        wait: bool = True,
        clock_offset_s: float = 0.0,
        **flags: Any,
    ) -> RayletProcess:
        """Start a raylet; it is in the cluster when this returns, unless ``wait`` is False."""
        name = f"n{len(self.nodes) + 1}"
        node = RayletProcess(
            name,
            self.directory,
            self.token,
            {
                "node_id": secrets.token_hex(16),
                "port": 0,
                "channel_port": 0,
                "gcs_address": self.address,
                "scheduler_addresses": ",".join(self.scheduler_addresses),
                "objectstore_address": self.objectstore.address(),
                "cluster_id": self.cluster_id,
                "session_dir": self.directory / name,
                "resources": {"CPU": cpus, **(resources or {})},
                "labels": labels or {},
                "object_store_bytes": store_bytes,
                "prefault_bytes": 0,
                **flags,
            },
            clock_offset_s,
        )
        self.nodes.append(node)
        if wait:
            node.address()
        return node

    def start_the_gcs(self, store: str = "gcs.sqlite") -> None:
        """At its address, also once more after it has ended. On another ``store`` it is another cluster's."""
        self._store = store
        self.gcs = self._start(
            "gcs",
            "gcs",
            port=self.address.rpartition(":")[2],
            store_path=self.directory / store,
            scheduler_addresses=",".join(self.scheduler_addresses),
            **{"silence_s": 1.0, "checks": 2, **self._gcs_flags},
        )
        self.gcs.address()

    @contextlib.contextmanager
    def objectstore_away(self) -> Iterator[None]:
        """It is killed, and started again at the end: at the same address, on the same blobs."""
        port = self.objectstore.address().rpartition(":")[2]
        self.objectstore.kill()
        yield
        self.objectstore = self._start("objectstore", "objectstore", port=port, directory=self.directory / "blobs")

    @contextlib.contextmanager
    def connected(self, **arguments: Any) -> Iterator[None]:
        """This process is a driver on the first living node."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SHOAL_AUTH_TOKEN", self.token)
            with shoal.init(self.address, logging_level="ERROR", log_to_driver=False, **arguments):
                yield

    def rows(self) -> dict[str, bytes]:
        """Of the GCS that runs, or ran last: what it has stored, by table and id."""
        prefix = f"/shoal/{self.cluster_id}/"
        with contextlib.closing(sqlite3.connect(f"file:{self.directory / self._store}?mode=ro", uri=True)) as database:
            entries = database.execute("SELECT key, value FROM entries").fetchall()
        return {key.removeprefix(prefix): value for key, value in entries if key.startswith(prefix)}

    def blobs(self, prefix: str = "spill/") -> list[str]:
        """Keys of what the objectstore service has."""
        blobs = self.directory / "blobs"
        # Unlike `Path.rglob` it lets directories vanish while it looks.
        files = (Path(directory) / name for directory, _, names in os.walk(blobs / prefix) for name in names)
        return [str(file.relative_to(blobs)) for file in files]

    def remains(self) -> Remains:
        def nodes() -> dict[str, Callable[[], raylet_pb2.GetStatsResponse]]:
            return {node.name: node.stats for node in self.nodes if node.runs() and not stopped(node.pid)}

        return Remains(nodes=nodes, rows=self.rows, blobs=self.blobs)

    def close(self) -> None:
        """End everything; nothing is left behind."""
        left: set[int] = set()
        for node in self.nodes:
            left |= node.processes()
            node.end()
        for service in reversed(self._services):
            service.end()
        eventually(lambda: not any(map(alive, left)), "the workers have ended")
        subprocess.run(["rm", "-rf", self.directory], check=True)

    def _start(self, service: str, name: str, **flags: Any) -> ServiceProcess:
        process = ServiceProcess(
            service,
            name,
            self.directory,
            self.token,
            {"cluster_id": self.cluster_id, **flags} if service != "objectstore" else flags,
        )
        self._services.append(process)
        return process


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)
