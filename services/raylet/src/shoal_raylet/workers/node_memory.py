"""Reads memory use from /proc and the cgroup file systems (versions 1 and 2)."""

from __future__ import annotations

import os
from pathlib import Path

from shoal_raylet.leases.memory_policy import NodeMemory

_PAGE = os.sysconf("SC_PAGE_SIZE")


def read_node_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> NodeMemory:
    """The machine's memory or the cgroup's, whichever is nearer to its end."""
    machine = _read_machine(proc)
    cgroup = _read_cgroup(proc, cgroups)
    if cgroup is None or cgroup.limit > machine.limit:
        return machine
    return max(machine, cgroup, key=lambda memory: memory.used / memory.limit)


def read_private_bytes(pid: int) -> int:
    """Memory of a process that is not shared with others; 0 when it has ended.

    From ``statm``, resident less file-backed and shared pages: the arena is everybody's.
    """
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(fields[1]) - int(fields[2])) * _PAGE


def _read_machine(proc: Path) -> NodeMemory:
    amounts = {}
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        amounts[name] = int(rest.split()[0]) * 1024
    return NodeMemory(amounts["MemTotal"] - amounts["MemAvailable"], amounts["MemTotal"])


def _read_cgroup(proc: Path, cgroups: Path) -> NodeMemory | None:
    """Page cache that the kernel can drop at once does not count. None: no limit, or no such controller."""
    for line in (proc / "self" / "cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        relative = path.lstrip("/")
        if "memory" in controllers.split(","):
            # In a container the path is the host's and the root shows the container's own group.
            for folder in (cgroups / "memory" / relative, cgroups / "memory"):
                if (folder / "memory.limit_in_bytes").exists():
                    return _amounts(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif number == "0":
            for folder in (cgroups / relative, cgroups):
                if (folder / "memory.max").exists():
                    return _amounts(folder, "memory.max", "memory.current", "inactive_file")
    return None


def _amounts(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> NodeMemory | None:
    limit = (folder / limit_name).read_text().strip()
    if limit == "max":
        return None
    usage = int((folder / usage_name).read_text())
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == cache_name:
            usage -= int(value)
            break
    return NodeMemory(max(0, usage), int(limit))
