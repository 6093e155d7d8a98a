"""Every setting of the GCS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from shoal_common.config import ServiceConfig, setting

_STORE_PATH = Path("shoal-gcs.sqlite")


@dataclass(frozen=True, kw_only=True)
class GcsConfig(ServiceConfig):
    """The global control service: nodes, jobs, actors, the function table."""

    SERVICE: ClassVar[str] = "gcs"

    port: int = setting(6381, doc="port to listen on; 0 takes a free one", minimum=0, maximum=65535)
    cluster_id: str = setting("default", doc="name of the cluster, part of every key and subject")
    session_name: str = setting("session", doc="name of the cluster's files, told to every driver")
    store_path: Path = setting(  # noqa: RUF009
        _STORE_PATH, doc="file of the embedded metadata store; used when the GCS runs as a process of its own"
    )
    scheduler_addresses: tuple[str, ...] = setting((), doc="host:port of each scheduler replica")
    silence_s: float = setting(
        5.0, doc="time without a heartbeat before a raylet is asked directly", unit="seconds", minimum=0.1
    )
    checks: int = setting(3, doc="direct checks that fail, one a second, before a node is dead", minimum=1)
    infeasible_grace_s: float = setting(
        30.0,
        doc="time that an actor which fits no node waits for one to join, before it is dead; 0 = none, -1 = for ever",
        unit="seconds",
    )
    dead_actors_kept: int = setting(10_000, doc="dead actors that are remembered", minimum=0)
    dead_nodes_kept: int = setting(1_000, doc="dead nodes that are remembered", minimum=0)
    finished_jobs_kept: int = setting(1_000, doc="finished jobs that are remembered", minimum=1)
