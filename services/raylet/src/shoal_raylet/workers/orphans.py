"""Processes that a worker started and left behind.

The raylet is a child subreaper: when a worker dies, its children become the raylet's. They end with it: a user's
job must leave no process behind, however it ended. In the embedded head other children may live beside ours, so only
those are touched that are in a session which a template or worker of ours leads, or that carry our mark in the
environment they were started with. (What leaves the session *and* clears its environment is a daemon on purpose.)
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from shoal_raylet.workers.process_tree import children

_MARK_VARIABLE = "SHOAL_NODE_PID"


def mark() -> dict[str, str]:
    """What the environment of a template or worker must contain for its descendants to be known."""
    return {_MARK_VARIABLE: str(os.getpid())}


class OrphanReaper:
    def __init__(self) -> None:
        #: Leaders of the sessions in which our descendants are.
        self.sessions: set[int] = set()
        #: Killed and not yet reaped: a zombie's environment cannot be read any more.
        self._killed: set[int] = set()
        self._mark = b"\0%s=%d\0" % (_MARK_VARIABLE.encode(), os.getpid())

    def kill_and_reap(self, known: set[int]) -> int:
        """SIGKILL our orphans, reap those that are dead; how many were found. ``known`` children are left alone."""
        found = 0
        for pid in children("self"):
            if pid in known or pid in self.sessions or not self._is_ours(pid):
                continue
            found += 1
            self._killed.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self._killed.discard(pid)
        return found

    def _is_ours(self, pid: int) -> bool:
        if pid in self._killed:
            return True
        with contextlib.suppress(OSError):  # it has ended, or runs as another user
            if os.getsid(pid) in self.sessions:
                return True
            return self._mark in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
        return False
