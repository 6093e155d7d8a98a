"""The sockets of one end of a tunnel: the connection to the other end, and a local one for each stream.

Works on raw non-blocking sockets with ``add_reader``: what one socket brings goes out of the other in the same turn of
the loop. A local socket is read only as far as its stream has room, and the connection is always read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable

from shoal_common.channel.frame_socket import AnySocket
from shoal_common.channel.tunnel import Closed, Ended, Event, Lost, Opened, Received, Tunnel, TunnelError

_READ_BYTES = 64 * 1024
#: How long the last words may take at the end, in seconds.
_LAST_WORDS_S = 2.0


class _Local:
    """A stream's socket, and what it has not taken yet."""

    __slots__ = ("closing", "paused", "sock", "unwritten", "writing")

    def __init__(self, sock: AnySocket | None) -> None:
        #: None while it is being connected.
        self.sock = sock
        self.unwritten: deque[memoryview] = deque()
        self.writing = False
        #: Its stream had no room, so it is not read.
        self.paused = False
        #: The other end has closed the stream: it ends with what is unwritten.
        self.closing = False


class TunnelSockets:
    """Belongs to one event loop, from which all calls come."""

    def __init__(
        self,
        tunnel: Tunnel,
        *,
        on_open: Callable[[int, bytes], None],
        on_lost: Callable[[str], None],
        on_end: Callable[[str], None],
    ) -> None:
        """``on_open(stream, target)``: the other end opens a stream; ``join`` or ``refuse`` it, soon. ``on_lost``: the
        connection is gone, ``attach`` another one. ``on_end``: the session is over, told once, by whomever it ended."""
        self._tunnel = tunnel
        self._on_open = on_open
        self._on_lost = on_lost
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._connection: AnySocket | None = None
        self._writing = False
        self._locals: dict[int, _Local] = {}
        self._paused: set[int] = set()
        self.ended = False
        #: Set while the session ends: done when the other end has taken note.
        self._noted: asyncio.Future[None] | None = None
        self._timer = self._loop.call_at(tunnel.next_deadline(), self._tick)

    @property
    def received(self) -> int:
        """What the other end is to be told for ``attach``. First ``detach``: it must not grow any more."""
        return self._tunnel.received

    # -- connection ---------------------------------------------------------------------------------

    def attach(self, connection: AnySocket, received: int, early: bytes = b"") -> None:
        """Go on over ``connection``, on which the other end said that it has ``received`` so many bytes, and where
        ``early`` has come already."""
        self.detach()
        try:
            self._tunnel.resume(received, self._loop.time())
        except TunnelError as error:
            connection.close()
            self.end(str(error))
            return
        self._connection = connection
        self._loop.add_reader(connection.fileno(), self._read)
        self._arm()
        if early:
            self._take(early)
        self._flush()

    def detach(self) -> None:
        """Close the connection; the session stays. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._loop.remove_reader(connection.fileno())
            if self._writing:
                self._writing = False
                self._loop.remove_writer(connection.fileno())
            connection.close()
            self._tunnel.disconnected(self._loop.time())
            self._arm()

    def _lose(self, reason: str) -> None:
        self.detach()
        if self._noted is None:
            self._on_lost(reason)
        elif not self._noted.done():
            self._noted.set_result(None)

    def _read(self) -> None:
        assert self._connection is not None
        try:
            data = self._connection.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(str(error))
            return
        if not data:
            self._lose("the other end closed the connection")
            return
        self._take(data)
        self._flush()

    def _take(self, data: bytes) -> None:
        try:
            events = self._tunnel.receive(data, self._loop.time())
        except TunnelError as error:
            self.end(str(error))
            return
        for event in events:
            self._handle(event)

    def _handle(self, event: Event) -> None:
        if self.ended:
            return
        match event:
            case Received(stream, data):
                local = self._locals.get(stream)
                if local is not None and not local.closing:
                    local.unwritten.append(data)
                    if local.sock is not None and not local.writing:
                        self._write(stream, local)
            case Opened(stream, target):
                self._locals[stream] = _Local(None)
                self._on_open(stream, target)
            case Closed(stream):
                local = self._locals.get(stream)
                if local is not None:
                    local.closing = True
                    if not local.unwritten:
                        self._forget(stream)
            case Lost(reason):
                self._lose(reason)
            case Ended(reason):
                self.end(reason)

    def _flush(self) -> None:
        """Send what is pending, as far as the connection takes it."""
        tunnel = self._tunnel
        while (connection := self._connection) is not None and (buffers := tunnel.pending()):
            try:
                if isinstance(connection, socket.socket):
                    size = connection.sendmsg(buffers)
                else:
                    size = connection.send(b"".join(buffers))
            except (BlockingIOError, InterruptedError):
                if not self._writing:
                    self._writing = True
                    self._loop.add_writer(connection.fileno(), self._flush)
                break
            except OSError as error:
                self._lose(str(error))
                return
            tunnel.sent(size, self._loop.time())
        else:
            if connection is not None and self._writing:
                self._writing = False
                self._loop.remove_writer(connection.fileno())
        if self._paused:
            for stream in list(self._paused):
                if tunnel.room(stream):
                    self._resume(stream)

    # -- streams ------------------------------------------------------------------------------------

    def open(self, target: bytes, sock: AnySocket) -> None:
        """A stream to ``target``, whose bytes go through ``sock``; closes it when that cannot be."""
        if self.ended:
            sock.close()
            return
        try:
            stream = self._tunnel.open(target)
        except TunnelError:
            sock.close()
            return
        self._locals[stream] = _Local(None)
        self.join(stream, sock)
        self._flush()

    def join(self, stream: int, sock: AnySocket) -> None:
        """Let ``sock``, which does not block and may be connecting still, carry a stream that the other end has opened.
        Takes it over."""
        local = self._locals.get(stream)
        if local is None or self.ended:
            sock.close()
            return
        local.sock = sock
        self._loop.add_reader(sock.fileno(), self._read_local, stream, local)
        if local.unwritten:
            self._write(stream, local)

    def refuse(self, stream: int, reason: str) -> None:
        """There is nothing to carry the stream."""
        if stream in self._locals:
            self._drop(stream, reason)

    def _read_local(self, stream: int, local: _Local) -> None:
        assert local.sock is not None
        room = self._tunnel.room(stream)
        if not room:
            local.paused = True
            self._paused.add(stream)
            self._loop.remove_reader(local.sock.fileno())
            return
        try:
            data = local.sock.recv(min(room, _READ_BYTES))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._drop(stream, str(error))
            return
        if not data:
            self._drop(stream, "")
            return
        self._tunnel.send(stream, data)
        self._flush()

    def _resume(self, stream: int) -> None:
        self._paused.discard(stream)
        local = self._locals.get(stream)
        if local is not None and local.sock is not None and not local.closing:
            local.paused = False
            self._loop.add_reader(local.sock.fileno(), self._read_local, stream, local)

    def _write(self, stream: int, local: _Local) -> None:
        """Write what has come, as far as the socket takes it."""
        assert local.sock is not None
        written = 0
        while local.unwritten:
            head = local.unwritten[0]
            try:
                size = local.sock.send(head)
            except (BlockingIOError, InterruptedError):
                if not local.writing:
                    local.writing = True
                    self._loop.add_writer(local.sock.fileno(), self._write_more, stream, local)
                break
            except OSError as error:
                self._drop(stream, str(error))
                return
            written += size
            if size == len(head):
                local.unwritten.popleft()
            else:
                local.unwritten[0] = head[size:]
        else:
            if local.writing:
                local.writing = False
                self._loop.remove_writer(local.sock.fileno())
        self._tunnel.consumed(stream, written)
        if local.closing and not local.unwritten:
            self._forget(stream)

    def _write_more(self, stream: int, local: _Local) -> None:
        self._write(stream, local)
        self._flush()

    def _drop(self, stream: int, reason: str) -> None:
        """The local side has ended."""
        self._tunnel.close(stream, reason)
        self._forget(stream)
        self._flush()

    def _forget(self, stream: int) -> None:
        local = self._locals.pop(stream)
        self._paused.discard(stream)
        if local.sock is not None:
            if not local.paused:
                self._loop.remove_reader(local.sock.fileno())
            if local.writing:
                self._loop.remove_writer(local.sock.fileno())
            local.sock.close()

    # -- time and end -------------------------------------------------------------------------------

    def _arm(self) -> None:
        self._timer.cancel()
        if not self.ended:
            self._timer = self._loop.call_at(self._tunnel.next_deadline(), self._tick)

    def _tick(self) -> None:
        for event in self._tunnel.tick(self._loop.time()):
            self._handle(event)
        self._flush()
        self._arm()

    async def finish(self, reason: str) -> None:
        """End the session in good order: the other end is told, if it can be reached now. Idempotent."""
        if self.ended:
            return
        self._tunnel.end(reason)
        if self._connection is not None:
            # Closing first would make the kernel drop the last words if something unread has just come in.
            self._noted = self._loop.create_future()
            self._flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._noted
        self.end(reason)

    def end(self, reason: str) -> None:
        """The session is over, without a word to the other end. Idempotent."""
        if self.ended:
            return
        self.ended = True
        self._timer.cancel()
        # First, so that who reads the ends of the sockets can know why.
        self._on_end(reason)
        self.detach()
        for stream in list(self._locals):
            self._forget(stream)

    def abandon(self) -> None:
        """In a forked child: let go of the copied descriptors; nothing else of this may be used there."""
        for local in self._locals.values():
            if local.sock is not None:
                local.sock.close()
        if self._connection is not None:
            self._connection.close()
