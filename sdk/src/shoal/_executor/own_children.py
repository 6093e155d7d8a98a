"""The workers of a template in a container: its own children, since the raylet outside is no ancestor of theirs.

It reaps them and tells the raylet how they ended. What a worker leaves behind when it is killed comes to the template,
too, and ends there.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from shoal_common.service.subreaper import become_subreaper
from shoal_common.worker_launch import WorkerEnded, WorkerForked


class OwnChildren:
    """Belongs to the one thread of a template."""

    def __init__(self, control: socket.socket) -> None:
        become_subreaper()
        self._control = control
        #: By pidfd.
        self._workers: dict[int, tuple[int, bytes]] = {}

    def fork(self, worker_id: bytes, become: Callable[[], None]) -> None:
        """``become``: what the child does; it does not return. Raises: OSError, when there is no child."""
        pid = os.fork()
        if pid == 0:
            for fd in self._workers:
                os.close(fd)
            become()
        try:
            self._workers[os.pidfd_open(pid)] = (pid, worker_id)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._send(WorkerForked(worker_id, pid))

    def wait(self) -> None:
        """Until the raylet asks for something; the ends of workers are told meanwhile."""
        while True:
            poller = select.poll()
            for fd in (self._control.fileno(), *self._workers):
                poller.register(fd, select.POLLIN)
            ready = {fd for fd, _ in poller.poll()}
            ended = ready & self._workers.keys()
            for fd in ended:
                os.close(fd)
                pid, worker_id = self._workers.pop(fd)
                _, status = os.waitpid(pid, 0)
                self._send(WorkerEnded(worker_id, os.waitstatus_to_exitcode(status)))
            if ended:
                self._end_orphans()
            if self._control.fileno() in ready:
                return

    def pidfds(self) -> list[int]:
        return list(self._workers)

    def _send(self, packet: WorkerForked | WorkerEnded) -> None:
        with contextlib.suppress(ConnectionError):  # the raylet is gone, as the next packet will say
            self._control.send(msgspec.json.encode(packet))

    def _end_orphans(self) -> None:
        """Killing one makes orphans of its children: until there are none."""
        known = {pid for pid, _ in self._workers.values()}
        while orphans := set(map(int, Path("/proc/thread-self/children").read_text().split())) - known:
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
