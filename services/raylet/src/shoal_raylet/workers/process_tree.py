"""Which processes a process has started, as the kernel tells (``/proc/<pid>/task/<tid>/children``)."""

from __future__ import annotations

import contextlib
from pathlib import Path


def children(pid: int | str, proc: Path = Path("/proc")) -> list[int]:
    """Direct ones, whichever thread they hang on; none of a process that has ended. ``pid``: also "self"."""
    pids: list[int] = []
    # A thread may end between the two reads, and so may the process.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in (proc / str(pid) / "task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                pids += map(int, (task / "children").read_text().split())
    return pids


def descendants(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """Children, their children, and so on; not those whose parent has ended, which are somebody else's by then."""
    found = children(pid, proc)
    for each in found:  # grows meanwhile
        found += children(each, proc)
    return found
