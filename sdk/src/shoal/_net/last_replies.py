"""Replies that a worker holds back to send them together, where their callers find them should it die meanwhile.

They lie in a file that the worker has mapped: what is written there is in the kernel's page cache, and outlives the
process, for a microsecond a reply. A caller's connection ends with the process; then it asks the raylet of that node
for what is in the file. Sending each reply at once instead halves the rate of calls.

The file: a ``uint32``, the bytes in use behind it, then records of a caller's id, a ``uint32`` length and a reply.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading

import msgspec

from shoal._wire.peer_frames import TaskReply
from shoal_common.ids import WORKER_LENGTH
from shoal_common.last_replies import SIZE, path_of

_LENGTH = struct.Struct("<I")
_RECORD = struct.Struct(f"<{WORKER_LENGTH}sI")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(TaskReply).decode


class LastReplies:
    """The worker's side."""

    def __init__(self, path: str) -> None:
        """Raises: OSError."""
        self._lock = threading.Lock()
        #: Replies in it that are not sent yet: several groups of an actor send theirs at different times.
        self._held = 0
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, SIZE)  # on a full disk, writing to the map would be the end of the process
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        self._end = _LENGTH.size

    @classmethod
    def of(cls, session_dir: str, worker_id: bytes) -> LastReplies | None:
        """None = there is no room for a file, for example."""
        try:
            return cls(path_of(session_dir, worker_id))
        except OSError:
            return None

    def add(self, caller: bytes, reply: TaskReply) -> bool:
        """False = there is no room for it."""
        data = _encode(reply)
        with self._lock:
            begin = self._end + _RECORD.size
            end = begin + len(data)
            if end > SIZE:
                return False
            _RECORD.pack_into(self._map, self._end, caller, len(data))
            self._map[begin:end] = data
            self._end = end
            # Only now: a reader sees whole records.
            _LENGTH.pack_into(self._map, 0, end - _LENGTH.size)
            self._held += 1
            return True

    def sent(self, count: int) -> None:
        """So many of them. When all are, the file is empty again."""
        with self._lock:
            self._held -= count
            if not self._held and self._end > _LENGTH.size:
                self._end = _LENGTH.size
                _LENGTH.pack_into(self._map, 0, 0)


def for_caller(data: bytes, caller: bytes) -> list[TaskReply]:
    """What a worker that is dead has left for ``caller``, out of its file; perhaps also what has arrived."""
    if not data:
        return []
    (used,) = _LENGTH.unpack_from(data)
    data = data[_LENGTH.size :][:used]
    replies = []
    at = 0
    while at < len(data):
        to, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size + length
        if to == caller:
            replies.append(_decode(data[at - length : at]))
    return replies
