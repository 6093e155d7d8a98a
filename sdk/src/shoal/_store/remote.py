"""The object store for a process that shares no memory with its raylet: the bytes travel over the channel.

What is read is a copy in this process, kept while a value uses it, and for a while afterwards.
"""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from typing import Any

from shoal._net.interrupts import GuardedLock
from shoal._net.reactor import Reactor
from shoal._store.client import Question, StoreClient, store_error
from shoal._values.serialization import loads, unpack
from shoal_common.channel.frames import (
    ObjectPart,
    ObjectRead,
    ObjectSeal,
    ObjectUnpin,
    ObjectWrite,
    ObjectWritten,
)

#: One message's share of an object, and how many of them are under way at a time.
CHUNK_BYTES = 256 * 1024
CHUNKS_UNDER_WAY = 32
#: Copies that no value uses are kept up to so many bytes in all, so that the next ``get`` asks nobody.
CACHE_BYTES = 256 * 1024 * 1024


class RemoteStore(StoreClient):
    """Thread-safe."""

    def __init__(self, reactor: Reactor) -> None:
        super().__init__(reactor)
        #: Created, and not yet sealed.
        self._unsealed: dict[bytes, bytearray] = {}
        #: Copies that something uses: ctypes arrays, because numpy keeps those alive and not a memoryview of them.
        self._copies: weakref.WeakValueDictionary[bytes, Any] = weakref.WeakValueDictionary()
        #: Object id -> its size, and its pickle and buffers, as views that keep the copy; the oldest first.
        self._cached: dict[bytes, tuple[int, tuple[memoryview, list[memoryview]]]] = {}
        self._cached_bytes = 0
        self._lock = GuardedLock()

    # -- writing ------------------------------------------------------------------------------------

    def create(self, object_id: bytes, size: int, owner: bytes) -> memoryview:
        self._ask_for_room(object_id, size, owner)
        buffer = self._unsealed[object_id] = bytearray(size)
        return memoryview(buffer)

    def seal(self, object_id: bytes) -> None:
        data = memoryview(self._unsealed.pop(object_id))
        under_way: deque[Question] = deque()
        for at in range(0, len(data), CHUNK_BYTES):
            if len(under_way) == CHUNKS_UNDER_WAY:
                self._check_written(object_id, under_way.popleft())
            under_way.append(self._write(object_id, at, data[at : at + CHUNK_BYTES]))
        while under_way:
            self._check_written(object_id, under_way.popleft())
        self._raylet.send(ObjectSeal(object_id))

    def abort(self, object_id: bytes) -> None:
        self._unsealed.pop(object_id, None)
        super().abort(object_id)

    def _write(self, object_id: bytes, at: int, chunk: memoryview) -> Question:
        question = self._new_question()
        self._send(question, ObjectWrite(question.request, object_id, at, chunk))
        return question

    def _check_written(self, object_id: bytes, question: Question) -> None:
        written: ObjectWritten = self._answer(question)
        if written.error:
            self.abort(object_id)
            raise store_error(written.error, object_id)

    # -- reading ------------------------------------------------------------------------------------

    def is_here(self, object_id: bytes) -> bool:
        return object_id in self._cached or object_id in self._copies

    def load(self, object_id: bytes, home: bytes = b"", timeout: float | None = None) -> Any:
        cached = self._cached.get(object_id)
        if cached is None:
            array = self._copies.get(object_id)
            if array is None:
                array = self._copies[object_id] = self._fetch(object_id, home, timeout)
            parts = unpack(memoryview(array).cast("B").toreadonly())
            self._cache(object_id, len(array), parts)
        else:
            parts = cached[1]
        pickled, buffers = parts
        return loads(pickled, buffers=buffers)

    def _fetch(self, object_id: bytes, home: bytes, timeout: float | None) -> Any:
        """A copy of the object's bytes. Raises: as ``load``, LocalRayletDiedError."""
        question = self._new_question()
        unpin = ObjectUnpin(object_id)
        try:
            question = self._asked.questions.pop(object_id, question)
            size = self._locate(question, object_id, home, timeout).size
            array = (ctypes.c_char * size)()
            target = memoryview(array).cast("B")
            under_way: deque[tuple[int, Question]] = deque()
            for at in range(0, size, CHUNK_BYTES):
                if len(under_way) == CHUNKS_UNDER_WAY:
                    self._take(object_id, target, *under_way.popleft())
                under_way.append((at, self._read(object_id, at, min(CHUNK_BYTES, size - at))))
            while under_way:
                self._take(object_id, target, *under_way.popleft())
            self._take_back(question, unpin)  # the copy needs no pin
            return array
        except BaseException:
            self._take_back(question, unpin)
            raise

    def _read(self, object_id: bytes, at: int, length: int) -> Question:
        question = self._new_question()
        self._send(question, ObjectRead(question.request, object_id, at, length))
        return question

    def _take(self, object_id: bytes, target: memoryview, at: int, question: Question) -> None:
        part: ObjectPart = self._answer(question)
        if part.error:
            raise store_error(part.error, object_id)
        target[at : at + len(part.data)] = part.data

    def _cache(self, object_id: bytes, size: int, parts: tuple[memoryview, list[memoryview]]) -> None:
        with self._lock:
            if object_id in self._cached or size > CACHE_BYTES:
                return
            self._cached[object_id] = size, parts
            self._cached_bytes += size
            while self._cached_bytes > CACHE_BYTES:
                oldest = next(iter(self._cached))
                self._cached_bytes -= self._cached.pop(oldest)[0]

    def uncache(self, object_ids: list[bytes]) -> None:
        with self._lock:
            for object_id in object_ids:
                cached = self._cached.pop(object_id, None)
                if cached is not None:
                    self._cached_bytes -= cached[0]

    def release_unpinned(self) -> None:
        pass  # nothing stays pinned behind a copy

    def close(self) -> None:
        with self._lock:
            self._cached.clear()
            self._cached_bytes = 0
