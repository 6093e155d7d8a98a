"""How a worker process ends: with its exit hooks, and without leaving others behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from typing import NoReturn


def kill_descendants() -> None:
    """SIGKILL every process below this one."""

    def children(pid: int) -> list[int]:
        try:
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                return [int(word) for word in file.read().split()]
        except OSError:
            return []

    found, queue = [], children(os.getpid())
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue.extend(children(pid))
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def end_process(code: int) -> NoReturn:
    """Run exit hooks and leave, without the interpreter's teardown: daemon threads may hold locks."""
    with contextlib.suppress(BaseException):  # a user's exit hook must not keep the process alive, nor sys.exit in it
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    kill_descendants()
    os._exit(code)
