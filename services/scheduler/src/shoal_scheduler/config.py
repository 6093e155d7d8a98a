"""What the scheduler service is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shoal_common.bus.connect import BusConfig
from shoal_common.service.config import setting
from shoal_common.service.measured import MeasuredConfig


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig(BusConfig, MeasuredConfig):
    """Shoal's global scheduler: chooses nodes by estimated waiting time, from heartbeats alone."""

    SERVICE: ClassVar[str] = "scheduler"

    port: int = setting(6382, doc="port to listen on; 0 takes a free one", minimum=0, maximum=65535)
    cluster_id: str = setting("default", doc="the cluster, as the GCS has it, whose heartbeats count")
    gcs_address: str = setting(
        "", doc="host:port of each GCS, separated by commas; needed by a process of its own that is not on NATS"
    )
    silent_after_s: float = setting(
        5.0, doc="a node that sends no heartbeat for so long is not chosen", unit="seconds", minimum=0.1
    )
