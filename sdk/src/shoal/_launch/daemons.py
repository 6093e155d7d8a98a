"""Processes that outlive the one that starts them: how they are started, found again, awaited and ended.

Each is known by its pid and the time of its start: so nothing else is ever ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec


class Daemon(msgspec.Struct, frozen=True):
    """One process."""

    service: str
    pid: int
    #: When it started, in clock ticks since the machine did: no other process has this and the pid.
    started: int

    def alive(self) -> bool:
        return _start_of(self.pid) == self.started


def start(service: str, command: list[str], environment: Mapping[str, str], log: Path) -> Daemon:
    """Not a child to wait for: it leads a session of its own, and what it prints is appended to ``log``.

    Raises: OSError when it cannot be started.
    """
    # Not subprocess, which wants to reap what it has started.
    pid = os.posix_spawn(
        command[0],
        command,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return Daemon(service, pid, _start_of(pid) or 0)


class _LogLine(msgspec.Struct, frozen=True):
    """Of a service's log."""

    event: str
    error: str = ""
    reason: str = ""
    exception: Any = None


def last_words(log: Path) -> str:
    """What a service logged last, without the JSON around it; the end of its log if that is something else."""
    lines = log.read_text(errors="replace").splitlines()[-20:]
    with contextlib.suppress(msgspec.DecodeError):
        said = msgspec.json.decode("".join(lines[-1:]), type=_LogLine)
        if not said.exception:
            return said.error or said.reason or said.event
    return "\n".join(lines)


def end(daemons: Iterable[Daemon], grace_s: float | None) -> list[Daemon]:
    """SIGTERM, and SIGKILL after ``grace_s`` seconds (None: at once). Returns those that it took force."""
    forced: list[Daemon] = []
    with contextlib.ExitStack() as stack:
        running = {handle: daemon for daemon, handle in _handles(stack, daemons)}
        for handle in running if grace_s is not None else ():
            _send(handle, signal.SIGTERM)
        deadline = time.monotonic() + (grace_s or 0.0)
        while running:
            patience = None if forced else max(0.0, deadline - time.monotonic())
            ended, _, _ = select.select(list(running), [], [], patience)
            if not ended:
                forced += running.values()
                for handle in running:
                    _send(handle, signal.SIGKILL)
            for handle in ended:
                with contextlib.suppress(ChildProcessError):  # it was started by another process, which reaps it
                    os.waitpid(running[handle].pid, os.WNOHANG)
                del running[handle]
    return forced


def await_end(daemons: Sequence[Daemon]) -> None:
    """Returns when one of them has ended."""
    with contextlib.ExitStack() as stack:
        handles = [handle for _daemon, handle in _handles(stack, daemons)]
        if len(handles) == len(daemons):
            select.select(handles, [], [])


def await_pid(pid: int) -> None:
    """Returns when this process has ended."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        select.select([handle], [], [])
        os.close(handle)


def _handles(stack: contextlib.ExitStack, daemons: Iterable[Daemon]) -> Iterable[tuple[Daemon, int]]:
    """Those that live, with a pidfd each: from here on another process that gets the same pid is out of question."""
    for daemon in daemons:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(daemon.pid)
            stack.callback(os.close, handle)
            if daemon.alive():
                yield daemon, handle


def _send(handle: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signum)


def _start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone or waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
