"""How the actors of a compiled graph get its memory: descriptors over a Unix socket of the driver's, once.

The socket lies with those of the session. Whoever connects must be of this user, and know the secret that came with
the order to take part.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import time
from collections.abc import Callable

from shoal_common.channel.unix import listen, user_of

#: Descriptors in one message; the kernel takes 253.
_FDS_IN_MESSAGE = 128
_SECRET_BYTES = 16
_NUMBER_BYTES = 4
#: An actor that has been told to come does so within this, in seconds.
COME_S = 60.0
#: What was said must arrive within this, in seconds.
_TALK_S = 10.0
_LOOK_S = 0.05


class HandOver:
    """The driver's side; a context manager. Raises: OSError."""

    def __init__(self, session_dir: str) -> None:
        self.path = os.path.join(session_dir, "sockets", f"g-{secrets.token_hex(8)}")
        self.secret = secrets.token_bytes(_SECRET_BYTES)
        self._socket = listen(self.path)

    def __enter__(self) -> HandOver:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()
        os.unlink(self.path)

    def serve(self, fds: list[list[int]], look: Callable[[], None]) -> None:
        """Until each actor has its descriptors, by number. ``look()`` is called now and then, and raises when one will
        not come. Raises: TimeoutError; what ``look`` raises."""
        waiting = set(range(len(fds)))
        deadline = time.monotonic() + COME_S
        self._socket.settimeout(_LOOK_S)
        while waiting:
            look()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(waiting)} actors have not come for the memory of the graph in {COME_S:g} s")
            try:
                peer, _ = self._socket.accept()
            except TimeoutError:
                continue
            with peer:
                peer.settimeout(_TALK_S)
                number = self._who(peer)
                if number in waiting:
                    _send(peer, fds[number])
                    waiting.discard(number)

    def _who(self, peer: socket.socket) -> int:
        """The actor's number; -1 = none of ours."""
        if user_of(peer) not in (os.getuid(), 0):
            return -1
        said = peer.recv(_SECRET_BYTES + _NUMBER_BYTES, socket.MSG_WAITALL)
        if not hmac.compare_digest(said[:_SECRET_BYTES], self.secret):
            return -1
        return int.from_bytes(said[_SECRET_BYTES:], "little")


def take(path: str, secret: bytes, number: int, count: int) -> list[int]:
    """The actor's side. Raises: OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_TALK_S)
        sock.connect(path)
        sock.sendall(secret + number.to_bytes(_NUMBER_BYTES, "little"))
        fds: list[int] = []
        while len(fds) < count:
            data, more, _, _ = socket.recv_fds(sock, 1, _FDS_IN_MESSAGE)
            if not data:
                for fd in fds:
                    os.close(fd)
                raise ConnectionError("the driver of the compiled graph has gone")
            fds += more
        return fds


def _send(peer: socket.socket, fds: list[int]) -> None:
    for at in range(0, len(fds), _FDS_IN_MESSAGE):
        socket.send_fds(peer, [b"f"], fds[at : at + _FDS_IN_MESSAGE])
