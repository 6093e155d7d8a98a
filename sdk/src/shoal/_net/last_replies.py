"""Replies that a worker holds back to send them together, where their callers find them should it die meanwhile.

They lie in a file that the worker has mapped: what is written there is in the kernel's page cache, and outlives the
process, for a microsecond a reply. A caller's connection ends with the process, and if it is on the same node it looks
into the file then. Sending each reply at once instead halves the rate of calls.

The file: a ``uint32``, the bytes in use behind it, then records of a caller's id, a ``uint32`` length and a reply.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct

import msgspec

from shoal._wire.peer_frames import TaskReply
from shoal_common.ids import WORKER_LENGTH

#: Of the file. A millisecond's replies of the shortest calls take some 5 KiB.
SIZE = 64 * 1024

_LENGTH = struct.Struct("<I")
_RECORD = struct.Struct(f"<{WORKER_LENGTH}sI")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(TaskReply).decode


def path_of(session_dir: str, worker_id: bytes) -> str:
    return os.path.join(session_dir, "sockets", f"w-{worker_id.hex()[:16]}.replies")


class LastReplies:
    """The worker's side. Not thread-safe."""

    def __init__(self, path: str) -> None:
        """Raises: OSError."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, SIZE)  # on a full disk, writing to the map would be the end of the process
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        self._end = _LENGTH.size

    def add(self, caller: bytes, reply: TaskReply) -> bool:
        """False = there is no room for it."""
        data = _encode(reply)
        begin = self._end + _RECORD.size
        end = begin + len(data)
        if end > SIZE:
            return False
        _RECORD.pack_into(self._map, self._end, caller, len(data))
        self._map[begin:end] = data
        self._end = end
        # Only now: a reader sees whole records.
        _LENGTH.pack_into(self._map, 0, end - _LENGTH.size)
        return True

    def clear(self) -> None:
        """All of them have been sent."""
        self._end = _LENGTH.size
        _LENGTH.pack_into(self._map, 0, 0)


def read(path: str, caller: bytes) -> list[TaskReply]:
    """What a worker that is dead has left for ``caller``; perhaps also what has arrived."""
    try:
        with open(path, "rb") as file:
            (used,) = _LENGTH.unpack(file.read(_LENGTH.size))
            data = file.read(used)
    except (OSError, struct.error):
        return []  # it was no actor's, or on another node, or had never held one back
    replies = []
    at = 0
    while at < len(data):
        to, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size + length
        if to == caller:
            replies.append(_decode(data[at - length : at]))
    return replies


def remove(path: str) -> None:
    with contextlib.suppress(OSError):  # another caller was first
        os.unlink(path)
