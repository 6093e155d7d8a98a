"""What is inside of an actor's blobs: checkpoints, and the log of a durable actor's calls."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import msgspec

from shoal._wire.peer_frames import TaskPush, TaskReply


class Call(msgspec.Struct, array_like=True, gc=False):
    """A call that a durable actor has run, with all that is needed to run it again."""

    #: Its place in the order in which the actor ran its calls, from 1.
    number: int
    caller: bytes
    push: TaskPush
    reply: TaskReply
    #: The caller has the answers of all its calls up to this one.
    answered: int = 0


class Answers(msgspec.Struct, array_like=True, gc=False):
    """What a checkpoint knows of one caller."""

    caller: bytes
    answered: int
    #: Calls that have run and may not have been answered: sequence, task id, attempt, answer.
    calls: list[tuple[int, bytes, int, TaskReply]]


class Saved(msgspec.Struct, array_like=True, gc=False):
    """A checkpoint."""

    class_name: str
    #: "3.11": the state may hold bytecode.
    python: str
    #: Pickled.
    state: bytes
    #: A durable actor's; empty = it is not durable.
    answers: list[Answers] = []


encode = msgspec.msgpack.Encoder().encode
_decode_saved = msgspec.msgpack.Decoder(Saved).decode
_decode_calls = msgspec.msgpack.Decoder(list[Call]).decode

#: Before calls that were appended to a log together: their length and CRC-32. A process that is killed leaves half of
#: them at the end.
_HEAD = struct.Struct("<II")


class Damaged(Exception):
    """It is not what was stored."""


def decode_saved(data: bytes) -> Saved:
    """Raises: Damaged."""
    try:
        return _decode_saved(data)
    except msgspec.DecodeError as error:
        raise Damaged(f"it is no checkpoint of this release: {error}") from error


def framed(calls: list[Call]) -> bytes:
    """As they are appended to a log together."""
    encoded = encode(calls)
    return _HEAD.pack(len(encoded), zlib.crc32(encoded)) + encoded


def whole_calls(data: bytes) -> Sequence[Call]:
    """Those of a part of the log; what is incomplete at its end was never answered, and left out. Raises: Damaged."""
    calls: list[Call] = []
    at = 0
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        encoded = data[at : at + length]
        if len(encoded) < length:
            break
        if zlib.crc32(encoded) != checksum:
            raise Damaged(f"the checksum of the calls at byte {at} does not match")
        try:
            calls += _decode_calls(encoded)
        except msgspec.DecodeError as error:
            raise Damaged(f"at byte {at} are no calls of this release: {error}") from error
        at += length
    return calls
