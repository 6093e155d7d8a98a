"""``python -m shoal.worker_template``: the warm process from which workers are forked (see
shoal_common.worker_launch).

It has imported what every worker needs, gRPC's modules included, but has one thread and no channel: so a fork is
safe, and a worker is ready some milliseconds after it is asked for.
"""

from __future__ import annotations

import argparse
import array

# Warm what a worker would import at its first use.
import asyncio  # noqa: F401
import concurrent.futures  # noqa: F401
import ctypes
import gc
import inspect  # noqa: F401
import os
import random
import select
import signal
import socket

import cloudpickle  # noqa: F401
import grpc  # noqa: F401
import msgspec
import setproctitle

import shoal  # noqa: F401
from shoal import worker
from shoal._runtime import actor_host, executor  # noqa: F401
from shoal._runtime.core_worker import RayletFrames
from shoal._runtime.peer_frames import PeerMessage
from shoal_common import grpc_channel  # noqa: F401
from shoal_common.frames import FrameDecoder
from shoal_common.worker_launch import ForkWorker, TemplatePacket, WorkerConfig, WorkerForked, WorkerReaped
from shoal_proto.v1 import gcs_pb2_grpc  # noqa: F401

_PR_SET_PDEATHSIG = 1
_MAX_PACKET = 64 * 1024
_encode = msgspec.json.Encoder().encode


def main() -> None:
    parser = argparse.ArgumentParser(description="The template of a raylet's workers; started by a raylet only.")
    parser.add_argument("--control-fd", type=int, required=True)
    control = socket.socket(fileno=parser.parse_args().control_fd)
    setproctitle.setproctitle("shoal::template")
    libc = ctypes.CDLL(None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A SIGCHLD only has to interrupt the poll: the pipe wakes it.
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for union in (RayletFrames, PeerMessage):
        FrameDecoder(union)
    # Objects made so far are never collected: their pages stay shared with the workers.
    gc.collect()
    gc.freeze()
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poller.poll()}
        if wake_read in ready:
            os.read(wake_read, 4096)
            _reap(control)
        if control.fileno() in ready:
            packet, fds = _receive(control)
            if packet is None:
                return  # the raylet is gone; the workers see it by themselves
            pid = os.fork()
            if pid == 0:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for fd in (wake_read, wake_write):
                    os.close(fd)
                control.close()
                _become(packet.config, fds)
            for fd in fds:
                os.close(fd)
            _send(control, WorkerForked(packet.config.worker_id, pid))


def _receive(control: socket.socket) -> tuple[ForkWorker | None, list[int]]:
    data, ancillary, _, _ = control.recvmsg(_MAX_PACKET, socket.CMSG_LEN(2 * 4))
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not data:
        return None, list(fds)
    packet = msgspec.json.decode(data, type=TemplatePacket)
    assert isinstance(packet, ForkWorker)
    return packet, list(fds)


def _become(config: WorkerConfig, fds: list[int]) -> None:
    """In the child: never returns to the template's loop."""
    code = 1
    try:
        for target, fd in zip((1, 2), fds, strict=True):
            os.dup2(fd, target)
            os.close(fd)
        random.seed()
        worker.run(config)
        code = 0
    except BaseException:  # whatever it is, it must not run on into the template's loop
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _send(control, WorkerReaped(pid, status))


def _send(control: socket.socket, packet: WorkerForked | WorkerReaped) -> None:
    try:
        control.send(_encode(packet))
    except OSError:
        raise SystemExit(0) from None  # the raylet is gone


if __name__ == "__main__":
    main()
