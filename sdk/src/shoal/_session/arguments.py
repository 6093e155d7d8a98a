"""Arguments of ``init``: checks, and what a node has when they do not say."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

from shoal_common.placement.gpus import node_gpu_ids
from shoal_common.placement.labels import canonical_labels

logger = logging.getLogger("shoal")

#: Of the addresses of gateways.
GATEWAY_SCHEME = "shoal://"

MAX_STORE_BYTES = 200 * 1000**3
MIN_STORE_BYTES = 75 * 1024 * 1024


def check_amounts(
    num_cpus: Any, num_gpus: Any, resources: Any, memory: Any, object_store_memory: Any, labels: Any
) -> None:
    for name, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus), ("memory", memory)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number, not {type(value).__name__}")
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    if num_gpus is not None:
        if num_gpus % 1:
            raise ValueError(f"num_gpus of a node must be a whole number, got {num_gpus}")
        node_gpu_ids(int(num_gpus), os.environ)
    if object_store_memory is not None:
        if isinstance(object_store_memory, bool) or not isinstance(object_store_memory, int):
            raise TypeError("object_store_memory must be an int, in bytes")
        if object_store_memory < MIN_STORE_BYTES:
            raise ValueError(
                "Attempting to cap object store memory usage at "
                f"{object_store_memory} bytes, but the minimum allowed is {MIN_STORE_BYTES} bytes."
            )
    if resources is not None:
        if not isinstance(resources, dict):
            raise TypeError("resources must be a dictionary of name to amount")
        for name, amount in resources.items():
            if name in ("CPU", "GPU", "memory", "object_store_memory"):
                raise ValueError(f"Use num_cpus, num_gpus, object_store_memory instead of resources[{name!r}]")
            if isinstance(amount, bool) or not isinstance(amount, (int, float)):
                raise TypeError(f"resources[{name!r}] must be a number")
            if amount < 0:
                raise ValueError(f"resources[{name!r}] must not be negative, got {amount}")
            if amount >= 1 and amount != int(amount):
                raise ValueError(f"Resource quantities >1 must be whole numbers: resources[{name!r}] is {amount}")
    canonical_labels(labels or {})


def _available_memory() -> int:
    """Bytes, within the container's limit."""
    available = 0
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            available = min(available, int(Path(path).read_text()))
    return available


def store_bytes(object_store_memory: int | None) -> int:
    if object_store_memory is not None:
        return object_store_memory
    return max(min(int(_available_memory() * 0.3), MAX_STORE_BYTES), MIN_STORE_BYTES)


def node_resources(
    num_cpus: float | None,
    num_gpus: float | None,
    resources: dict[str, float] | None,
    memory: int | None,
    object_store_memory: int | None,
    *,
    host: str = "127.0.0.1",
    head: bool = True,
) -> dict[str, float]:
    """All resources of a node, in units and bytes; None: what the machine has."""
    amounts = dict(resources or {})
    amounts["CPU"] = len(os.sched_getaffinity(0)) if num_cpus is None else num_cpus
    if num_gpus:
        amounts["GPU"] = num_gpus
    amounts["memory"] = memory if memory is not None else int(_available_memory() * 0.7)
    amounts["object_store_memory"] = store_bytes(object_store_memory)
    amounts[f"node:{host}"] = 1.0
    if head:
        amounts["node:__internal_head__"] = 1.0
    return amounts


#: What ``_system_config`` may set on an embedded cluster, each also by the environment variable SHOAL_<NAME>:
#: name -> (default, least, most). Seconds; a share of the node's memory.
SYSTEM_SETTINGS = {
    "infeasible_grace_s": (30.0, -1.0, float("inf")),
    "memory_usage_threshold": (0.95, 0.0, 1.0),
    "store_full_grace_s": (1.0, 0.0, float("inf")),
}


def system_settings(system_config: dict[str, Any]) -> dict[str, float]:
    """Settings of the embedded services. Ray's own names that mean nothing here are passed over with a warning.

    Raises: ValueError naming the setting and its range.
    """
    unknown = sorted(set(system_config) - set(SYSTEM_SETTINGS))
    if unknown:
        logger.warning("_system_config: ignored, as it means nothing to Shoal: %s", ", ".join(unknown))
    settings = {}
    for name, (default, least, most) in SYSTEM_SETTINGS.items():
        given = system_config.get(name, os.environ.get(f"SHOAL_{name.upper()}", default))
        try:
            value = float(given)
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be a number, got {given!r}") from None
        if not least <= value <= most:
            raise ValueError(f"{name} must be between {least:g} and {most:g}, got {given!r}")
        settings[name] = value
    return settings
