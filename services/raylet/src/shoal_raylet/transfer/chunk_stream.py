"""A connection to another raylet over which this one reads objects: the bytes go from the socket to their place.

All is done in steps on the event loop: a step copies at most a chunk, which takes less than waking a thread that then
contends for the interpreter. Measured, two threads that block in ``recv_into`` and ``sendfile`` are no faster.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from shoal_common.channel import codec, frames
from shoal_common.tls import TlsSocket
from shoal_raylet.transfer.links import LinkLost

#: The loop wakes when so much of a chunk has arrived, or its rest. One that wakes for every few packets spends a fifth
#: of a transfer's processor time on that. A source that needs longer than SOURCE_STALL_S for it is given up.
_WAKE_BYTES = 1024 * 1024
#: Received in one turn of the loop at most, where it is TLS, in bytes.
_TLS_STEP_BYTES = 1024 * 1024


@dataclass(slots=True)
class _Expected:
    object_id: bytes
    offset: int
    #: Where the bytes go; None = nobody wants them any more.
    target: memoryview | None


class ChunkStream:
    """Answers come through the callbacks, in the loop: ``on_bytes()`` whenever some arrive, ``on_chunk(object id,
    offset, whether the source has it)``, ``on_lost(why)`` once, unless this end closes it."""

    def __init__(
        self,
        dial: Coroutine[Any, Any, socket.socket | TlsSocket],
        on_bytes: Callable[[], None],
        on_chunk: Callable[[bytes, int, bool], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_bytes = on_bytes
        self._on_chunk = on_chunk
        self._on_lost = on_lost
        self._sock: socket.socket | TlsSocket | None = None
        #: What is sent before the connection is made.
        self._held: list[bytearray] = []
        self._closed = False
        self._requests = itertools.count(1)
        self._expected: dict[int, _Expected] = {}
        self._header = bytearray()
        self._current: _Expected | None = None
        #: Of the chunk whose bytes are coming: how many have come, and how many it has.
        self._filled = 0
        self._length = 0
        self._wakes_after = 1
        self.dialing = self._loop.create_task(self._dial(dial))

    def ask(self, object_id: bytes, offset: int, target: memoryview) -> None:
        request = next(self._requests) & 0xFFFFFFFF
        self._expected[request] = _Expected(object_id, offset, target)
        self._send(frames.ChunkGet(request, object_id, offset, len(target)))

    def end(self, object_id: bytes) -> None:
        """Nothing more of it is wanted; its memory is not touched any more when this returns."""
        for expected in self._expected.values():
            if expected.object_id == object_id:
                expected.target = None
        if self._current is not None and self._current.object_id == object_id:
            self._current.target = None
        self._send(frames.ChunksEnd(object_id))

    def close(self) -> None:
        """Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.dialing.cancel()
        self._expected.clear()
        self._current = None
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _fail(self, reason: str) -> None:
        if not self._closed:
            self.close()
            self._on_lost(reason)

    async def _dial(self, dial: Coroutine[Any, Any, socket.socket | TlsSocket]) -> None:
        try:
            sock = await dial
        except LinkLost as error:
            self._fail(str(error))
            return
        self._sock = sock
        self._loop.add_reader(sock.fileno(), self._read)
        held, self._held = b"".join(self._held), []
        self._send_bytes(held)

    def _send(self, message: frames.Message) -> None:
        frame = codec.encode_frame(message)
        if self._sock is None:
            self._held.append(frame)
        elif not self._closed:
            self._send_bytes(frame)

    def _send_bytes(self, data: bytes | bytearray) -> None:
        assert self._sock is not None
        try:
            # Questions are tiny and few: a source that leaves a full buffer of them unread does not live any more.
            if self._sock.send(data) != len(data):
                self._loop.call_soon(self._fail, "it does not read what it is asked")
        except OSError as error:
            self._loop.call_soon(self._fail, str(error))

    def _read(self) -> None:
        sock = self._sock
        assert sock is not None
        try:
            if isinstance(sock, TlsSocket):
                self._take(_some(sock.recv(_TLS_STEP_BYTES)))
                return
            if self._current is None:
                self._take(_some(sock.recv(frames.CHUNK_HEADER.size - len(self._header))))
            if self._current is not None:
                if self._current.target is None:
                    self._advance(len(_some(sock.recv(self._length - self._filled))))
                else:
                    got = sock.recv_into(self._current.target[self._filled :])
                    if not got:
                        raise ConnectionResetError("it has closed the connection")
                    self._advance(got)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(str(error))

    def _take(self, data: bytes) -> None:
        """Bytes that have not gone to their place yet. Raises: ConnectionAbortedError."""
        rest = memoryview(data)
        while rest and not self._closed:
            if self._current is None:
                needed = frames.CHUNK_HEADER.size - len(self._header)
                self._header += rest[:needed]
                rest = rest[needed:]
                if len(self._header) == frames.CHUNK_HEADER.size:
                    self._begin_chunk()
                continue
            part = rest[: self._length - self._filled]
            rest = rest[len(part) :]
            if self._current.target is not None:
                self._current.target[self._filled : self._filled + len(part)] = part
            self._advance(len(part))

    def _begin_chunk(self) -> None:
        """Raises: ConnectionAbortedError."""
        request, length = frames.CHUNK_HEADER.unpack(self._header)
        self._header.clear()
        expected = self._expected.pop(request, None)
        if expected is None or (expected.target is not None and length not in (0, len(expected.target))):
            raise ConnectionAbortedError("it sent what it was not asked for")
        self._on_bytes()
        if length:
            self._current, self._filled, self._length = expected, 0, length
            self._wake_after(length)
        elif expected.target is not None:
            self._on_chunk(expected.object_id, expected.offset, False)

    def _advance(self, got: int) -> None:
        current = self._current
        assert current is not None
        self._filled += got
        self._on_bytes()
        if self._filled < self._length:
            self._wake_after(self._length - self._filled)
        else:
            self._current = None
            self._wake_after(1)
            if current.target is not None:
                current.target.release()
                self._on_chunk(current.object_id, current.offset, True)

    def _wake_after(self, wanted: int) -> None:
        """How many bytes shall have arrived when ``_read`` is called next; the end of the connection comes through
        at once."""
        assert self._sock is not None
        count = min(wanted, _WAKE_BYTES)
        if count != self._wakes_after and isinstance(self._sock, socket.socket):
            self._wakes_after = count
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def _some(data: bytes) -> bytes:
    """Raises: ConnectionResetError when there is none."""
    if not data:
        raise ConnectionResetError("it has closed the connection")
    return data
