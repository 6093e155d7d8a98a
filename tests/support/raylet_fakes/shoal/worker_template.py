"""Forks fake workers."""

from __future__ import annotations

import argparse
import os
import socket
import sys

import msgspec

from shoal import worker
from shoal_common.worker_launch import TemplatePacket, WorkerForked


def main() -> None:
    if os.environ.get("FAKE_TEMPLATE_FAILS"):
        sys.exit("the template is broken")
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int, required=True)
    control = socket.socket(fileno=parser.parse_args().control_fd)
    while True:
        data, fds, _, _ = socket.recv_fds(control, 65536, 2)
        if not data:
            return
        packet = msgspec.json.decode(data, type=TemplatePacket)
        between = os.fork()
        if between == 0:
            pid = os.fork()
            if pid:
                control.send(msgspec.json.encode(WorkerForked(packet.config.worker_id, pid)))
                os._exit(0)
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
        os.waitpid(between, 0)


if __name__ == "__main__":
    main()
