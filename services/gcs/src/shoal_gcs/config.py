"""Every setting of the GCS."""

# ruff: noqa: RUF009 - setting() makes a dataclass field
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from shoal_common.bus.connect import BusConfig
from shoal_common.service.config import setting
from shoal_common.service.measured import MeasuredConfig
from shoal_common.tls import ServerTls

_STORE_PATH = Path("shoal-gcs.sqlite")


@dataclass(frozen=True, kw_only=True)
class GcsConfig(BusConfig, MeasuredConfig):
    """The global control service: nodes, jobs, actors, the function table."""

    SERVICE: ClassVar[str] = "gcs"

    port: int = setting(6381, doc="port to listen on; 0 takes a free one", minimum=0, maximum=65535)
    cluster_id: str = setting("default", doc="name of the cluster, part of every key and subject")
    session_name: str = setting("session", doc="name of the cluster's files, told to every driver")
    health_port: int = setting(
        0,
        doc="port for health checks only, which a standby answers too; without token; 0 = none",
        minimum=0,
        maximum=65535,
    )
    etcd: tuple[str, ...] = setting(
        (),
        doc="host:port of the etcd of each shard, all of them and always in this order; several members of one shard "
        "are joined with +. Empty = the file store_path",
    )
    etcd_user: str = setting("", doc="user at etcd; empty = none")
    etcd_password_file: Path | None = setting(None, doc="file with that user's password")
    etcd_ca: Path | None = setting(
        None, doc="PEM file of the authority that signed etcd's certificates; TLS to etcd is on when it is given"
    )
    etcd_cert: Path | None = setting(None, doc="PEM file of this process's certificate, if etcd asks for one")
    etcd_key: Path | None = setting(None, doc="PEM file of its key")
    etcd_server_name: str = setting("", doc="name in etcd's certificates; empty = the host of a shard's first member")
    leader_ttl_s: float = setting(
        3.0,
        doc="a standby takes over when the leader has been gone for so long; etcd counts whole seconds, and 2 at least",
        unit="seconds",
        minimum=1.0,
    )
    store_path: Path = setting(
        _STORE_PATH,
        doc="file of the embedded metadata store; used when the GCS runs as a process of its own, without etcd",
    )
    scheduler_addresses: tuple[str, ...] = setting((), doc="host:port of each scheduler replica")
    objectstore_addresses: tuple[str, ...] = setting(
        (),
        doc="host:port of each objectstore replica, or of a name for all; told to raylets that join with "
        "`shoal start`, and what dead jobs have spilled is deleted there. Empty = nobody does that",
    )
    package_keep_days: int = setting(
        7,
        doc="packages of runtime environments, and what pip and uv have installed, are deleted there when no process "
        "has used them for so long, and logs of nodes that are gone after so long; -1 = never",
        unit="days",
        minimum=-1,
    )
    silence_s: float = setting(
        1.5, doc="time without a heartbeat before a raylet is asked directly", unit="seconds", minimum=0.1
    )
    checks: int = setting(
        2, doc="direct checks in a row that fail before a node is dead; each takes at most 1.4 s", minimum=1
    )
    infeasible_grace_s: float = setting(
        30.0,
        doc="time that an actor which fits no node waits for one to join, before it is dead; 0 = none, -1 = for ever",
        unit="seconds",
    )
    dead_actors_kept: int = setting(10_000, doc="dead actors that are remembered", minimum=0)
    dead_nodes_kept: int = setting(1_000, doc="dead nodes that are remembered", minimum=0)
    finished_jobs_kept: int = setting(1_000, doc="finished jobs that are remembered", minimum=1)

    max_named_objects: int = setting(
        100_000,
        doc="named objects that one named job keeps, and results in the cache; further ones are refused",
        minimum=1,
    )
    max_named_bytes: int = setting(
        64 << 30, doc="bytes that all of them may have, and all results in the cache", unit="bytes", minimum=1
    )

    max_running_submissions: int = setting(
        0, doc="submitted jobs that run at once; others wait, by their priority; 0 = any number", minimum=0
    )
    max_waiting_submissions: int = setting(10_000, doc="submitted jobs that wait; further ones are refused", minimum=1)
    ended_submissions_kept: int = setting(10_000, doc="submitted jobs that are remembered after their end", minimum=0)

    @property
    def etcd_tls(self) -> ServerTls | None:
        """Raises: TlsError when the files cannot be used."""
        return ServerTls.from_files(self.etcd_ca, self.etcd_cert, self.etcd_key, self.etcd_server_name)
