"""Serves other raylets: tells from whom an object of this node can be had, and sends what is here.

Questions about what is still being written or fetched here wait until it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import structlog

from shoal_common.channel import frames
from shoal_raylet.arena.buffers import ObjectBytes
from shoal_raylet.channel.connection import Connection
from shoal_raylet.objects.directory import ObjectDirectory
from shoal_raylet.objects.entry import Entry, StoreAction
from shoal_raylet.objects.index import ObjectIndex

log = structlog.get_logger(__name__)


class CopyServer:
    """Belongs to one event loop. ``has(object id, offset, length)``: these bytes of a copy that is being fetched are
    here already. ``execute`` carries out what the index decides."""

    def __init__(
        self,
        index: ObjectIndex,
        object_bytes: ObjectBytes,
        directory: ObjectDirectory,
        has: Callable[[bytes, int, int], bool],
        now: Callable[[], float],
        execute: Callable[[list[StoreAction]], None],
    ) -> None:
        self._index = index
        self._bytes = object_bytes
        self._directory = directory
        self._has = has
        self._now = now
        self._execute = execute
        #: Connected raylets, each with what pins the objects that it reads.
        self._readers: dict[Connection, bytes] = {}
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, list[tuple[Connection, Any]]] = {}
        self.handlers: dict[type[frames.Message], Callable[[Connection, Any], None]] = {
            frames.ObjectLocate: self._locate,
            frames.CopyMade: lambda c, m: directory.completed(m.object_id, node_of(c)),
            frames.CopiesGone: self._copies_gone,
            frames.ChunkGet: self._chunk_get,
            frames.ChunksEnd: self._chunks_end,
        }

    def connected(self, connection: Connection) -> None:
        self._readers[connection] = b"upload" + next(self._numbers).to_bytes(8, "big")

    def closed(self, connection: Connection) -> None:
        reader = self._readers.pop(connection)
        for object_id in list(self._waiting):
            self._keep_waiting(object_id, lambda c, _: c is not connection)
        self._execute(self._index.peer_gone(reader, self._now()))

    def changed(self, object_id: bytes) -> None:
        """Answer those who wait for that."""
        for connection, question in self._waiting.pop(object_id, ()):
            if connection in self._readers:
                self.handlers[type(question)](connection, question)

    def _locate(self, connection: Connection, question: frames.ObjectLocate) -> None:
        entry = self._index.find(question.object_id)
        if entry is not None and not entry.sealed and not entry.home:
            self._wait(connection, question)
            return
        answer = frames.ObjectSources(question.request, 0, b"", [])
        if entry is not None and entry.sealed:
            here = entry.offset is not None and not entry.arriving
            answer.size, answer.owner = entry.size, entry.owner
            answer.sources = self._directory.locate(
                question.object_id, node_of(connection), question.without, here=here, blob=entry.blob is not None
            )
            if not answer.sources and entry.blob is not None:
                answer.blob_key, answer.blob_offset = entry.blob.key, entry.blob_offset
            elif not answer.sources:
                answer.later = True
        connection.send(answer)

    def _copies_gone(self, connection: Connection, message: frames.CopiesGone) -> None:
        for object_id in message.object_ids:
            self._directory.gone(object_id, node_of(connection))

    def _chunk_get(self, connection: Connection, question: frames.ChunkGet) -> None:
        entry = self._index.find(question.object_id)
        if entry is None or not self._index.pin_for_upload(self._readers[connection], entry):
            if entry is not None and entry.home and entry.arriving:
                self._wait(connection, question)
            else:
                connection.send_bytes(frames.CHUNK_HEADER.pack(question.request, 0))
        elif question.offset < 0 or question.length <= 0 or question.offset + question.length > entry.size:
            connection.close("it asked for bytes beyond the end of an object")
        elif entry.sealed or self._has(question.object_id, question.offset, question.length):
            self._send_chunk(connection, question, entry)
        else:
            self._wait(connection, question)

    def _send_chunk(self, connection: Connection, question: frames.ChunkGet, entry: Entry) -> None:
        try:
            chunk = self._bytes.part(entry, question.offset, question.length)
        except OSError as error:
            log.warning("file_not_sent", path=entry.path, reason=str(error))
            connection.send_bytes(frames.CHUNK_HEADER.pack(question.request, 0))
            return
        connection.send_bytes(frames.CHUNK_HEADER.pack(question.request, question.length), chunk)

    def _chunks_end(self, connection: Connection, message: frames.ChunksEnd) -> None:
        if message.object_id in self._waiting:
            self._keep_waiting(
                message.object_id, lambda c, question: c is not connection or not isinstance(question, frames.ChunkGet)
            )
        self._execute(self._index.unpin(self._readers[connection], message.object_id, self._now()))

    def _wait(self, connection: Connection, question: Any) -> None:
        self._waiting.setdefault(question.object_id, []).append((connection, question))

    def _keep_waiting(self, object_id: bytes, keeps: Callable[[Connection, Any], bool]) -> None:
        kept = [waiting for waiting in self._waiting[object_id] if keeps(*waiting)]
        if kept:
            self._waiting[object_id] = kept
        else:
            del self._waiting[object_id]


def node_of(connection: Connection) -> bytes:
    """The raylet's on the other side."""
    assert connection.hello is not None
    return connection.hello.node_id
