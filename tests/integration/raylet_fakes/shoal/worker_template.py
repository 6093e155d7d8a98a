"""Forks fake workers."""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import socket
import sys

import msgspec

from shoal import worker
from shoal_common.worker_launch import TemplatePacket, WorkerForked, WorkerReaped


def main() -> None:
    if os.environ.get("FAKE_TEMPLATE_FAILS"):
        sys.exit("the template is broken")
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int, required=True)
    control = socket.socket(fileno=parser.parse_args().control_fd)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(wake_read, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is wake_read or key.fd == wake_read:
                os.read(wake_read, 4096)
                reap(control)
                continue
            data, fds, _, _ = socket.recv_fds(control, 65536, 2)
            if not data:
                return
            packet = msgspec.json.decode(data, type=TemplatePacket)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                control.close()
                os.dup2(fds[0], 1)
                os.dup2(fds[1], 2)
                for fd in fds:
                    os.close(fd)
                try:
                    worker.run(packet.config)
                finally:
                    os._exit(1)
            for fd in fds:
                os.close(fd)
            control.send(msgspec.json.encode(WorkerForked(packet.config.worker_id, pid)))


def reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        control.send(msgspec.json.encode(WorkerReaped(pid, status)))


if __name__ == "__main__":
    main()
