"""Objects from node to node, against a plain socket copy; a broadcast, against one transfer.

    python benchmarks/transfer.py [--rounds N] [--mib SIZE]

Five nodes of a local cluster, each with an actor. In each round, in turn: two processes of their own copy the bytes
through a TCP socket (``sendall``, ``recv_into`` memory that is used again), four such pairs do so at once (what this
machine's processors can do at best), one actor gets an array from the driver's node, and four actors on four nodes get
one array at once. Times are those of the whole call as the driver sees it. The processor time that the nodes spend on
each says what this machine's processors allow.
Writes results/transfer.{md,json}; fails below what is required.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from report import describe_machine

import shoal
from shoal.cluster_utils import Cluster

RESULTS = Path(__file__).resolve().parent / "results"
MIB = 1024 * 1024
NODES = 4
#: A transfer reaches this share of the socket's rate.
REQUIRED_SHARE = 0.6
#: A broadcast to NODES nodes takes this many times as long as one transfer at most.
REQUIRED_TIMES = 2.5


class Reader:
    def read(self, refs: list[shoal.ObjectRef[Any]]) -> int:
        """The number of bytes that are here now."""
        return int(shoal.get(refs[0]).nbytes)


class SocketCopy:
    """Two processes and a connection between them."""

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._control, control = context.Pipe()
            self._sender = context.Process(target=_send, args=(size, listener.getsockname()[1]))
            self._sender.start()
            sock, _ = listener.accept()
            self._receiver = context.Process(target=_receive, args=(size, sock, control))
            self._receiver.start()
            sock.close()

    def begin(self) -> None:
        self._control.send(True)

    def end(self) -> None:
        self._control.recv()

    def close(self) -> None:
        self._control.send(False)
        self._receiver.join()
        self._sender.join()


def _send(size: int, port: int) -> None:
    data = os.urandom(MIB) * (size // MIB)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        while sock.recv(1):
            sock.sendall(data)


def _receive(size: int, sock: socket.socket, control: Connection) -> None:
    target = memoryview(bytearray(size))
    with sock:
        while control.recv():
            sock.sendall(b"x")
            filled = 0
            while filled < size:
                filled += sock.recv_into(target[filled:])
            control.send(None)


def copy(pairs: list[SocketCopy]) -> None:
    for pair in pairs:
        pair.begin()
    for pair in pairs:
        pair.end()


def timed(step: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    step(*arguments)
    return time.perf_counter() - start


def processor_time(cluster: Cluster) -> float:
    """Seconds that the cluster's services have run so far, all threads, workers not counted."""
    pids = [daemon.pid for node in cluster.list_all_nodes() for daemon in node.daemons]
    # As clock_getcpuclockid(3) makes the clock of another process.
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def measure(rounds: int, size: int) -> dict[str, list[float]]:
    """Seconds of each step in each round; "..._processor": of processor time."""
    names = ("socket", "sockets", "transfer", "broadcast", "transfer_processor", "broadcast_processor")
    times: dict[str, list[float]] = {name: [] for name in names}
    array = np.frombuffer(os.urandom(MIB) * (size // MIB), dtype=np.uint8)
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 4 * size}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    plain = [SocketCopy(size) for _ in range(NODES)]
    try:
        for number in range(NODES):
            cluster.add_node(**node, resources={f"node{number}": 1})
        shoal.init(cluster.address, logging_level="ERROR")
        readers: list[Any] = [
            shoal.remote(num_cpus=0, resources={f"node{number}": 1})(Reader).remote() for number in range(NODES)
        ]

        def get(some: list[Any]) -> None:
            ref = refs.pop()
            assert shoal.get([reader.read.remote([ref]) for reader in some]) == [size] * len(some)

        for number in range(NODES + rounds):
            refs = [shoal.put(array), shoal.put(array)]
            step = {"socket": timed(copy, plain[:1]), "sockets": timed(copy, plain)}
            for name, some in (("transfer", [readers[number % NODES]]), ("broadcast", readers)):
                before = processor_time(cluster)
                step[name] = timed(get, some)
                step[f"{name}_processor"] = processor_time(cluster) - before
            if number >= NODES:  # before, each node touches memory for the first time
                for name, seconds in step.items():
                    times[name].append(seconds)
    finally:
        for pair in plain:
            pair.close()
        cluster.shutdown()
    return times


def report(times: dict[str, list[float]], size: int) -> tuple[str, bool]:
    seconds = {name: median(values) for name, values in times.items()}
    share = median(a / b for a, b in zip(times["socket"], times["transfer"], strict=True))
    ratio = median(a / b for a, b in zip(times["broadcast"], times["transfer"], strict=True))
    bound = median(a / b for a, b in zip(times["sockets"], times["socket"], strict=True))
    cpus = os.cpu_count() or 1
    busy = {name: seconds[f"{name}_processor"] for name in ("transfer", "broadcast")}
    floors = [work / cpus / seconds["transfer"] for work in (NODES * busy["transfer"], busy["broadcast"])]
    passed = [share >= REQUIRED_SHARE, ratio <= REQUIRED_TIMES]
    verdicts = ["pass" if good else "FAIL" for good in passed]
    machine = ", ".join(f"{key}: {value}" for key, value in describe_machine().items())
    rates = {name: f"{size / MIB / value:,.0f}" for name, value in seconds.items()}
    lines = [
        "# Objects between nodes",
        "",
        f"{size // MIB} MiB; medians of {len(times['socket'])} rounds in turn, ratios within a round. {machine}",
        "",
        "| | ms | MiB/s | | required | |",
        "|---|---|---|---|---|---|",
        f"| plain socket copy | {seconds['socket'] * 1000:.0f} | {rates['socket']} | | | |",
        f"| {NODES} plain socket copies at once | {seconds['sockets'] * 1000:.0f} | | {bound:.2f} × one | | |",
        f"| one transfer | {seconds['transfer'] * 1000:.0f} | {rates['transfer']} | {share:.0%} of the socket's rate "
        f"| ≥ {REQUIRED_SHARE:.0%} | {verdicts[0]} |",
        f"| broadcast to {NODES} nodes | {seconds['broadcast'] * 1000:.0f} | | {ratio:.2f} × one transfer "
        f"| ≤ {REQUIRED_TIMES:g} × | {verdicts[1]} |",
        f"| processor time of one transfer | {busy['transfer'] * 1000:.0f} | | "
        f"{NODES} times that on {cpus} processors: {floors[0]:.2f} × one transfer at best | | |",
        f"| processor time of the broadcast | {busy['broadcast'] * 1000:.0f} | | "
        f"on {cpus} processors: {floors[1]:.2f} × one transfer at best | | |",
        "",
    ]
    return "\n".join(lines), all(passed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--mib", type=int, default=256)
    arguments = parser.parse_args()
    size = arguments.mib * MIB
    times = measure(arguments.rounds, size)
    text, passed = report(times, size)
    print(text)
    document = {"machine": describe_machine(), "bytes": size, "nodes": NODES, "seconds": times}
    (RESULTS / "transfer.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "transfer.md").write_text(text)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
