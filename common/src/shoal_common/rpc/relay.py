"""A local way to whichever of several servers takes a connection, their names looked up anew for each.

gRPC's resolvers take one name, or several numeric addresses, and Python cannot add one. Making the channel anew when
its addresses have changed was rejected: calls under way would fail, where those of a channel that reconnects go on.
So the channel connects to a Unix socket of this process, and what it sends is passed on as it is, also TLS. It is one
connection in its life, as a rule, so two threads for each cost little.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import secrets
import socket
import threading
from collections.abc import Sequence

#: A server that does not take a connection by then is passed over, in seconds. gRPC gives an attempt up after a second
#: and begins another, which goes on with the server after that.
_CONNECT_S = 2.0
_READ_BYTES = 64 * 1024
#: A server that acknowledges nothing for so long is gone, in milliseconds; gRPC's own pings notice it before.
_UNANSWERED_MS = 60_000

_log = logging.getLogger(__name__)


@functools.cache
def relay_to(addresses: Sequence[str]) -> str:
    """``host:port`` of each → the target of a channel. There is one relay for all channels of a process that have the
    same addresses; it lasts as long as the process."""
    return _Relay(addresses).target


class _Relay:
    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._attempts = itertools.count()
        name = f"shoal-relay-{secrets.token_hex(16)}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"\0{name}")
        self._listener.listen()
        self.target = f"unix-abstract:{name}"
        threading.Thread(target=self._serve, name="shoal-relay", daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._pass_on, args=[client], name="shoal-relay", daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, contextlib.ExitStack() as stack:
            server = self._connect()
            if server is None:
                return  # gRPC tries again
            stack.enter_context(server)
            back = threading.Thread(target=_pump, args=[server, client], name="shoal-relay", daemon=True)
            back.start()
            _pump(client, server)
            back.join()

    def _connect(self) -> socket.socket | None:
        """Each time it begins with the next one: of a server that takes connections and does not answer gRPC finds out
        itself, and another attempt must not end there again."""
        first = next(self._attempts)
        for number in range(len(self._addresses)):
            address = self._addresses[(first + number) % len(self._addresses)]
            host, _, port = address.rpartition(":")
            try:
                server = socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S)
            except OSError as error:
                _log.debug("no connection to %s: %s", address, error)
                continue
            server.settimeout(None)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED_MS)
            return server
        return None


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Until either has ended; then both."""
    with contextlib.suppress(OSError):
        while data := source.recv(_READ_BYTES):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
