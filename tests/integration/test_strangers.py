"""Who does not have the token, on every port of the framed channel: refused or closed in the handshake's time, while
the process stays small and serves those who have it."""

from __future__ import annotations

import os
import resource
import select
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from support.clusters import MIB, ProcessCluster
from support.processes import PATIENCE_S
from support.servers import free_port

import shoal
from shoal import _current
from shoal._net import peers
from shoal_common.channel import codec, frames, handshake
from shoal_common.channel.handshake import HANDSHAKE_TIMEOUT_S

STRANGERS = 1000
#: What the processes may grow by, in bytes.
GROWTH_BYTES = 16 * MIB


@dataclass(frozen=True)
class Port:
    """Where a process listens, and who its peers say that they are."""

    address: Any
    role: str
    pid: int

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET)
        try:
            sock.settimeout(PATIENCE_S)
            sock.connect(self.address)
        except BaseException:
            sock.close()
            raise
        return sock

    def serves(self, token: str) -> None:
        """Somebody with the token is let in."""
        job_id = b"job1" if self.role in ("driver", "owner") else b""
        hello = handshake.hello(self.role, node_id=b"n" * 16, worker_id=os.urandom(16), job_id=job_id)
        side = handshake.Connecting(token, hello)
        with self.connect() as sock:
            event = None
            while event is None:
                sock.sendall(side.to_send())
                data, descriptors, _, _ = socket.recv_fds(sock, 4096, 1)
                for descriptor in descriptors:
                    os.close(descriptor)
                assert data, "closed during the handshake"
                event = side.receive(data)
            sock.sendall(side.to_send())

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()


@shoal.remote(num_cpus=0)
class Holder:
    """Its worker is the one that strangers come to."""

    def where(self) -> tuple[str, str, int, int]:
        address = _current.connected().address
        return address.path, address.host, address.port, os.getpid()


@pytest.fixture(scope="module")
def cluster() -> Iterator[ProcessCluster]:
    with ProcessCluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ports(cluster: ProcessCluster) -> Iterator[dict[str, Port]]:
    channel_port, gateway_port = free_port(), free_port()
    node = cluster.add_node(cpus=1, channel_port=channel_port, gateway_port=gateway_port)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[1], 8192), limits[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        # Of this driver; its workers give peers more time.
        patch.setattr(peers, "ACCEPT_TIMEOUT_S", HANDSHAKE_TIMEOUT_S)
        stack.enter_context(cluster.connected())
        holder = Holder.remote()
        path, host, port, pid = shoal.get(holder.where.remote(), timeout=PATIENCE_S)
        mine = _current.connected().address
        sockets = node.session_dir / "sockets"
        found = {
            "raylet": Port(str(sockets / f"raylet-{node.node_id[:12]}.sock"), "driver", node.pid),
            "raylet, TCP": Port(("127.0.0.1", channel_port), "owner", node.pid),
            "gateway": Port(("127.0.0.1", gateway_port), "client", node.pid),
            "worker": Port(path, "worker", pid),
            "worker, TCP": Port((host, port), "worker", pid),
            "driver": Port(mine.path, "worker", os.getpid()),
            "driver, TCP": Port((mine.host, mine.port), "worker", os.getpid()),
        }
        yield found
        del holder


NAMES = ["raylet", "raylet, TCP", "gateway", "worker", "worker, TCP", "driver", "driver, TCP"]


@pytest.fixture(params=NAMES)
def port(request: pytest.FixtureRequest, ports: dict[str, Port]) -> Port:
    return ports[request.param]


def read_to_the_end(sock: socket.socket) -> None:
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass


HELLO = bytes(codec.encode_frame(handshake.hello("driver", job_id=b"job1")))


@pytest.mark.parametrize(
    ("data", "ends"),
    [
        (codec.LENGTH.pack(200 * MIB) + b"x" * 100_000, False),
        (codec.LENGTH.pack(codec.MAX_HANDSHAKE_FRAME_BYTES + 1), False),
        (HELLO[: len(HELLO) // 2], True),
        (b"\x81" * 4096, False),
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (bytes(codec.encode_frame(frames.FlushLogs(1))), False),
    ],
    ids=["200 MiB", "over the limit", "half a frame", "garbage", "http", "no hello"],
)
def test_what_is_no_handshake_is_refused_at_once(cluster: ProcessCluster, port: Port, data: bytes, ends: bool) -> None:
    before = port.resident_bytes()
    with port.connect() as sock:
        try:
            sock.sendall(data)
            if ends:
                sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed before all of it was sent
        read_to_the_end(sock)
    assert port.resident_bytes() - before < GROWTH_BYTES
    port.serves(cluster.token)


def dribble(socks: list[socket.socket]) -> None:
    """Four bytes a second over each, until all are closed."""
    left = memoryview(codec.LENGTH.pack(codec.MAX_HANDSHAKE_FRAME_BYTES) + bytes(codec.MAX_HANDSHAKE_FRAME_BYTES))
    while socks:
        for sock in list(socks):
            try:
                sock.sendall(left[:4])
            except OSError:
                socks.remove(sock)
        left = left[4:]
        next_at = time.monotonic() + 1.0
        while socks and (wait := next_at - time.monotonic()) > 0:
            for sock in select.select(socks, [], [], wait)[0]:
                read_to_the_end(sock)
                socks.remove(sock)


def test_four_bytes_a_second_do_not_hold_a_connection(cluster: ProcessCluster, ports: dict[str, Port]) -> None:
    slow = [ports[name] for name in NAMES if not name.startswith("worker")]
    with ExitStack() as stack:
        dribble([stack.enter_context(port.connect()) for port in slow])
    for port in slow:
        port.serves(cluster.token)


@pytest.mark.parametrize(
    "says", [lambda: b"", lambda: codec.LENGTH.pack(60_000) + bytes(50_000)], ids=["nothing", "half of much"]
)
def test_a_thousand_strangers_keep_nobody_out(cluster: ProcessCluster, port: Port, says: Callable[[], bytes]) -> None:
    before = port.resident_bytes()
    with ExitStack() as stack:
        for _ in range(STRANGERS):
            sock = socket.socket(socket.AF_UNIX if isinstance(port.address, str) else socket.AF_INET)
            stack.enter_context(sock)
            sock.setblocking(False)
            try:
                sock.connect(port.address)
                sock.send(says())
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                pass  # it is on its way, or turned away already
        port.serves(cluster.token)
        assert port.pid == os.getpid() or port.resident_bytes() - before < GROWTH_BYTES


@pytest.mark.parametrize("says", [b"", b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 8000], ids=["nothing", "no end"])
def test_a_thousand_strangers_keep_no_scraper_out(ports: dict[str, Port], says: bytes) -> None:
    [node] = shoal.nodes()
    port = Port(("127.0.0.1", node["MetricsExportPort"]), "scraper", ports["raylet"].pid)
    before = port.resident_bytes()
    with ExitStack() as stack:
        for _ in range(STRANGERS):
            sock = stack.enter_context(port.connect())
            try:
                sock.sendall(says)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it is turned away already
        address = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
            assert answer.status == HTTPStatus.OK
        assert port.resident_bytes() - before < GROWTH_BYTES
