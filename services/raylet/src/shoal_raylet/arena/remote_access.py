"""Reads and writes of objects for processes that have not mapped the arena: clients behind the gateway."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor

from shoal_common.channel import frames
from shoal_common.service.background import Background
from shoal_raylet.arena.arena import Arena
from shoal_raylet.objects.errors import file_unreadable, file_unusable, not_readable, not_writable
from shoal_raylet.objects.index import ObjectIndex

#: A part of an object in one message, at most.
MAX_PART_BYTES = 4 * 1024 * 1024


class RemoteAccess:
    """Parts of objects that lie in files go through a thread, the others are copied at once."""

    def __init__(
        self,
        index: ObjectIndex,
        arena: Arena,
        file_thread: Executor,
        send: Callable[[bytes, frames.Message], None],
    ) -> None:
        self._index = index
        self._arena = arena
        self._file_thread = file_thread
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._background = Background()

    def write(self, peer: bytes, message: frames.ObjectWrite) -> None:
        """Answers with ``ObjectWritten``, perhaps later."""
        entry = self._index.pinned(peer, message.object_id)
        end = message.offset + len(message.data)
        if entry is None or entry.sealed or entry.creator != peer or not 0 <= message.offset <= end <= entry.size:
            self._send(peer, frames.ObjectWritten(message.request, not_writable(message.object_id)))
        elif entry.path:
            self._background.spawn(self._write_file(peer, message, entry.path))
        else:
            assert entry.offset is not None
            self._arena.view[entry.offset + message.offset : entry.offset + end] = message.data
            self._send(peer, frames.ObjectWritten(message.request))

    def read(self, peer: bytes, message: frames.ObjectRead) -> None:
        """Answers with ``ObjectPart``, perhaps later."""
        entry = self._index.pinned(peer, message.object_id)
        end = message.offset + message.length
        if entry is None or not 0 <= message.offset <= end <= entry.size or message.length > MAX_PART_BYTES:
            error = not_readable(message.object_id)
            self._send(peer, frames.ObjectPart(message.request, memoryview(b""), error))
        elif entry.path:
            self._background.spawn(self._read_file(peer, message, entry.path))
        else:
            assert entry.offset is not None
            with self._arena.view[entry.offset + message.offset : entry.offset + end] as part:
                self._send(peer, frames.ObjectPart(message.request, part))

    async def stop(self) -> None:
        await self._background.stop()

    async def _write_file(self, peer: bytes, message: frames.ObjectWrite, path: str) -> None:
        error = None
        try:
            await self._loop.run_in_executor(self._file_thread, _write_at, path, message.offset, message.data)
        except OSError as failure:
            error = file_unusable(message.object_id, failure)
        self._send(peer, frames.ObjectWritten(message.request, error))

    async def _read_file(self, peer: bytes, message: frames.ObjectRead, path: str) -> None:
        data, error = b"", None
        try:
            data = await self._loop.run_in_executor(self._file_thread, _read_at, path, message.offset, message.length)
        except OSError as failure:
            error = file_unreadable(message.object_id, failure)
        self._send(peer, frames.ObjectPart(message.request, memoryview(data), error))


def _write_at(path: str, offset: int, data: memoryview) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while data:
            written = os.pwrite(fd, data, offset)
            data, offset = data[written:], offset + written
    finally:
        os.close(fd)


def _read_at(path: str, offset: int, length: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while length:
            part = os.pread(fd, length, offset)
            if not part:
                raise OSError("it is shorter than the object")
            parts.append(part)
            length, offset = length - len(part), offset + len(part)
        return b"".join(parts)
    finally:
        os.close(fd)
