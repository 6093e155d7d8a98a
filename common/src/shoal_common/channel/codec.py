"""Messages as the bytes of the framed channel, and back. What the messages are is in ``frames``; no I/O.

A frame is a little-endian ``uint32`` length and one msgpack array whose first element is the tag of its message.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec

from shoal_common.channel.frames import Message

#: A longer frame is not sent, and refused as garbage where it arrives.
MAX_FRAME_BYTES = 256 * 1024 * 1024
#: A peer that leaves more bytes than this unread does not read any more: its connection ends.
MAX_UNREAD_BYTES = MAX_FRAME_BYTES
#: No frame of a handshake is longer, and nothing else is read from a peer that has not proved that it has the token.
MAX_HANDSHAKE_FRAME_BYTES = 64 * 1024
#: What one read of a socket asks for. Python allocates that much beforehand, and from 128 KiB on glibc maps fresh
#: memory for it, only to unmap it again: that cost a small call a quarter of its time.
READ_BYTES = 64 * 1024

LENGTH = struct.Struct("<I")
_HEADER = LENGTH.size
_unpack, _pack_into = LENGTH.unpack_from, LENGTH.pack_into
_encode_into = msgspec.msgpack.Encoder().encode_into


class FrameTooLargeError(ValueError):
    """A message is over the limit of a frame. It has not been sent, and the connection is as it was."""

    def __init__(self, kind: str, size: int) -> None:
        super().__init__(kind, size)
        self.kind = kind
        self.size = size

    def __str__(self) -> str:
        return f"a {self.kind} of {self.size} bytes is over the limit of a message, {MAX_FRAME_BYTES} bytes"


def encode_frame(message: Message) -> bytearray:
    """One message as the bytes that go on the wire.

    Raises: FrameTooLargeError; what msgspec raises for what cannot be encoded (UnicodeEncodeError for a text that is
    not valid Unicode, OverflowError for an integer of more than 64 bits).
    """
    frame = bytearray(_HEADER)
    _encode_into(message, frame, _HEADER)  # behind the length: joining them would copy a large message once more
    size = len(frame) - _HEADER
    if size > MAX_FRAME_BYTES:
        raise FrameTooLargeError(type(message).__name__, size)
    _pack_into(frame, 0, size)
    return frame


_Decode = Callable[[bytes | memoryview], Any]
#: By the identity of their unions, which are kept with them. The hash of a union asks all its types for theirs: in a
#: process that has just been forked that is a page of memory for each.
_decoders: dict[int, tuple[Any, _Decode]] = {}


def _decoder(union: Any) -> _Decode:
    """Thread-safe, so all connections share one: it takes a millisecond or two to make."""
    known = _decoders.get(id(union))
    if known is None:
        known = _decoders[id(union)] = union, msgspec.msgpack.Decoder(union).decode
    return known[1]


class Decoder:
    """Cuts a byte stream into messages of one union, which must be one that lives as long as the process.

    Linear in the bytes: what is whole is decoded where it was received, and a frame that comes in pieces gathers in one
    buffer, which is given up with it, as a message may have views of its bytes. A ``recv_into`` memory of the frame's
    size was no faster, because that memory must be zeroed first.
    """

    __slots__ = ("_buffer", "_decode", "_limit", "_wanted")

    def __init__(self, union: Any, limit: int = MAX_FRAME_BYTES) -> None:
        self._decode = _decoder(union)
        self._limit = limit
        #: What has been received and not decoded.
        self._buffer = bytearray()
        #: Nothing can be decoded before so many bytes are in the buffer.
        self._wanted = _HEADER

    @property
    def rest(self) -> bytes:
        """What has been received and not decoded."""
        return bytes(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview, most: int = -1) -> list[Any]:
        """Take what was received; returns the messages that it completes, ``most`` of them if that is not -1.

        Raises: msgspec.DecodeError (or ValidationError, its subclass) on what is not a frame. The connection must then
        be closed, as its boundaries are lost.
        """
        source = data
        if self._buffer:
            source = self._buffer
            source += data
            if len(source) < self._wanted:
                return []
        messages: list[Any] = []
        at, end, wanted = 0, len(source), _HEADER
        view = memoryview(source)
        while end - at >= _HEADER and len(messages) != most:
            (length,) = _unpack(source, at)
            if length > self._limit:
                raise msgspec.DecodeError(f"a frame of {length} bytes is over the limit of {self._limit}")
            wanted = _HEADER + length
            if end - at < wanted:
                break
            messages.append(self._decode(view[at + _HEADER : at + wanted]))
            at += wanted
            wanted = _HEADER
        if at == end:
            if self._buffer:
                self._buffer = bytearray()
        else:
            self._wanted = wanted
            if at or source is not self._buffer:
                self._buffer = bytearray(view[at:])
        return messages
