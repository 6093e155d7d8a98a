"""Processes that a worker started and left behind.

The raylet is a child subreaper: when a worker dies, its children become the raylet's. They end with it: a user's
job must leave no process behind, however it ended. In the embedded head other children may live beside ours,
so only those are touched that are in a session which a template or worker of ours leads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Raises: OSError when the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def kill_and_reap(sessions: set[int], known: set[int]) -> int:
    """SIGKILL and reap our children of ``sessions`` except the ``known`` ones; how many were found.

    A killed process is reaped by the next call at the latest. Children in any other session are not looked at.
    """
    found = 0
    for pid in _children():
        if pid in known or pid in sessions or _session(pid) not in sessions:
            continue
        found += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return found


def _children() -> list[int]:
    """Direct children of this process, whichever thread they hang on."""
    pids: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        # A thread may end between the two reads.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pids += map(int, (task / "children").read_text().split())
    return pids


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
