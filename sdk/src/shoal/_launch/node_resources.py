"""What a node has: checks of what is asked for, and what the machine has when nothing is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from shoal._text import check_text
from shoal._values.numbers import plain, plain_amounts
from shoal_common.placement.gpus import node_gpu_ids
from shoal_common.placement.labels import check_labels, given_labels

MAX_STORE_BYTES = 200 * 1000**3
MIN_STORE_BYTES = 75 * 1024 * 1024


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
        if object_store_memory > (most := _total_memory()):
            raise ValueError(
                f"object_store_memory={object_store_memory} is more than the {most} bytes of memory and swap that this "
                "machine has: give less, what finds no room in it is spilled to the disk"
            )
    if resources is not None:
        if not isinstance(resources, dict):
            raise TypeError("resources must be a dictionary of name to amount")
        for name, amount in resources.items():
            if not isinstance(name, str) or not name:
                raise ValueError(f"The name of a resource must be a text that is not empty, got {name!r}")
            check_text("the name of a resource", name)
            if name in ("CPU", "GPU", "memory", "object_store_memory"):
                raise ValueError(f"Use num_cpus, num_gpus, object_store_memory instead of resources[{name!r}]")
            _check_amount(f"resources[{name!r}]", amount)
            if amount >= 1 and amount != int(amount):
                raise ValueError(f"Resource quantities >1 must be whole numbers: resources[{name!r}] is {amount}")
    check_labels(given_labels(labels, os.environ))


def _check_amount(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(plain(value), (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    if not value < float("inf"):  # NaN too
        raise ValueError(f"{name} must be finite")


def _machine_memory(*kinds: str) -> int:
    """Bytes of these together."""
    with open("/proc/meminfo") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.partition(":")[0] in kinds)


def _total_memory() -> int:
    """Bytes, swap among them."""
    return _machine_memory("MemTotal", "SwapTotal")


def available_memory() -> int:
    """Bytes, within the container's limit."""
    available = _machine_memory("MemAvailable")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            available = min(available, int(Path(path).read_text()))
    return available


def store_bytes(object_store_memory: float | None) -> int:
    if object_store_memory is not None:
        return int(object_store_memory)
    return max(min(int(available_memory() * 0.3), MAX_STORE_BYTES), MIN_STORE_BYTES)


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
    amounts["memory"] = int(memory) if memory is not None else int(available_memory() * 0.7)
    amounts["object_store_memory"] = store_bytes(object_store_memory)
    amounts[f"node:{host}"] = 1.0
    if head:
        amounts["node:__internal_head__"] = 1.0
    return amounts
