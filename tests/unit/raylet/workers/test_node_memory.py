from __future__ import annotations

from pathlib import Path

import pytest

from shoal_raylet.leases.memory_policy import NodeMemory
from shoal_raylet.workers.node_memory import read_node_memory


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
