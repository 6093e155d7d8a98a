"""This machine and the workers on it, read from /proc and the cgroup file systems: counters and amounts, no rates."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
#: What /proc/diskstats counts in.
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class HostReading:
    """Bytes, and seconds since the machine started where not said otherwise."""

    #: When, in seconds of a clock that only runs forward.
    at: float
    cpus: int
    #: Of all CPUs together.
    cpu_busy_s: float
    memory_total: int
    memory_used: int
    memory_shared: int
    disk_used: int
    disk_free: int
    disk_read: int
    disk_written: int
    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class ProcessReading:
    cpu_s: float
    #: Resident, and how much of that is shared with others.
    resident: int
    shared: int


def read_host(directory: Path, proc: Path = Path("/proc")) -> HostReading:
    """``directory``: whose disk counts."""
    memory = _memory(proc)
    disk = os.statvfs(directory)
    read, written = _disks(proc)
    received, sent = _networks(proc)
    return HostReading(
        at=time.monotonic(),
        cpus=os.cpu_count() or 1,
        cpu_busy_s=_busy(proc),
        memory_total=memory["MemTotal"],
        memory_used=memory["MemTotal"] - memory["MemAvailable"],
        memory_shared=memory["Shmem"],
        disk_used=(disk.f_blocks - disk.f_bfree) * disk.f_frsize,
        disk_free=disk.f_bavail * disk.f_frsize,
        disk_read=read,
        disk_written=written,
        received=received,
        sent=sent,
    )


def read_processes(pids: Iterable[int], proc: Path = Path("/proc")) -> dict[int, ProcessReading]:
    """Those that have not ended."""
    found = {}
    for pid in pids:
        try:
            stat = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
            sizes = (proc / str(pid) / "statm").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        cpu_s = (int(stat[11]) + int(stat[12])) / _TICKS
        found[pid] = ProcessReading(cpu_s, int(sizes[1]) * _PAGE, int(sizes[2]) * _PAGE)
    return found


def _busy(proc: Path) -> float:
    """All but idle and waiting for a disk."""
    user, nice, system, _idle, _wait, *others = (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(map(int, (user, nice, system, *others))) / _TICKS


def _memory(proc: Path) -> dict[str, int]:
    lines = (line.split() for line in (proc / "meminfo").read_text().splitlines())
    return {fields[0].rstrip(":"): int(fields[1]) * 1024 for fields in lines}


def _disks(proc: Path) -> tuple[int, int]:
    """Read and written by all disks; parts of one and what lies on others are not counted again."""
    read = written = 0
    for line in (proc / "diskstats").read_text().splitlines():
        fields = line.split()
        if not fields[2].startswith(("loop", "ram", "dm-", "md")) and Path("/sys/block", fields[2]).exists():
            read, written = read + int(fields[5]) * _SECTOR, written + int(fields[9]) * _SECTOR
    return read, written


def _networks(proc: Path) -> tuple[int, int]:
    received = sent = 0
    for line in (proc / "net" / "dev").read_text().splitlines()[2:]:
        name, _, numbers = line.partition(":")
        if name.strip() != "lo":
            fields = numbers.split()
            received, sent = received + int(fields[0]), sent + int(fields[8])
    return received, sent
