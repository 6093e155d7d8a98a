"""TCP sockets of the framed channel: non-blocking, without delay, and patient with a network that is cut.

A cut link between two nodes that live is borne, as TCP itself sends again what has not arrived: whoever waits goes on
waiting, and nothing is lost that would have to be made again. That a process or a machine is dead is known otherwise:
by the end of its connections, or from the GCS, whose word ends them at once. (A shorter patience, with sessions that
resume as the gateway's tunnel does, was rejected: it bears no more, and costs every frame a number and a copy.)
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # without TLS nobody pays for its import
    from shoal_common.tls import Tls, TlsSocket

#: A raylet that has no connection to another one by then asks where else it could turn, in seconds.
CONNECT_TIMEOUT_S = 10.0
#: A link that is cut for so long loses nothing, in seconds.
CUT_BORNE_S = 60
#: A peer that the network does not reach for so long is lost, in seconds. TCP waits twice as long before each further
#: try, so it may need as long again after the link has healed.
LOST_AFTER_S = 2 * CUT_BORNE_S + 15
#: An idle peer is asked every so many seconds whether the network still reaches it, and after a cut TCP tries at least
#: this often where the system can do that (TCP_RTO_MAX_MS, since Linux 6.15).
_TRY_EVERY_S = 5
_TCP_RTO_MAX_MS = 44
MAX_PORT = 65535
_BACKLOG = 512
#: Room for a burst of small frames, so that a busy peer rarely makes us queue.
_BUFFER_BYTES = 1024 * 1024


def listen(host: str, port: int) -> socket.socket:
    """Raises: OSError when the port is in use, or the host is not an address of this machine."""
    sock = socket.socket(_family(host), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sock


def dial(host: str, port: int, tls: Tls | None) -> socket.socket | TlsSocket:
    """Begin to connect to a numeric address: the socket becomes writable when that has succeeded or failed.

    Raises: OSError when it fails at once.
    """
    sock = socket.socket(_family(host), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        tune(sock)
        with contextlib.suppress(BlockingIOError):
            sock.connect((host, port))
    except OSError:
        sock.close()
        raise
    return _secured(sock, tls, server=False)


def accepted(sock: socket.socket, tls: Tls | None) -> socket.socket | TlsSocket:
    """A connection that a listener has just accepted, ready for use."""
    tune(sock)
    return _secured(sock, tls, server=True)


def connected(sock: socket.socket, tls: Tls | None) -> socket.socket | TlsSocket:
    """A connection that has just been made, ready for use."""
    tune(sock)
    return _secured(sock, tls, server=False)


def tune(sock: socket.socket) -> None:
    """Set the options of a connection, made or accepted."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _TRY_EVERY_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _TRY_EVERY_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, LOST_AFTER_S // _TRY_EVERY_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_AFTER_S * 1000)
    # The tries of one that is not made yet are counted, whatever is between them.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, LOST_AFTER_S // _TRY_EVERY_S)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, _TRY_EVERY_S * 1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)


def resolve(host: str) -> str:
    """The numeric address of a host. Blocks. Raises: OSError when it has none."""
    try:
        address: str = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]  # type: ignore[assignment]
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"the address of {host} cannot be looked up: {error.strerror}") from error
    return address


def local_address(host: str, port: int) -> str:
    """The address of this machine by which it reaches another one; nothing is sent. Blocks for a host's name.

    Raises: OSError when there is no way to it.
    """
    remote = resolve(host)
    with socket.socket(_family(remote), socket.SOCK_DGRAM) as sock:
        sock.connect((remote, port))
        address: str = sock.getsockname()[0]
        return address


def _secured(sock: socket.socket, tls: Tls | None, *, server: bool) -> socket.socket | TlsSocket:
    if tls is None:
        sock.setblocking(False)
        return sock
    from shoal_common.tls import TlsSocket

    return TlsSocket(sock, tls, server=server)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
