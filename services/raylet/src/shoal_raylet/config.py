"""Settings of one raylet."""

# ruff: noqa: RUF009 - setting() makes a dataclass field
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from shoal_common.bus.connect import BusConfig
from shoal_common.placement.resources import OBJECT_STORE_MEMORY
from shoal_common.service.config import setting

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RayletConfig(BusConfig):
    """Shoal's node service: leases worker processes, holds objects in shared memory."""

    SERVICE: ClassVar[str] = "raylet"

    node_id: str = setting("", doc="node id in hexadecimal, 32 digits; empty takes a random one")
    gcs_address: str = setting(doc="host:port of each GCS, separated by commas")
    scheduler_addresses: tuple[str, ...] = setting(doc="host:port of each scheduler replica")
    objectstore_address: str = setting(
        doc="gRPC address of the objectstore service, host:port; a name with an address for each replica, or all of "
        "them with commas"
    )
    blob_directory: Path | None = setting(
        None,
        doc="the directory in which that service keeps its blobs, if it is on a disk of this machine: the raylet then "
        "writes and reads the files itself, and durable actors append to their logs there",
    )
    blob_min_free_bytes: int = setting(
        256 * MIB, doc="stop storing when less would stay free on the disk of blob_directory", unit="bytes", minimum=0
    )
    channel_port: int = setting(
        -1,
        doc="TCP port for the framed channels of other nodes; 0 takes a free one, -1 = none, for a cluster of one node",
        minimum=-1,
        maximum=65535,
    )
    advertise_host: str = setting(
        "",
        doc="address by which other nodes reach this one; empty = host, or if that is 0.0.0.0 the one towards the GCS",
    )
    gateway_port: int = setting(
        -1,
        doc="TCP port for clients outside of the cluster (shoal://); 0 takes a free one, -1 = none",
        minimum=-1,
        maximum=65535,
    )
    gateway_host: str = setting("", doc="address to listen on for those clients; empty = host")
    gateway_grace_s: float = setting(
        90.0,
        doc="a client that is cut off for longer has lost its session, and its job ends",
        unit="seconds",
        minimum=0,
    )
    metrics_port: int = setting(
        0,
        doc="TCP port for GET /metrics, which Prometheus reads; from elsewhere than this machine with the header "
        "Authorization: Bearer <the cluster's token>; 0 takes a free one, -1 = none",
        minimum=-1,
        maximum=65535,
    )
    cluster_id: str = setting(doc="id of the cluster, as the GCS tells it")
    session_name: str = setting("session", doc="name of the session, for humans")
    session_dir: Path = setting(doc="holds sockets/ and logs/; short, because a Unix socket's path has 107 bytes")
    resources: dict[str, float] = setting({}, doc="resources of this node; without CPU: all of its CPUs")
    gpu_ids: tuple[str, ...] = setting(
        (), doc="ids of the GPUs; empty = those that CUDA_VISIBLE_DEVICES names, else 0 to n - 1"
    )
    labels: dict[str, str] = setting({}, doc="labels of this node")
    worker_env: dict[str, str] = setting({}, doc="further environment variables of the workers")
    fallback_dir: Path | None = setting(
        None,
        doc="holds a directory of files for the objects that find no room in shared memory; empty = the session_dir",
    )
    object_store_bytes: int = setting(doc="capacity of the shared-memory arena", unit="bytes", minimum=1)
    prefault_bytes: int = setting(
        -1,
        doc="bytes of the arena that are faulted in ahead; -1 = the smaller of 256 MiB and an eighth of the arena",
        unit="bytes",
        minimum=-1,
    )
    store_full_grace_s: float = setting(
        1.0,
        doc="how long creators wait for shared memory without any progress before their objects become files",
        unit="seconds",
        minimum=0,
    )
    infeasible_grace_s: float = setting(
        30.0,
        doc="a request that no node can hold fails after this; 0 = at once, -1 = never",
        unit="seconds",
        minimum=-1,
    )
    worker_startup_timeout_s: float = setting(
        60.0, doc="a worker process must have registered by then", unit="seconds", minimum=0.1
    )
    memory_usage_threshold: float = setting(
        0.95, doc="share of the node's memory over which a worker is killed; 1 = never", minimum=0, maximum=1
    )
    stop_grace_s: float = setting(
        0.5, doc="workers may take this long to end by themselves when the raylet stops", unit="seconds", minimum=0
    )
    drain_s: float = setting(
        5.0,
        doc="when the raylet leaves the cluster, tasks that run may take this long to end",
        unit="seconds",
        minimum=0,
    )
    hand_over_s: float = setting(
        15.0,
        doc="then it may take this long to hand its objects to other nodes, or to spill them",
        unit="seconds",
        minimum=0,
    )
    register_timeout_s: float = setting(
        30.0, doc="the raylet does not start when the GCS has not answered by then", unit="seconds", minimum=0.1
    )

    rejoin_timeout_s: float = setting(
        300.0,
        doc="the raylet ends with an error when no GCS has answered for so long; -1 = never",
        unit="seconds",
        minimum=-1,
    )

    @property
    def total_resources(self) -> dict[str, float]:
        """In units; ``CPU`` is always there, and ``object_store_memory`` in bytes."""
        return {
            "CPU": float(len(os.sched_getaffinity(0))),
            **self.resources,
            OBJECT_STORE_MEMORY: float(self.object_store_bytes),
        }

    @property
    def effective_prefault_bytes(self) -> int:
        if self.prefault_bytes >= 0:
            return self.prefault_bytes
        return min(256 * MIB, self.object_store_bytes // 8)
