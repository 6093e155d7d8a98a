"""The warm template process from which workers are forked in milliseconds.

Importable without gRPC: the embedded head starts the template before it imports anything heavy, so that both
warm up at the same time, and hands it to the raylet.
"""

from __future__ import annotations

import array
import os
import socket
import subprocess
from pathlib import Path

import msgspec

from shoal_common.surroundings import interpreter
from shoal_common.worker_launch import ForkWorker, TemplatePacket, WorkerConfig
from shoal_raylet.workers import orphans
from shoal_raylet.workers.environments.launch import PLAIN, Launch

_MAX_PACKET = 64 * 1024
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(TemplatePacket).decode


class TemplateProcess:
    """``python -m shoal.worker_template`` and our end of its control socket (non-blocking)."""

    #: Its workers are its children and end with it; else they are ours.
    parent_of_workers = False

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self.control = control

    @classmethod
    def start(cls, log_path: Path | None = None, launch: Launch = PLAIN) -> TemplateProcess:
        """``log_path`` takes what the template itself prints; None discards it. Its workers are started as ``launch``
        says.

        It leads a session of its own: Ctrl-C in the driver's terminal does not reach the workers, and their
        descendants are known by it (``orphans``).

        Raises: OSError when the process cannot be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(log_path or os.devnull, "ab") as log:
            try:
                process = subprocess.Popen(
                    interpreter(
                        "shoal_common.hot_names",
                        "shoal.worker_template",
                        "--control-fd",
                        str(theirs.fileno()),
                        *launch.preimport,
                        python=launch.python,
                    ),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**launch.environment(), **orphans.mark()},
                    cwd=launch.directory,
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        return cls(process, ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, config: WorkerConfig, stdout: int, stderr: int) -> None:
        """Ask for a worker; ``WorkerForked`` answers. The caller keeps, and closes, its copies of the descriptors.

        Raises: OSError when the template is gone, or does not read its socket any more.
        """
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [stdout, stderr]))]
        self.control.sendmsg([_encode(ForkWorker(config))], rights)

    def receive(self) -> TemplatePacket | None:
        """The next packet, or None when there is none now.

        Raises: EOFError when the template is gone, msgspec.DecodeError on garbage.
        """
        try:
            packet = self.control.recv(_MAX_PACKET)
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionError as error:
            raise EOFError(str(error)) from error
        if not packet:
            raise EOFError("the template closed its control socket")
        decoded: TemplatePacket = _decode(packet)
        return decoded

    def close(self) -> None:
        """Kill and reap it: it has nothing to put in order, and an interpreter takes 40 ms to end. Idempotent."""
        self.control.close()
        self._process.kill()
        self._process.wait()
