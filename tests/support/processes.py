"""Looks at processes from outside, through /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

#: What has not come by then does not come, in seconds. Only a test that fails waits for so long: machines are slow, and
#: have other things to do.
PATIENCE_S = 120


def eventually(condition: Callable[[], Any], what: str | Callable[[], str], within: float = PATIENCE_S) -> Any:
    """Waits for what no call waits for, e.g. the end of a process, and returns it. ``within`` is in seconds. ``what``
    did not come, as it is then."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    return _state(pid) not in ("", "Z")


def stopped(pid: int) -> bool:
    return _state(pid) == "T"


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def all_gone(pids: Iterable[int], within: float = PATIENCE_S) -> None:
    """Returns when every process has ended."""
    pids = set(pids)
    assert pids
    eventually(lambda: not any(map(alive, pids)), "all processes are gone: " + _describe(pids), within)


def _describe(pids: Iterable[int]) -> str:
    return ", ".join(f"{pid} {command(pid)!r}" for pid in sorted(pids))


def command(pid: int) -> str:
    """Its command line, or its title."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descendants(*pids: int) -> set[int]:
    """Everything that runs below these processes."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = _parent(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    found: set[int] = set()
    level = set(pids)
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found |= level
    return found


def _parent(pid: int) -> int:
    """Raises: FileNotFoundError, ProcessLookupError when the process has ended."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def head_of(driver: int) -> int:
    """The head process of an embedded cluster."""
    # What the head itself is just starting still has its command line.
    [head] = [pid for pid in descendants(driver) if "shoal_head" in command(pid) and _parent(pid) == driver]
    return head


def template_of(driver: int) -> int:
    """The process from which the workers of an embedded cluster are forked; 0 = there is none now."""
    head = head_of(driver)
    children = descendants(head)
    # A fork of it has the same title until it has its own.
    templates = [pid for pid in children if "shoal::template" in command(pid) and _parent(pid) == head]
    return templates[0] if templates else 0


def running_template_of(driver: int) -> int:
    """As ``template_of``, once there is one. Never 0, which to ``os.kill`` means the caller's own process group."""
    template: int = eventually(lambda: template_of(driver), "the template runs")
    return template


def arenas_of(pid: int) -> set[int]:
    """Inodes of the memory files that a process maps."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {int(line.split()[4]) for line in maps if "memfd:" in line}


def holders_of(arena: int) -> list[str]:
    """Processes that map a memory file or have it open."""
    holders = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            mapped = any(
                "memfd:" in line and line.split()[4] == str(arena) for line in (entry / "maps").read_text().splitlines()
            )
            opened = any(
                os.readlink(fd).startswith("/memfd:") and fd.stat().st_ino == arena for fd in (entry / "fd").iterdir()
            )
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if mapped or opened:
            holders.append(f"{entry.name} {command(int(entry.name))!r}")
    return holders
