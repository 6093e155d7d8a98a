"""Services that run on this machine as processes of their own: what ``shoal start`` and ``Cluster`` make.

Each node has a directory. Its ``node.json``, which only this user can read, says where the node is and which processes
belong to it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from shoal._launch import dashboards
from shoal._launch.cluster_address import ClusterAddress
from shoal._launch.daemons import Daemon, end, last_words, start
from shoal._launch.directories import root_directory
from shoal._launch.embedded import check_installed
from shoal._launch.node_resources import check_amounts, node_resources, store_bytes
from shoal._net.gcs.client import visiting
from shoal._net.gcs.records import NodeRecord
from shoal_common.auth import TOKEN_VARIABLE
from shoal_common.channel import tcp
from shoal_common.placement.labels import given_labels
from shoal_common.states import NodeState
from shoal_common.surroundings import environment, interpreter

logger = logging.getLogger("shoal")

#: A service is up after so many seconds, or its start has failed. Services themselves wait 60 s for etcd and the like,
#: and say then what was missing: so a little longer.
START_TIMEOUT_S = 75.0
#: Whoever waits for longer is told what for.
_NOTICE_AFTER_S = 5.0
_POLL_S = 0.05
_RECORD = "node.json"
#: Of the credentials that only the objectstore service may have: a raylet would hand them on to users' programs.
_S3_CREDENTIALS = "SHOAL_S3_"

T = TypeVar("T")


class LocalNode(msgspec.Struct, frozen=True):
    """One raylet of this machine, and on a head the services beside it."""

    cluster: ClusterAddress
    head: bool
    daemons: tuple[Daemon, ...]
    #: Of a head that was started with its dashboard.
    dashboard_url: str = ""

    @property
    def node_id(self) -> str:
        """Hexadecimal."""
        return self.cluster.node_id

    #: Ray's other name for it.
    unique_id = node_id

    @property
    def directory(self) -> Path:
        return Path(self.cluster.session_dir)

    def kill_raylet(self) -> None:
        """End the raylet at once, as by a loss of power; what else is on the node goes with it. Returns when it has."""
        end([daemon for daemon in self.daemons if daemon.service == "raylet"], grace_s=None)

    def dead(self) -> list[Daemon]:
        return [daemon for daemon in self.daemons if not daemon.alive()]


class NodeOptions(msgspec.Struct, frozen=True):
    """What the node has; None: what the machine has."""

    num_cpus: float | None = None
    num_gpus: float | None = None
    resources: dict[str, float] | None = None
    #: Bytes, both.
    memory: float | None = None
    object_store_memory: float | None = None
    labels: dict[str, str] | None = None
    #: For clients outside of the cluster; None: none.
    gateway_port: int | None = None
    #: For Prometheus; None: a free one.
    metrics_export_port: int | None = None
    #: Environment of its raylet, and so of the tasks there, beside that of this process.
    env_vars: dict[str, str] | None = None


def check(options: NodeOptions) -> None:
    """Raises: ValueError, TypeError for what no node can have."""
    amounts = (options.num_cpus, options.num_gpus, options.resources, options.memory, options.object_store_memory)
    check_amounts(*amounts, options.labels)
    for name, value in (options.env_vars or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"env_vars must map names to texts, but has {name!r}: {value!r}")


class HeadOptions(msgspec.Struct, frozen=True):
    """Where the state goes; empty: SQLite, the GCS's own event bus, a directory."""

    #: Of the GCS; the scheduler and the objectstore service take the next two. 0: free ones.
    port: int = 6381
    etcd: str = ""
    nats: str = ""
    s3: str = ""
    #: For the state and the blobs; empty: with the node's other files, which end with it.
    directory: str = ""
    #: host:port of the GCS of each head, this one's among them; empty: this is the only one.
    heads: tuple[str, ...] = ()
    #: Another one of ``heads`` leads.
    standby: bool = False
    include_dashboard: bool = False
    #: Where the dashboard listens; empty and 0: where the head does, on its usual port or the next that is free.
    dashboard_host: str = ""
    dashboard_port: int = 0
    #: Further flags of the GCS.
    gcs: dict[str, Any] = {}


def check_head(head: HeadOptions, host: str) -> None:
    """Raises: ValueError for a head that cannot be one of several."""
    if head.heads and not head.etcd:
        raise ValueError("several heads need --etcd: what one of them writes must be known to the others")
    if head.heads and f"{host}:{head.port}" not in head.heads:
        raise ValueError(
            f"--address names the GCS of every head, and this one's is {host}:{head.port}: add it, or correct "
            "--node-ip-address and --port"
        )
    if head.standby and len(head.heads) < 2:
        raise ValueError("--standby needs --address=<host:port of the GCS of every head>, in the order of the first")
    if head.heads and head.directory:
        raise ValueError("--directory is of no use beside other heads: --etcd keeps the state, and --s3 the blobs")


def start_head(root: Path, token: str, host: str, head: HeadOptions, node: NodeOptions) -> LocalNode:
    """Start gcs, scheduler, objectstore and a raylet, which listen on ``host``; returns when the raylet has joined.

    Of several heads each has the whole list, and takes the two ports behind its GCS's for scheduler and objectstore: so
    everybody knows from the start whom to turn to when one of them is lost. Without S3 only the first one has an
    objectstore, as another one would not have its blobs.

    Raises: OSError (a port is in use), ValueError (there is no such port), RuntimeError (something did not start, and
    what it said).
    """
    check_installed()
    ports = [head.port + n for n in range(3)] if head.port else [_free_port(host) for _ in range(3)]
    if ports[-1] > tcp.MAX_PORT:
        raise ValueError(f"a head takes its port and the next two: port {head.port} is too high")
    for port in ports if head.port else ():
        tcp.listen(host, port).close()
    own, scheduler, objectstore = (f"{host}:{port}" for port in ports)
    heads = head.heads or (own,)
    launch = _Launch(root, token, head=True)
    try:
        directory = _state_directory(head.directory) if head.directory else launch.directory
        health_port = _free_port(host) if head.etcd else 0
        launch.spawn(
            "gcs",
            host=host,
            port=ports[0],
            health_port=health_port,
            session_name=_session_name(heads, token) if head.standby else _kept_name(directory, launch.directory.name),
            store_path=directory / "gcs.sqlite",
            # Alone it may have any three ports.
            scheduler_addresses=",".join(_behind(heads, 1)) if head.heads else scheduler,
            objectstore_addresses=",".join(_behind(heads if head.s3 else heads[:1], 2)) if head.heads else objectstore,
            etcd=head.etcd,
            nats_address=head.nats,
            **head.gcs,
        )
        launch.spawn("scheduler", host=host, port=ports[1], gcs_address=",".join(heads), nats_address=head.nats)
        blobs: Path | Literal[""] = "" if head.s3 or own != heads[0] else directory / "blobs"
        if head.s3 or blobs:
            launch.spawn("objectstore", host=host, port=ports[2], s3_endpoint=head.s3, directory=blobs)
            launch.await_service("objectstore", objectstore)
        # A standby answers there only.
        launch.await_service("gcs", f"{host}:{health_port}" if head.standby else own)
        launch.await_service("scheduler", scheduler)
        joined = launch.join(",".join(heads), host, node, blob_directory=blobs)
        return launch.add_dashboard(joined, head) if head.include_dashboard else joined
    except BaseException:
        launch.abandon()
        raise


def start_node(root: Path, token: str, gcs_address: str, host: str, node: NodeOptions) -> LocalNode:
    """Start a raylet that joins the cluster of that GCS. ``host`` empty: the address by which this machine reaches it.

    Raises: ConnectionError (no GCS there), AuthenticationError (wrong token), OSError (its name has no address),
    RuntimeError (as ``start_head``).
    """
    check_installed()
    gcs_host, _, port = gcs_address.partition(",")[0].rpartition(":")
    host = host or tcp.local_address(gcs_host.strip("[]"), int(port))
    launch = _Launch(root, token, head=False)
    try:
        return launch.join(gcs_address, host, node)
    except BaseException:
        launch.abandon()
        raise


class _Launch:
    """A node that is being started."""

    def __init__(self, root: Path, token: str, *, head: bool) -> None:
        self.directory = root / f"node_{secrets.token_hex(4)}"
        for part in ("", "sockets", "logs"):
            (self.directory / part).mkdir(mode=0o700)
        self._token = token
        self._head = head
        self._daemons: list[Daemon] = []

    def spawn(self, service: str, *, env_vars: Mapping[str, str] | None = None, **flags: Any) -> None:
        arguments = [f"--{name.replace('_', '-')}={_text(value)}" for name, value in flags.items() if value != ""]
        inherited = {
            name: value
            for name, value in environment().items()
            if service == "objectstore" or not name.startswith(_S3_CREDENTIALS)
        }
        self._daemons.append(
            start(
                service,
                interpreter(f"shoal_{service}", *arguments),
                {**inherited, **(env_vars or {}), TOKEN_VARIABLE: self._token},
                self._log(service),
            )
        )
        self._record(ClusterAddress("", "", "", os.fspath(self.directory), ""))

    def await_service(self, service: str, address: str) -> None:
        from shoal_common.service import healthcheck

        self._until(service, lambda: not healthcheck.check(address))

    def join(
        self, gcs_address: str, host: str, options: NodeOptions, blob_directory: Path | Literal[""] = ""
    ) -> LocalNode:
        """``blob_directory``: the objectstore service's, where it keeps the blobs on this machine."""
        with visiting(gcs_address, self._token) as gcs:
            told = gcs.nodes.cluster()
        if not told.objectstore_addresses:
            raise RuntimeError(
                f"The GCS at {gcs_address} does not know its objectstore service: start it with --objectstore-addresses"
            )
        node_id = secrets.token_hex(16)
        amounts = (options.num_cpus, options.num_gpus, options.resources, options.memory, options.object_store_memory)
        self.spawn(
            "raylet",
            env_vars=options.env_vars,
            host=host,
            port=0,
            channel_port=0,
            gateway_port=-1 if options.gateway_port is None else options.gateway_port,
            metrics_port=options.metrics_export_port or 0,
            node_id=node_id,
            gcs_address=gcs_address,
            scheduler_addresses=",".join(told.scheduler_addresses),
            objectstore_address=",".join(told.objectstore_addresses),
            blob_directory=blob_directory,
            nats_address=told.nats_address,
            cluster_id=told.cluster_id,
            session_name=told.session_name,
            session_dir=self.directory,
            labels=given_labels(options.labels, os.environ),
            resources=node_resources(*amounts, host=host, head=self._head),
            object_store_bytes=store_bytes(options.object_store_memory),
        )
        raylet = self._await_raylet(gcs_address, bytes.fromhex(node_id))
        cluster = ClusterAddress(gcs_address, raylet.raylet_path, node_id, os.fspath(self.directory), self._token, host)
        return self._record(cluster)

    def add_dashboard(self, node: LocalNode, head: HeadOptions) -> LocalNode:
        """Raises: RuntimeError."""
        dashboards.check_installed()
        host = head.dashboard_host or node.cluster.node_host
        flags = dashboards.flags(node.cluster.gcs_address, host, head.dashboard_port or None, self.directory)
        with visiting(node.cluster.gcs_address, self._token) as gcs:
            # Of a head that was killed and is started again, or of another one.
            _url, known = dashboards.announced(gcs)
            self.spawn("dashboard", nats_address=head.nats, **flags)
            url = dashboards.await_url(gcs, self._ended, known)
        return self._record(node.cluster, url)

    def _ended(self) -> str:
        """Of the process that was started last; empty: it runs."""
        last = self._daemons[-1]
        return "" if last.alive() else self._last_words(last.service)

    def _record(self, cluster: ClusterAddress, dashboard_url: str = "") -> LocalNode:
        """From the first process on, so that all can be ended when this one is killed meanwhile."""
        node = LocalNode(cluster, self._head, tuple(self._daemons), dashboard_url)
        new = self.directory / "new"
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(node))
        new.replace(self.directory / _RECORD)
        return node

    def _await_raylet(self, gcs_address: str, node_id: bytes) -> NodeRecord:
        with visiting(gcs_address, self._token) as gcs:

            def joined() -> NodeRecord | None:
                alive = (node for node in gcs.nodes.list() if node.state is NodeState.ALIVE)
                return next((node for node in alive if node.node_id == node_id), None)

            return self._until("raylet", joined)

    def _until(self, service: str, up: Callable[[], T | None]) -> T:
        """What ``up`` returns once that is true."""
        began = time.monotonic()
        told = False
        while True:
            for daemon in self._daemons:
                if not daemon.alive():
                    raise RuntimeError(f"the {daemon.service} has ended: {self._last_words(daemon.service)}")
            if answer := up():
                return answer
            waited = time.monotonic() - began
            if waited > START_TIMEOUT_S:
                raise RuntimeError(f"the {service} was not up after {waited:.0f} s: {self._last_words(service)}")
            if waited > _NOTICE_AFTER_S and not told:
                told = True
                logger.warning("The %s is not up yet: %s", service, self._last_words(service))
            time.sleep(_POLL_S)

    def _log(self, service: str) -> Path:
        return self.directory / "logs" / f"{service}.log"

    def _last_words(self, service: str) -> str:
        return last_words(self._log(service)) or "it has logged nothing"

    def abandon(self) -> None:
        end(self._daemons, grace_s=5.0)
        shutil.rmtree(self.directory, ignore_errors=True)


def recorded_nodes(root: Path | None = None) -> list[LocalNode]:
    """What was started on this machine by this user and not stopped, dead or alive; the last one first. ``root``: of a
    cluster that is made for tests; None: by ``shoal start``."""
    return _read((root or root_directory()).glob(f"node_*/{_RECORD}"))


def running_clusters() -> list[ClusterAddress]:
    """Where a driver of this machine can attach: those of ``shoal start``, then those that are made for tests; of each
    kind the last one started first."""
    for_tests = _read(root_directory().glob(f"cluster_*/node_*/{_RECORD}"))
    nodes = [*recorded_nodes(), *(node for node in for_tests if node.head)]
    return [
        node.cluster
        for node in nodes
        if node.node_id and any(daemon.service == "raylet" and daemon.alive() for daemon in node.daemons)
    ]


def _read(records: Iterable[Path]) -> list[LocalNode]:
    """The last one written first."""
    nodes = []
    for path in records:
        with contextlib.suppress(OSError, msgspec.DecodeError):  # it is just being written, or removed
            nodes.append((path.stat().st_mtime, msgspec.json.decode(path.read_bytes(), type=LocalNode)))
    return [node for _time, node in sorted(nodes, key=lambda item: item[0], reverse=True)]


def stop(nodes: Sequence[LocalNode], grace_s: float | None) -> list[Daemon]:
    """End their processes, by force after ``grace_s`` seconds (None: at once), and remove their files.

    Raylets end first: they have something to say to the others. Returns those that it took force.
    """
    raylets = [daemon for node in nodes for daemon in node.daemons if daemon.service == "raylet"]
    others = [daemon for node in nodes for daemon in node.daemons if daemon.service != "raylet"]
    forced = [*end(raylets, grace_s), *end(others, grace_s)]
    for node in nodes:
        shutil.rmtree(node.directory, ignore_errors=True)
    return forced


def _state_directory(path: str) -> Path:
    """Raises: OSError."""
    directory = Path(path).absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _kept_name(directory: Path, new: str) -> str:
    """The name of the session whose state is in this directory; ``new`` if it begins now. Raises: OSError."""
    path = directory / "session"
    with contextlib.suppress(FileNotFoundError):
        if name := path.read_text():
            return name
    path.write_text(new)
    return new


def _session_name(heads: Sequence[str], token: str) -> str:
    """As the head that leads tells it. Raises: as ``start_node``."""
    with visiting(",".join(heads), token) as gcs:
        return gcs.nodes.cluster().session_name


def _behind(heads: Sequence[str], number: int) -> list[str]:
    """The addresses whose ports are so many above those of the heads' GCS."""
    parts = (head.rpartition(":") for head in heads)
    return [f"{host}:{int(port) + number}" for host, _, port in parts]


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)
