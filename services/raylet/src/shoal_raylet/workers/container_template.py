"""The template of an environment whose workers run in a container.

Descriptors cannot be given to a container when it starts. So the template in it connects to a socket in the session's
directory, over which it is given its end of the control socket. From there on it is as any other, except that its
workers stay its own children, since the raylet is no ancestor of theirs: it tells how they end (``WorkerEnded``). Its
end is the end of the container and of all workers in it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import subprocess
import threading
from pathlib import Path

import structlog

from shoal_raylet.workers.environments.containers import Container, container_name, inherited
from shoal_raylet.workers.environments.launch import Launch
from shoal_raylet.workers.template_process import TemplateProcess

log = structlog.get_logger(__name__)

#: A container is removed by then, in seconds.
_REMOVE_TIMEOUT_S = 20.0
_PEER = struct.Struct("3i")


class ContainerTemplate(TemplateProcess):
    """What we have started is the command of the engine, which lasts as long as the container."""

    parent_of_workers = True

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        engine: str,
        name: str,
        listener: socket.socket,
        theirs: socket.socket,
    ) -> None:
        super().__init__(process, control)
        self._engine = engine
        self._name = name
        self._handing_over = threading.Thread(
            target=self._hand_over, args=(listener, theirs), name="container template"
        )
        self._handing_over.start()

    @classmethod
    def start_in(
        cls, container: Container, sockets_dir: Path, log_path: Path | None, launch: Launch
    ) -> ContainerTemplate:
        """``sockets_dir`` is mounted in it. Raises: OSError when the command cannot be started."""
        name = container_name()
        path = sockets_dir / name.removeprefix("shoal-worker-")
        environ = {**inherited(os.environ), **launch.environ}
        if paths := [*launch.import_paths, *filter(None, [launch.environ.get("PYTHONPATH")])]:
            environ["PYTHONPATH"] = os.pathsep.join(paths)
        arguments = ["--control-path", os.fspath(path), *launch.preimport]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind(os.fspath(path))
            listener.listen(1)
            with open(log_path or os.devnull, "ab") as file:
                process = subprocess.Popen(
                    container.command(name, environ, launch.directory, arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    env={**os.environ, **environ},
                    start_new_session=True,
                )
        except BaseException:
            for each in (ours, theirs, listener):
                each.close()
            path.unlink(missing_ok=True)
            raise
        ours.setblocking(False)
        return cls(process, ours, container.engine, name, listener, theirs)

    def close(self) -> None:
        """Its container is gone, with all that ran in it. Idempotent."""
        super().close()  # the command ends, the container not yet: without us its template ends by itself
        self._handing_over.join()
        try:
            subprocess.run(
                [self._engine, "rm", "--force", self._name], capture_output=True, timeout=_REMOVE_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            log.error("container_not_removed", name=self._name, reason=str(error))

    def _hand_over(self, listener: socket.socket, theirs: socket.socket) -> None:
        """In a thread: until the template has asked, or the command has ended. Then our end of the control socket tells
        that it is gone, as only the template has the other."""
        path = listener.getsockname()
        with theirs, listener:
            poller = select.poll()
            poller.register(listener, select.POLLIN)
            with contextlib.suppress(ProcessLookupError):  # ended and reaped
                pidfd = os.pidfd_open(self.pid)
                poller.register(pidfd, select.POLLIN)
                try:
                    while pidfd not in (ready := [fd for fd, _ in poller.poll()]):
                        if listener.fileno() in ready and self._give(listener, theirs):
                            break
                finally:
                    os.close(pidfd)
        os.unlink(path)

    @staticmethod
    def _give(listener: socket.socket, theirs: socket.socket) -> bool:
        """False = it was somebody else."""
        with contextlib.suppress(OSError):  # whoever it was has gone away
            connection, _ = listener.accept()
            with connection:
                _, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
                if uid == os.getuid():
                    socket.send_fds(connection, [b"\0"], [theirs.fileno()])
                    return True
        return False
