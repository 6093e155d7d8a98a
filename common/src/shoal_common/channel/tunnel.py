"""Many byte streams through one connection that may break and be made again, without I/O.

Each end has a ``Tunnel``; the bytes of ``pending`` of one are ``receive`` of the other. Two things in one:

- *Streams*, opened by either end, with a window each: whoever receives grants the sender more room as its own sink
  takes the bytes, so that a sink which does not read holds up its stream only.
- *Resumption*: both ends count the bytes of a direction and keep what the other one has not acknowledged. After the
  connection broke each tells on the new one how much it has got, and the rest is sent again. Streams notice a stall.

What may be kept is bounded (``KEPT_BYTES``); beyond it no stream has room, until there is an acknowledgement. An end
without anything to say sends an acknowledgement from time to time, so that silence means that the connection is dead.

A record is kind, stream and a number, which is the length of the payload that follows where the kind has one.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from shoal_common.service.story import Story, explained, noted

#: What one stream may have under way to a sink that has not taken it yet, in bytes.
WINDOW_BYTES = 1024 * 1024
#: What is kept in all until the other end has acknowledged it, in bytes.
KEPT_BYTES = 16 * 1024 * 1024
#: What may wait to be sent while connected: more would only delay the small records behind it, in bytes.
UNSENT_BYTES = 512 * 1024
#: Received bytes are acknowledged when there are so many.
ACKNOWLEDGE_BYTES = 256 * 1024
#: Open streams at a time; the other end's openings beyond it are closed at once.
MAX_STREAMS = 4096
#: An end that has sent nothing for so long sends an acknowledgement, in seconds.
KEEPALIVE_S = 5.0
#: A connection by which nothing has come for so long is dead, in seconds.
SILENCE_S = 15.0

_RECORD = struct.Struct("<BIQ")
_OPEN, _DATA, _CLOSE, _CREDIT, _ACKNOWLEDGE, _END = range(1, 7)
_WITH_TEXT = (_OPEN, _CLOSE, _END)
_MAX_TEXT_BYTES = 4096
#: Up to this a payload is copied behind its header: one buffer is cheaper to send than two.
_JOINED_BYTES = 4096


class TunnelError(Exception):
    """The other end does not keep to the protocol, or has lost what it should have kept."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The other end has opened a stream; ``target`` says what to."""

    stream: int
    target: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """The sink has to take it, and ``consumed`` to be called then."""

    stream: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class Closed:
    """The other end has closed the stream; everything it sent before has come. ``reason`` is empty in good order."""

    stream: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is dead: close it and call ``disconnected``."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over, and all streams with it."""

    reason: str


Event: TypeAlias = Opened | Received | Closed | Lost | Ended


class _Stream:
    __slots__ = ("owed", "room", "window")

    def __init__(self) -> None:
        #: Bytes that the other end lets us send.
        self.room = WINDOW_BYTES
        #: Bytes that we let the other end send.
        self.window = WINDOW_BYTES
        #: Bytes consumed and not yet granted again.
        self.owed = 0


class Tunnel:
    """One end. ``now`` is monotonic, in seconds. After an ``Ended`` event, or a ``TunnelError``, it is of no use."""

    def __init__(self, *, client: bool, grace_s: float, now: float) -> None:
        """``grace_s``: without a connection for so long, the session ends."""
        self._grace_s = grace_s
        self._streams: dict[int, _Stream] = {}
        self._next_stream = 1 if client else 2
        self._last_opened = 0
        self._peer_parity = 0 if client else 1
        #: Bytes received since the session began: what the other end is told when it connects again.
        self.received = 0
        self._acknowledged_to_peer = 0
        #: What the other end has acknowledged of ours.
        self._acknowledged = 0
        self._unacknowledged: deque[memoryview] = deque()
        self._unsent: deque[memoryview] = deque()
        self._unacknowledged_bytes = 0
        self._unsent_bytes = 0
        self._header = b""
        self._kind = 0
        self._stream = 0
        self._payload_left = 0
        self._text = b""
        self.connected = False
        self._disconnected_at = now
        self._heard_at = now
        self._sent_at = now
        self._ended = ""
        self._story = Story("the tunnel")

    # -- connection ---------------------------------------------------------------------------------

    @noted
    def resume(self, received: int, now: float) -> None:
        """There is a connection, the first (``received`` = 0) or another one, and so much has the other end got.

        Raises: TunnelError when that cannot be.
        """
        self._acknowledge_to(received)
        self._unsent.extendleft(reversed(self._unacknowledged))
        self._unsent_bytes += self._unacknowledged_bytes
        self._unacknowledged.clear()
        self._unacknowledged_bytes = 0
        self._acknowledged_to_peer = self.received
        self.connected = True
        self._heard_at = self._sent_at = now

    @noted
    def disconnected(self, now: float) -> None:
        """The connection is gone. Idempotent."""
        if self.connected:
            self.connected = False
            self._disconnected_at = now

    def next_deadline(self) -> float:
        """When ``tick`` wants to be called."""
        if not self.connected:
            return self._disconnected_at + self._grace_s
        return min(self._sent_at + KEEPALIVE_S, self._heard_at + SILENCE_S)

    def tick(self, now: float) -> list[Event]:
        if self._ended:
            return []
        if not self.connected:
            if now >= self._disconnected_at + self._grace_s:
                self._ended = f"no connection for {self._grace_s:g} s"
                return [Ended(self._ended)]
        elif now >= self._heard_at + SILENCE_S:
            return [Lost(f"nothing was heard for {SILENCE_S:g} s")]
        elif now >= self._sent_at + KEEPALIVE_S:
            self._sent_at = now
            self._acknowledge()
        return []

    @noted
    def end(self, reason: str) -> None:
        """Tell the other end, with what is still pending, that the session is over."""
        if not self._ended:
            self._ended = reason or "ended"
            self._put_text(_END, 0, reason)

    # -- streams ------------------------------------------------------------------------------------

    @noted
    def open(self, target: bytes) -> int:
        """A new stream's number. Raises: TunnelError when too many are open."""
        if len(self._streams) >= MAX_STREAMS:
            raise TunnelError(f"{MAX_STREAMS} streams are open already")
        stream = self._next_stream
        self._next_stream += 2
        self._streams[stream] = _Stream()
        self._put(_OPEN, stream, target)
        return stream

    def room(self, stream: int) -> int:
        """How many bytes of the stream may be sent now; 0 for one that is closed."""
        state = self._streams.get(stream)
        if state is None:
            return 0
        left = KEPT_BYTES - self._unacknowledged_bytes - self._unsent_bytes
        if self.connected:
            left = min(left, UNSENT_BYTES - self._unsent_bytes)
        return max(0, min(state.room, left))

    def send(self, stream: int, data: bytes) -> None:
        """At most ``room`` bytes."""
        self._streams[stream].room -= len(data)
        self._put(_DATA, stream, data)

    @noted
    def close(self, stream: int, reason: str = "") -> None:
        """End both directions, behind what was sent. What the other end has under way is dropped. Idempotent."""
        if self._streams.pop(stream, None) is not None:
            self._put_text(_CLOSE, stream, reason)

    def consumed(self, stream: int, size: int) -> None:
        """The sink has taken ``size`` bytes of what was received."""
        state = self._streams.get(stream)
        if state is None:
            return
        state.owed += size
        if state.owed >= WINDOW_BYTES // 2:
            state.window += state.owed
            self._put_record(_CREDIT, stream, state.owed)
            state.owed = 0

    # -- sending ------------------------------------------------------------------------------------

    def pending(self, most: int = 64) -> list[memoryview]:
        """The next buffers to send; empty while there is no connection."""
        if not self.connected:
            return []
        unsent = self._unsent
        return [unsent[i] for i in range(min(most, len(unsent)))]

    @explained
    def sent(self, size: int, now: float) -> None:
        """The first ``size`` bytes of ``pending`` are on their way."""
        self._sent_at = now
        self._unsent_bytes -= size
        self._unacknowledged_bytes += size
        while size:
            head = self._unsent[0]
            if len(head) <= size:
                self._unacknowledged.append(self._unsent.popleft())
                size -= len(head)
            else:
                self._unacknowledged.append(head[:size])
                self._unsent[0] = head[size:]
                return

    # -- receiving ----------------------------------------------------------------------------------

    @explained
    def receive(self, data: bytes, now: float) -> list[Event]:
        """Raises: TunnelError."""
        self._heard_at = now
        self.received += len(data)
        view = memoryview(data)
        events: list[Event] = []
        at, end = 0, len(data)
        while at < end:
            if self._payload_left:
                part = view[at : at + self._payload_left]
                at += len(part)
                self._payload_left -= len(part)
                self._take(part, events)
                continue
            need = _RECORD.size - len(self._header)
            self._header += view[at : at + need]
            at += need
            if len(self._header) == _RECORD.size:
                kind, stream, number = _RECORD.unpack(self._header)
                self._header = b""
                self._begin(kind, stream, number, events)
        if self.received - self._acknowledged_to_peer >= ACKNOWLEDGE_BYTES:
            self._acknowledge()
        return events

    def _begin(self, kind: int, stream: int, number: int, events: list[Event]) -> None:
        """A record's header has come."""
        self._kind, self._stream = kind, stream
        if kind == _DATA:
            self._payload_left = number
            state = self._streams.get(stream)
            if state is not None:
                if number > state.window:
                    raise TunnelError(f"stream {stream} has more under way than its window")
                state.window -= number
        elif kind in _WITH_TEXT:
            if number > _MAX_TEXT_BYTES:
                raise TunnelError(f"a record of kind {kind} with {number} bytes")
            self._payload_left = number
            if not number:
                self._take_text(b"", events)
        elif kind == _CREDIT:
            state = self._streams.get(stream)
            if state is not None:
                state.room += number
        elif kind == _ACKNOWLEDGE:
            # One that was sent again after the connection broke is older than what was told then.
            self._acknowledge_to(max(number, self._acknowledged))
        else:
            raise TunnelError(f"a record of the unknown kind {kind}")

    def _take(self, part: memoryview, events: list[Event]) -> None:
        if self._kind == _DATA:
            if self._stream in self._streams:
                events.append(Received(self._stream, part))
            return
        self._text += part
        if not self._payload_left:
            text, self._text = self._text, b""
            self._take_text(text, events)

    def _take_text(self, text: bytes, events: list[Event]) -> None:
        stream = self._stream
        if self._kind == _OPEN:
            if stream % 2 != self._peer_parity or stream <= self._last_opened:
                raise TunnelError(f"the other end may not open stream {stream}")
            self._last_opened = stream
            if len(self._streams) >= MAX_STREAMS:
                self._put_text(_CLOSE, stream, f"{MAX_STREAMS} streams are open already")
                return
            self._streams[stream] = _Stream()
            events.append(Opened(stream, text))
        elif self._kind == _CLOSE:
            if self._streams.pop(stream, None) is not None:
                events.append(Closed(stream, text.decode(errors="replace")))
        else:
            self._ended = text.decode(errors="replace") or "ended"
            events.append(Ended(self._ended))

    def validate(self) -> None:
        """For tests: what is always true of it."""
        assert self._unsent_bytes == sum(map(len, self._unsent))
        assert self._unacknowledged_bytes == sum(map(len, self._unacknowledged))
        assert self._acknowledged_to_peer <= self.received
        assert len(self._streams) <= MAX_STREAMS and len(self._header) < _RECORD.size
        for stream, state in self._streams.items():
            opened = self._last_opened if stream % 2 == self._peer_parity else self._next_stream - 2
            assert stream <= opened, "a stream's number is given once"
            assert state.room >= 0 and state.window >= 0 and 0 <= state.owed < WINDOW_BYTES // 2
            assert state.window + state.owed <= WINDOW_BYTES, "nobody is granted more than a window"

    # -- bytes kept -----------------------------------------------------------------------------------

    def _put_text(self, kind: int, stream: int, text: str) -> None:
        self._put(kind, stream, text.encode()[:_MAX_TEXT_BYTES])

    def _put(self, kind: int, stream: int, payload: bytes) -> None:
        header = _RECORD.pack(kind, stream, len(payload))
        if len(payload) <= _JOINED_BYTES:
            self._unsent.append(memoryview(header + payload))
        else:
            self._unsent.append(memoryview(header))
            self._unsent.append(memoryview(payload))
        self._unsent_bytes += len(header) + len(payload)

    def _put_record(self, kind: int, stream: int, number: int) -> None:
        self._unsent.append(memoryview(_RECORD.pack(kind, stream, number)))
        self._unsent_bytes += _RECORD.size

    def _acknowledge(self) -> None:
        self._acknowledged_to_peer = self.received
        self._put_record(_ACKNOWLEDGE, 0, self.received)

    def _acknowledge_to(self, count: int) -> None:
        """The other end has got our first ``count`` bytes."""
        size = count - self._acknowledged
        if size < 0 or size > self._unacknowledged_bytes:
            raise TunnelError(
                f"{count} bytes are said to have arrived, and {self._acknowledged} to "
                f"{self._acknowledged + self._unacknowledged_bytes} can have"
            )
        self._acknowledged = count
        self._unacknowledged_bytes -= size
        while size:
            head = self._unacknowledged[0]
            if len(head) <= size:
                self._unacknowledged.popleft()
                size -= len(head)
            else:
                self._unacknowledged[0] = head[size:]
                return
