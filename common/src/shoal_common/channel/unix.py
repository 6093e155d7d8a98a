"""Unix sockets of the framed channel: within a node, and for one user."""

from __future__ import annotations

import os
import socket
import struct

_BACKLOG = 1024
_CREDENTIALS = struct.Struct("3i")


def listen(path: str) -> socket.socket:
    """Non-blocking; only this user can connect. Raises: OSError when the path is taken or cannot be made."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(path)
        os.chmod(path, 0o600)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def user_of(sock: socket.socket) -> int:
    """The user id of the process at the other end, as the kernel knows it."""
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)
