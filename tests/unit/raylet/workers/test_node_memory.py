from __future__ import annotations

import os
from pathlib import Path

import pytest

from shoal_raylet.leases.memory_policy import NodeMemory
from shoal_raylet.workers.node_memory import read_family_bytes, read_node_memory


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        (
            "0::/box\n",
            {"box/memory.max": "500", "box/memory.current": "450", "box/memory.stat": "inactive_file 50"},
            400,
        ),
        (
            "4:cpu,memory:/x\n0::/\n",
            {
                "memory/memory.limit_in_bytes": "500",
                "memory/memory.usage_in_bytes": "450",
                "memory/memory.stat": "total_inactive_file 20",
            },
            430,
        ),
    ],
)
def test_a_cgroups_limit_counts(tmp_path: Path, cgroup: str, files: dict[str, str], expected: int) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    write(proc / "meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 900 kB\n")
    write(proc / "self" / "cgroup", cgroup)
    for name, text in files.items():
        write(cgroups / name, text)
    assert read_node_memory(proc, cgroups) == NodeMemory(expected, 500)


def test_without_a_limit_the_machine_counts(tmp_path: Path) -> None:
    write(tmp_path / "meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 900 kB\n")
    write(tmp_path / "self" / "cgroup", "0::/\n")
    write(tmp_path / "cg" / "memory.max", "max\n")
    assert read_node_memory(tmp_path, tmp_path / "cg") == NodeMemory(100 * 1024, 1000 * 1024)


def process(proc: Path, pid: int, private_pages: int, anonymous_kib: int, *children: int) -> None:
    write(proc / str(pid) / "statm", f"9000 {private_pages + 7} 7 1 0 1 0")
    write(proc / str(pid) / "smaps_rollup", f"Rss: 1 kB\nPss: 9 kB\nPss_Anon: {anonymous_kib} kB\n")
    write(proc / str(pid) / "task" / str(pid) / "children", " ".join(map(str, children)))


def test_what_a_process_has_started_counts_too(tmp_path: Path) -> None:
    process(tmp_path, 1, 10, 0, 2, 3)
    process(tmp_path, 2, 20, 0, 4)
    process(tmp_path, 4, 30, 0, 5)  # 3 and 5 have ended
    assert read_family_bytes(1, suspicious=1 << 30, proc=tmp_path) == 60 * os.sysconf("SC_PAGE_SIZE")


def test_what_a_fork_shares_counts_once_where_it_matters(tmp_path: Path) -> None:
    process(tmp_path, 1, 100, 200, 2)
    process(tmp_path, 2, 100, 200)
    assert read_family_bytes(1, suspicious=1, proc=tmp_path) == 400 * 1024
    process(tmp_path, 1, 100, 200)
    assert read_family_bytes(1, suspicious=1, proc=tmp_path) == 100 * os.sysconf("SC_PAGE_SIZE")
