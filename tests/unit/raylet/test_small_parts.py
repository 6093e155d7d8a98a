"""Exit reasons, lines, memory: small pure parts of the raylet."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_raylet.cluster.heartbeat import pause_s
from shoal_raylet.leases.exit_reason import ExitReason, exit_reason
from shoal_raylet.leases.memory_policy import MIN_GROWTH_BYTES, NodeMemory, WorkerMemory, choose_victim
from shoal_raylet.workers.line_splitter import MAX_LINE_BYTES, LineSplitter
from shoal_raylet.workers.node_memory import read_node_memory

ANNOUNCED = ExitReason("INTENDED_USER_EXIT", "max_calls reached")
CAUSED = ExitReason("NODE_OUT_OF_MEMORY", "it grew")


@pytest.mark.parametrize(
    ("exit_code", "announced", "caused", "kind", "detail"),
    [
        (-9, None, None, "SYSTEM_ERROR", "killed by SIGKILL"),
        (-11, ANNOUNCED, None, "SYSTEM_ERROR", "killed by SIGSEGV"),
        (-9, ANNOUNCED, CAUSED, "NODE_OUT_OF_MEMORY", "it grew"),
        (3, None, None, "SYSTEM_ERROR", "exited with code 3 (os._exit or sys.exit)"),
        (0, None, None, "SYSTEM_ERROR", "exited with code 0"),
        (0, ANNOUNCED, None, "INTENDED_USER_EXIT", "max_calls reached"),
        (None, None, None, "SYSTEM_ERROR", "not known"),
        (None, ANNOUNCED, None, "INTENDED_USER_EXIT", "max_calls reached"),
        (-40, None, None, "SYSTEM_ERROR", "killed by signal 40"),
    ],
)
def test_exit_reasons(
    exit_code: int | None, announced: ExitReason | None, caused: ExitReason | None, kind: str, detail: str
) -> None:
    reason = exit_reason(exit_code, announced, caused)
    assert reason.kind == kind
    assert detail in reason.detail


@given(st.lists(st.text(alphabet="ab\u20ac ", max_size=5)), st.lists(st.integers(1, 7)))
def test_lines_come_out_whole_however_they_are_cut(lines: list[str], cuts: list[int]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode() + b"rest"
    splitter = LineSplitter()
    got: list[str] = []
    for cut in cuts:
        got += splitter.feed(data[:cut])
        data = data[cut:]
    got += splitter.feed(data)
    assert got + splitter.end() == [*lines, "rest"]


def test_a_line_without_an_end_is_cut() -> None:
    splitter = LineSplitter()
    lines = splitter.feed(b"x" * (2 * MAX_LINE_BYTES + 5))
    assert [len(line) for line in lines] == [MAX_LINE_BYTES, MAX_LINE_BYTES]
    assert splitter.feed(b"\r\n") == ["x" * 5]
    assert splitter.end() == []


def test_the_start_of_a_line_can_be_taken_without_cutting_a_character() -> None:
    splitter = LineSplitter()
    assert splitter.feed("done\nüber €".encode()[:-1]) == ["done"]
    assert splitter.part() == "über "
    assert splitter.unfinished == b"\xe2\x82"
    assert splitter.part() == ""
    assert splitter.feed(b"\xac uro\n") == ["€ uro"]
    assert splitter.feed(b"\xff\xff") == [] and splitter.part() == "\ufffd\ufffd"


def test_bytes_that_are_not_text_do_not_stop_anything() -> None:
    assert LineSplitter().feed(b"\xff\n") == ["\ufffd"]


def memory(name: bytes, grown: int, retriable: bool = True, baseline: int = 0) -> WorkerMemory:
    return WorkerMemory(name, "f", baseline + grown, baseline, retriable)


def test_below_the_threshold_nobody_dies() -> None:
    assert choose_victim(NodeMemory(95, 100), 0.95, [memory(b"a", 1 << 40)]) is None


def test_the_one_that_grew_most_goes_not_the_largest() -> None:
    workers = [memory(b"a", 2 * MIN_GROWTH_BYTES, baseline=1 << 40), memory(b"b", 3 * MIN_GROWTH_BYTES)]
    victim = choose_victim(NodeMemory(96, 100), 0.95, workers)
    assert victim is not None and victim.worker_id == b"b"
    assert "96% used" in victim.detail and "threshold 95%" in victim.detail


def test_tasks_go_before_actors() -> None:
    workers = [memory(b"actor", 9 * MIN_GROWTH_BYTES, retriable=False), memory(b"task", MIN_GROWTH_BYTES)]
    victim = choose_victim(NodeMemory(96, 100), 0.95, workers)
    assert victim is not None and victim.worker_id == b"task"
    victim = choose_victim(NodeMemory(96, 100), 0.95, workers[:1])
    assert victim is not None and victim.worker_id == b"actor"


def test_the_innocent_are_not_killed_for_others() -> None:
    assert choose_victim(NodeMemory(99, 100), 0.95, [memory(b"a", MIN_GROWTH_BYTES - 1)]) is None


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


def test_nodes_of_a_large_cluster_send_fewer_heartbeats_each() -> None:
    assert pause_s(1) == pause_s(20) == 0.02
    assert pause_s(100) == 0.1
    assert pause_s(1000) == pause_s(100_000) == 1.0
