"""How this process reaches the others of its cluster."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Protocol

from shoal_common.channel import handshake, tcp
from shoal_common.channel.frames import WorkerAddress

if TYPE_CHECKING:
    from shoal_common.tls import Tls, TlsSocket


class Dialer(Protocol):
    """Only ``home`` may block. All raise OSError when nobody listens there, or there is no way to it; ``peer`` and
    ``raylet`` may also return a socket on which that shows later."""

    def home(self) -> socket.socket:
        """To the raylet of this process's own node."""

    def raylet(self, host: str, port: int) -> socket.socket | TlsSocket:
        """To the raylet of another node."""

    def peer(self, address: WorkerAddress) -> socket.socket | TlsSocket:
        """To a driver or worker."""

    def abandon(self) -> None:
        """In a forked child: let go of the copied descriptors."""


class DirectDialer:
    """Unix sockets within the node, TCP to the others. A client outside of the cluster has a `GatewayClient`."""

    def __init__(self, node_id: bytes, raylet_path: str, tls: Tls | None = None) -> None:
        self._node_id = node_id
        self._raylet_path = raylet_path
        self._tls = tls

    def home(self) -> socket.socket:
        return _connect(self._raylet_path)

    def raylet(self, host: str, port: int) -> socket.socket | TlsSocket:
        return tcp.dial(host, port, self._tls)

    def peer(self, address: WorkerAddress) -> socket.socket | TlsSocket:
        if address.node_id == self._node_id:
            return _connect(address.path)
        if not address.port:
            raise OSError(f"the process listens for its own node {address.node_id.hex()} only")
        return tcp.dial(address.host, address.port, self._tls)

    def abandon(self) -> None:
        pass


def _connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(handshake.HANDSHAKE_TIMEOUT_S)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock
