"""Arguments of ``init``: checks, and what a node has when they do not say."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoal._not_implemented import RUNTIME_ENV, refuse
from shoal._values.numbers import plain, plain_amounts
from shoal_common.placement.gpus import node_gpu_ids
from shoal_common.placement.labels import canonical_labels

logger = logging.getLogger("shoal")

#: Of the addresses of gateways.
GATEWAY_SCHEME = "shoal://"

MAX_STORE_BYTES = 200 * 1000**3
MIN_STORE_BYTES = 75 * 1024 * 1024


#: What ``init`` takes beside its named arguments; "_" is Ray's sign for what may change.
PRIVATE = ("_memory", "_temp_dir", "_system_config", "_object_spilling_directory", "allow_multiple")

_NO_DASHBOARD = "there is no dashboard yet, `shoal status` shows the cluster. Pass include_dashboard=False"
_NO_ISOLATION = "what the nodes' services need is not reserved for them. Leave it out"
#: Arguments of Ray's ``init`` for what Shoal does not have: the values that ask for nothing, and what to do instead.
NOT_IMPLEMENTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "local_mode": ((False, None), "debug a task with breakpoint(), or call the plain function"),
    "runtime_env": ((None, {}), RUNTIME_ENV),
    "include_dashboard": ((None, False), _NO_DASHBOARD),
    "dashboard_host": (("127.0.0.1", "localhost"), _NO_DASHBOARD),
    "dashboard_port": ((None,), _NO_DASHBOARD),
    "logging_config": ((None,), "use logging_level and logging_format"),
    "enable_resource_isolation": ((False,), _NO_ISOLATION),
    "system_reserved_cpu": ((None,), _NO_ISOLATION),
    "system_reserved_memory": ((None,), _NO_ISOLATION),
    "_node_ip_address": ((None, "127.0.0.1", "localhost"), "use `shoal start --node-ip-address`"),
    "_node_name": ((None,), "give the node labels"),
    "_driver_object_store_memory": ((None,), "a driver shares its node's store: set object_store_memory"),
    "_metrics_export_port": ((None,), "there are no metrics yet. Leave it out"),
    "_tracing_startup_hook": ((None,), "there is no tracing yet. Leave it out"),
    "_redis_username": ((None,), "there is no Redis here. Leave it out"),
    "_redis_password": ((None,), "there is no Redis here. Leave it out"),
    "_plasma_directory": ((None,), "shared memory needs no directory here. Leave it out"),
    "_enable_object_reconstruction": ((None, False), "lost objects are not computed again yet. Leave it out"),
}


def check_implemented(given: Mapping[str, Any]) -> None:
    """Raises: RuntimeError for an argument that Ray has not either, ValueError for what is not implemented."""
    if unknown := sorted(name for name in given if name not in PRIVATE and name not in NOT_IMPLEMENTED):
        raise RuntimeError(f"Unknown keyword argument(s): {', '.join(unknown)}")
    for name, value in given.items():
        if name.startswith("dashboard_") and given.get("include_dashboard") is False:
            continue  # where the dashboard would be that is not wanted
        if name in NOT_IMPLEMENTED:
            refuse(name, value, *NOT_IMPLEMENTED[name])


def check_amounts(
    num_cpus: Any, num_gpus: Any, resources: Any, memory: Any, object_store_memory: Any, labels: Any
) -> None:
    """Raises: TypeError, ValueError for what no node can have."""
    for name, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus), ("memory", memory)):
        if value is not None:
            _check_amount(name, value)
    if num_gpus is not None:
        if num_gpus % 1:
            raise ValueError(f"num_gpus of a node must be a whole number, got {num_gpus}")
        node_gpu_ids(int(num_gpus), os.environ)
    if object_store_memory is not None:
        _check_amount("object_store_memory", object_store_memory)
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
            _check_amount(f"resources[{name!r}]", amount)
            if amount >= 1 and amount != int(amount):
                raise ValueError(f"Resource quantities >1 must be whole numbers: resources[{name!r}] is {amount}")
    canonical_labels(labels or {})


def _check_amount(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(plain(value), (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not value >= 0:  # NaN too
        raise ValueError(f"{name} must not be negative, got {value}")
    if value == float("inf"):
        raise ValueError(f"{name} must be finite")


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


def store_bytes(object_store_memory: float | None) -> int:
    if object_store_memory is not None:
        return int(object_store_memory)
    return max(min(int(_available_memory() * 0.3), MAX_STORE_BYTES), MIN_STORE_BYTES)


def node_resources(
    num_cpus: float | None,
    num_gpus: float | None,
    resources: dict[str, float] | None,
    memory: float | None,
    object_store_memory: float | None,
    *,
    host: str = "127.0.0.1",
    head: bool = True,
) -> dict[str, float]:
    """All resources of a node, in units and bytes; None: what the machine has."""
    amounts: dict[str, float] = plain_amounts(resources or {})
    amounts["CPU"] = len(os.sched_getaffinity(0)) if num_cpus is None else plain(num_cpus)
    if num_gpus:
        amounts["GPU"] = plain(num_gpus)
    amounts["memory"] = int(memory) if memory is not None else int(_available_memory() * 0.7)
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
