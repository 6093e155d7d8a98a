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
import contextlib
import functools
import gc
import importlib
import inspect  # noqa: F401
import mmap
import os
import random
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator

import cloudpickle  # noqa: F401
import grpc  # noqa: F401
import msgspec
import setproctitle

import shoal  # noqa: F401
from shoal import worker
from shoal._executor import executor  # noqa: F401
from shoal._executor.own_children import OwnChildren
from shoal._net.reactor import DescriptorsClosedError
from shoal._wire.peer_frames import PeerMessage
from shoal_common.channel import handshake
from shoal_common.channel.codec import Decoder
from shoal_common.channel.frames import HelloReply, RayletMessage
from shoal_common.rpc import client as grpc_channel  # noqa: F401
from shoal_common.surroundings import raise_open_files, take_own_signals
from shoal_common.worker_launch import ForkWorker, TemplatePacket, WorkerConfig, WorkerForked, WorkerNotForked
from shoal_proto.v1 import gcs_pb2_grpc  # noqa: F401

#: Workers have this long to end by themselves when their raylet is gone, in seconds.
LINGER_S = 2.0
_MAX_PACKET = 64 * 1024
_encode = msgspec.json.Encoder().encode


def main() -> None:
    take_own_signals()
    parser = argparse.ArgumentParser(description="The template of a raylet's workers; started by a raylet only.")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--control-fd", type=int)
    given.add_argument("--control-path", help="in a container: a socket where it is handed out")
    parser.add_argument("preimport", nargs="*", help="further modules that its workers find imported")
    arguments = parser.parse_args()
    path = arguments.control_path
    control = socket.socket(fileno=arguments.control_fd if path is None else _handed_out(path))
    setproctitle.setproctitle("shoal::template")
    worker.prepare()
    # It holds a descriptor for each worker; workers have the limit that it was started with.
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_open_files()
    for union in (RayletMessage, PeerMessage, HelloReply, handshake.FromConnecting):
        Decoder(union)
    for module in arguments.preimport:
        importlib.import_module(module)
    handshake.prove("", b"", b"", b"")  # what OpenSSL makes at the first time
    _keep_pages_shared()
    children = OwnChildren(control) if path is not None else None
    workers: list[int] = []
    while True:
        if children is not None:
            children.wait()
            workers = children.pidfds()
        packet, fds = _receive(control)
        if packet is None:
            _outlive(workers)
            return
        try:
            if children is not None:
                become = functools.partial(_be_worker, control, packet.config, fds, open_files)
                children.fork(packet.config.worker_id, become)
                continue
            workers = [fd for fd in workers if not _has_ended(fd)]
            pid = _fork(control, packet.config, fds, workers, open_files)
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    workers.append(os.pidfd_open(pid))
        except OSError as error:
            control.send(_encode(WorkerNotForked(packet.config.worker_id, str(error))))
        finally:
            for fd in fds:
                os.close(fd)


def _handed_out(path: str) -> int:
    """The control socket, from the raylet outside of the container. Raises: OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(path)
        _, fds, _, _ = socket.recv_fds(connection, 1, 1)
    if not fds:
        raise ConnectionError("the raylet handed no control socket out")
    return fds[0]


def _keep_pages_shared() -> None:
    """A page of what has been made so far is shared with all workers, until one of them writes to it: that it does so
    seldom saves each 0.7 MiB."""
    gc.collect()
    if sys.version_info < (3, 12):  # since then names are immortal
        # This cache counts as one that holds the names of attributes: a name that falls out of it is written to.
        sys._clear_type_cache()
    _filling.extend(_fill_gaps())
    gc.freeze()  # what is never collected is never marked


#: What lies in the gaps.
_filling: list[bytes] = []
#: The interpreter's own allocator gives out multiples of so many bytes, from regions of one size each, up to so many.
_STEP_BYTES = 16
_LARGEST_BYTES = 512
#: What is larger comes from malloc, whose gaps are of any size; hardly any are larger than this.
_LARGEST_GAP_BYTES = 32 * 1024
#: At most so many bytes of one size.
_FILL_BYTES = 256 * 1024


def _fill_gaps() -> Iterator[bytes]:
    """Objects in all the places that lie free between others: the workers' own then go to pages of their own."""
    for size in range(_STEP_BYTES * 3, _LARGEST_BYTES + 1, _STEP_BYTES):
        yield from _fill_gaps_of(size, size)
    size = _LARGEST_GAP_BYTES
    while size > _LARGEST_BYTES:
        yield from _fill_gaps_of(size, size + _STEP_BYTES)
        size = size * 7 // 8 // _STEP_BYTES * _STEP_BYTES


def _fill_gaps_of(size: int, taken: int) -> Iterator[bytes]:
    """Objects of ``size`` bytes, which take ``taken``. Where they come to lie behind one another for a page's length,
    there are no gaps any more."""
    empty = sys.getsizeof(b"")
    last, behind = 0, 0
    for _ in range(_FILL_BYTES // size):
        filling = bytes(size - empty)
        yield filling
        behind = behind + taken if id(filling) == last + taken else 0
        if behind >= max(mmap.PAGESIZE, taken):
            break
        last = id(filling)


def _fork(
    control: socket.socket, config: WorkerConfig, fds: list[int], workers: list[int], open_files: tuple[int, int]
) -> int:
    """The worker's pid; 0 = it was not forked, which the raylet has been told.

    Raises: OSError when the machine gives no process or descriptor.
    """
    # The worker's pid comes through this pipe, the process between ends after it.
    read, write = os.pipe()
    try:
        between = os.fork()
        if between == 0:
            for fd in (read, *workers):
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, open_files)
            _fork_worker(control, config, fds, write)
        os.close(write)
        write = -1
        pid = os.read(read, 16)
        os.waitpid(between, 0)
        return int(pid or 0)
    finally:
        for fd in (read, write):
            if fd >= 0:
                os.close(fd)


def _fork_worker(control: socket.socket, config: WorkerConfig, fds: list[int], pid_pipe: int) -> None:
    """In a process between the template and the worker, which ends at once: so the worker is the raylet's own child,
    since that is a subreaper. The raylet reaps it, and it does not end with the template."""
    code = 1
    try:
        pid = os.fork()
        if pid == 0:
            os.close(pid_pipe)
            control.close()
            _become(config, fds)
        else:
            # Before this process ends: the raylet has heard of every worker that becomes its child.
            control.send(_encode(WorkerForked(config.worker_id, pid)))
            os.write(pid_pipe, str(pid).encode())
            code = 0
    except OSError as error:
        with contextlib.suppress(OSError):  # the raylet is gone
            control.send(_encode(WorkerNotForked(config.worker_id, str(error))))
    finally:
        os._exit(code)


def _be_worker(control: socket.socket, config: WorkerConfig, fds: list[int], open_files: tuple[int, int]) -> None:
    """In a child of the template; does not return."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, open_files)
        control.close()
    except BaseException:
        os._exit(1)
    _become(config, fds)


def _outlive(workers: list[int]) -> None:
    """The raylet is gone. Workers see that by themselves and end with all that they have started; one whose code does
    not let it look any more is killed. (PR_SET_PDEATHSIG would not leave them the time.)"""
    deadline = time.monotonic() + LINGER_S
    while workers and time.monotonic() < deadline:
        poller = select.poll()
        for fd in workers:
            poller.register(fd, select.POLLIN)
        poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
        workers = [fd for fd in workers if not _has_ended(fd)]
    for fd in workers:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)


def _has_ended(pidfd: int) -> bool:
    """Closes the descriptor if so."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    if not poller.poll(0):
        return False
    os.close(pidfd)
    return True


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
    except DescriptorsClosedError as closed:
        print(closed, file=sys.stderr, flush=True)
    except BaseException:  # whatever it is, it must not run on into the template's loop
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
