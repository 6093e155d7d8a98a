"""Reads memory use from /proc and the cgroup file systems (versions 1 and 2)."""

from __future__ import annotations

import contextlib
import os
from heapq import nlargest
from pathlib import Path

from shoal_raylet.leases.memory_policy import NodeMemory, ProcessMemory
from shoal_raylet.workers.process_tree import descendants

#: How the titles of workers begin.
WORKER_TITLE = "shoal::"
_PAGE = os.sysconf("SC_PAGE_SIZE")


def read_node_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> NodeMemory:
    """The machine's memory or the cgroup's, whichever is nearer to its end."""
    machine = _read_machine(proc)
    cgroup = _read_cgroup(proc, cgroups)
    if cgroup is None or cgroup.limit > machine.limit:
        return machine
    return max(machine, cgroup, key=lambda memory: memory.used / memory.limit)


def read_private_bytes(pid: int, proc: Path = Path("/proc")) -> int:
    """Memory of a process that is not shared with others; 0 when it has ended.

    From ``statm``, resident less file-backed and shared pages: the arena is everybody's.
    """
    try:
        fields = (proc / str(pid) / "statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(fields[1]) - int(fields[2])) * _PAGE


def read_family_bytes(pid: int, suspicious: int, proc: Path = Path("/proc")) -> int:
    """Memory of a process and of all that it has started, not shared with others.

    Looked at closely only above ``suspicious`` bytes, as that takes the kernel long: what a fork shares with its parent
    counts for both at first, and once then.
    """
    family = [pid, *descendants(pid, proc)]
    used = sum(read_private_bytes(each, proc) for each in family)
    if len(family) == 1 or used <= suspicious:
        return used
    return sum(_proportional_bytes(each, proc) for each in family)


def _proportional_bytes(pid: int, proc: Path) -> int:
    """Anonymous memory, each page divided by how many have it; 0 when it has ended."""
    try:
        text = (proc / str(pid) / "smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss_Anon:"))


def largest_processes(count: int, proc: Path = Path("/proc")) -> list[ProcessMemory]:
    """Those of the machine that use most memory of their own, as far as they can be seen."""
    sizes = {
        int(entry.name): read_private_bytes(int(entry.name), proc) for entry in proc.iterdir() if entry.name.isdigit()
    }
    return [ProcessMemory(pid, _name(proc, pid), sizes[pid]) for pid in nlargest(count, sizes, key=sizes.__getitem__)]


def _name(proc: Path, pid: int) -> str:
    """What a worker runs, as its title says; of others only the program, as their arguments may be secret."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        title = (proc / str(pid) / "cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
        if title.startswith(WORKER_TITLE):
            return title.strip()
        return (proc / str(pid) / "comm").read_text().strip()
    return "a process that has ended"


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
