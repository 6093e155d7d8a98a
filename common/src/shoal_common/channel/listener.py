"""A listening socket of the framed channel, and who has come in by it and not shown yet that it has the token.

Every accept loop of drivers, workers and raylets is this one. Strangers can hold neither memory nor descriptors: so
many newcomers are there at a time, and further ones wait in the kernel's queue until one of those has proved itself, or
until it has had its time. Where descriptors run out all the same, the loop looks away for a while: the listener stays
readable, and it would spin.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from shoal_common.channel import tcp
from shoal_common.channel.frame_socket import AnySocket
from shoal_common.channel.handshake import HANDSHAKE_TIMEOUT_S
from shoal_common.tls import Tls

#: Each holds a frame of MAX_HANDSHAKE_FRAME_BYTES at most.
MAX_NEWCOMERS = 64
#: What newcomers are given to prove themselves while others wait behind them, in seconds of a loop that runs.
_CROWDED_S = 0.2
_NO_DESCRIPTORS_PAUSE_S = 0.5
#: Room for a burst of small frames, so that a busy peer rarely makes us queue.
_SEND_BUFFER_BYTES = 1024 * 1024


class Poller(Protocol):
    """An asyncio loop, or the SDK's reactor."""

    def add_reader(self, fd: int, callback: Callable[[], Any], /) -> Any: ...
    def remove_reader(self, fd: int, /) -> Any: ...
    def call_later(self, delay: float, callback: Callable[[], Any], /) -> Any: ...


class Newcomer(Protocol):
    """A connection until it has proved itself."""

    def close(self, reason: str, /) -> Any:
        """Ends in ``Listener.settled``."""


class Listener:
    """Owns ``sock``. All calls come from the poller's thread, or before it runs."""

    def __init__(
        self,
        sock: socket.socket,
        poller: Poller,
        tls: Tls | None,
        on_accepted: Callable[[AnySocket, str], Newcomer | None],
        on_error: Callable[[OSError], Any],
        timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> None:
        """``on_accepted(connection, peer's host)`` takes a connection over, ready for use and non-blocking, and returns
        it as a newcomer, which must prove itself in ``timeout_s`` seconds; None = it needs no proof here. ``on_error``
        is told when there are no descriptors left. ``tls``: by TCP only."""
        self.sock = sock
        self._poller = poller
        self._tls = tls
        self._on_accepted = on_accepted
        self._on_error = on_error
        self._timeout_s = timeout_s
        #: When each came in, the oldest first.
        self._newcomers: dict[Newcomer, float] = {}
        #: One timer for all of them: what comes and goes quickly must leave nothing behind.
        self._timed = False
        self._watching = False
        self._closed = False
        self._resume()

    def settled(self, newcomer: Newcomer) -> None:
        """It has proved itself, or is closed. Idempotent."""
        if self._newcomers.pop(newcomer, None) is not None:
            self._resume()

    def close(self) -> None:
        """Idempotent. Those who have come in stay."""
        if not self._closed:
            self._closed = True
            self._look_away()
            self.sock.close()

    def _accept(self) -> None:
        while not self._closed:
            if len(self._newcomers) >= MAX_NEWCOMERS:
                self._look_away()
                self._poller.call_later(_CROWDED_S, functools.partial(self._make_room, list(self._newcomers)))
                return
            try:
                sock, peer = self.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._on_error(error)
                self._look_away()
                self._poller.call_later(_NO_DESCRIPTORS_PAUSE_S, self._resume)
                return
            try:
                ready = self._prepare(sock)
            except OSError:  # it is gone already
                sock.close()
                continue
            newcomer = self._on_accepted(ready, peer[0] if peer else "")
            if newcomer is not None:
                self._newcomers[newcomer] = time.monotonic()
                self._time_next()

    def _prepare(self, sock: socket.socket) -> AnySocket:
        """Raises: OSError."""
        if sock.family != socket.AF_UNIX:
            return tcp.accepted(sock, self._tls)
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        return sock

    def _make_room(self, crowd: list[Newcomer]) -> None:
        self._give_up(crowd, "others wait, and it has not shown yet that it has the token")
        self._resume()

    def _time_next(self) -> None:
        if self._newcomers and not self._timed:
            self._timed = True
            left = next(iter(self._newcomers.values())) + self._timeout_s - time.monotonic()
            self._poller.call_later(max(0.0, left), self._end_the_late)

    def _end_the_late(self) -> None:
        self._timed = False
        since = time.monotonic() - self._timeout_s
        late = [newcomer for newcomer, came in self._newcomers.items() if came <= since]
        self._give_up(late, f"no handshake within {self._timeout_s:g} s")
        self._time_next()

    def _give_up(self, newcomers: list[Newcomer], reason: str) -> None:
        for newcomer in newcomers:
            if newcomer in self._newcomers:
                newcomer.close(reason)

    def _look_away(self) -> None:
        if self._watching:
            self._watching = False
            self._poller.remove_reader(self.sock.fileno())

    def _resume(self) -> None:
        if not self._watching and not self._closed:
            self._watching = True
            self._poller.add_reader(self.sock.fileno(), self._accept)
