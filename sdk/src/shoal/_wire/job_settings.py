"""What a driver settles for its job: in the function table, for each worker to take on before its first code runs."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shoal.job_config import LoggingConfig
from shoal_common.ids import FUNCTION_LENGTH
from shoal_common.placement.resources import GRAINS, MAX_GRAINS


class JobSettings(msgspec.Struct, frozen=True):
    namespace: str
    #: "detached" or "non_detached": of actors whose options do not say.
    default_actor_lifetime: str
    #: Where the driver's modules come from, ahead of the workers' own. Names of files need not be UTF-8.
    sys_path: list[bytes]
    #: Of each of its processes.
    max_lineage_bytes: float
    #: Its share of a busy node next to that of other jobs.
    weight: float = 1.0
    #: What it may hold at once over the whole cluster, in units; None = as much as there is.
    max_resources: dict[str, float] | None = None
    #: How its processes log; None = as they do.
    logging: LoggingConfig | None = None
    #: "module:function", which sets up OpenTelemetry in each of its processes; empty = its calls are not traced.
    tracing_startup_hook: str = ""
    #: Whether its processes tell of their tasks.
    task_events: bool = True
    #: The name that the job holds; empty = none.
    job_name: str = ""


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(JobSettings).decode


def quota_of(max_resources: Mapping[str, float] | None) -> tuple[tuple[str, int], ...]:
    """As ``frames.SchedulingClass.quota``."""
    grains = {name: min(round(amount * GRAINS), MAX_GRAINS) for name, amount in (max_resources or {}).items()}
    return tuple(sorted(grains.items()))


def key(job_id: bytes) -> bytes:
    """In the function table."""
    return job_id.ljust(FUNCTION_LENGTH, b"\0")
