"""This process's window on its node's object store: the arena, mapped once, and the pins it holds there.

An object that found no room in the arena is a file of its own, mapped as long as its pin lasts.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections import deque
from typing import Any

from shoal import exceptions
from shoal._net import interrupts
from shoal._net.interrupts import GuardedLock
from shoal._net.reactor import Reactor
from shoal._store.client import StoreClient
from shoal._store.pieces import MAX_BYTES, PIECE_BYTES, Pieces
from shoal._values.serialization import loads, unpack
from shoal_common.channel.frames import (
    ObjectCreated,
    ObjectPlaced,
    ObjectSeal,
    ObjectUncache,
    ObjectUnpin,
    PieceGet,
    PieceReturned,
)

#: Pins kept although no value uses them, so that the next ``get`` asks nobody: at most so many, of objects that take
#: such a share of the arena together. With large ones the question costs nothing beside what is done with them, and the
#: arena would be full of what only looks as if it were in use.
MAX_CACHED_PINS = 256
CACHED_SHARE = 1 / 8


class _PinTracker(weakref.ref[Any]):
    """Fires when the last view of a pinned object is gone; only appends itself to a deque."""

    __slots__ = ("asked_back", "object_id", "size", "unmap_at")

    #: As in ``Question``.
    asked_back: int
    object_id: bytes
    size: int
    #: Where its file is mapped; 0 = it lies in the arena.
    unmap_at: int


class LocalStore(StoreClient):
    """Thread-safe.

    A pin is a ctypes array over the object's bytes: numpy arrays and memoryviews made from it keep it alive,
    and its collection is exactly the end of the last of them.
    """

    def __init__(self, reactor: Reactor, arena_fd: int, arena_size: int, worker_id: bytes) -> None:
        super().__init__(reactor)
        self._arena_fd = arena_fd
        self._arena_size = arena_size
        self._worker_id = worker_id
        self._arena: mmap.mmap | None = None
        self._map_lock = GuardedLock()
        self._pins: dict[bytes, _PinTracker] = {}
        #: Object id -> its pickle and buffers, as views that keep the pin.
        self._cached: dict[bytes, tuple[memoryview, list[memoryview]]] = {}
        self._cached_sizes: dict[bytes, int] = {}
        self._cache_lock = GuardedLock()
        #: All of them, by their own id: one that nobody refers to never fires, and threads that read an object at the
        #: same time pin it more than once.
        self._trackers: dict[int, _PinTracker] = {}
        self._unpinned: deque[_PinTracker] = deque()
        self._pieces = Pieces()

    def _mapped(self) -> mmap.mmap:
        with self._map_lock:
            if self._arena is None:
                if self._arena_fd < 0:
                    raise exceptions.ShoalSystemError("this node has no object store")
                self._arena = mmap.mmap(self._arena_fd, self._arena_size, flags=mmap.MAP_SHARED)
            return self._arena

    # -- writing ------------------------------------------------------------------------------------

    def create(self, object_id: bytes, size: int, owner: bytes) -> memoryview:
        if size <= MAX_BYTES:
            offset = self._pieces.begin(object_id, size, owner)
            self._ask_ahead()
            if offset is not None:
                return memoryview(self._mapped())[offset : offset + size]
        answer = self._ask_for_room(object_id, size, owner)
        if not answer.path:
            return memoryview(self._mapped())[answer.offset : answer.offset + size]
        try:
            fd = os.open(answer.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                return memoryview(mmap.mmap(fd, size))
            finally:
                os.close(fd)
        except OSError as error:
            self.abort(object_id)
            raise exceptions.ObjectStoreFullError(f"the object's file cannot be mapped: {error}") from error

    def seal(self, object_id: bytes) -> None:
        with interrupts.uncut():
            placed = self._pieces.end(object_id)
            if placed is None:
                self._raylet.send(ObjectSeal(object_id))
                return
            self._raylet.send(ObjectPlaced(object_id, *placed))
        if self._raylet.has_unsent():
            # It must be in the raylet's socket before anybody hears of the object and asks for it.
            question = self._new_question()
            self._send(question, PieceGet(question.request, 0))
            self._answer(question)

    def abort(self, object_id: bytes) -> None:
        with interrupts.uncut():
            placed = self._pieces.end(object_id)
            if placed is None:
                super().abort(object_id)
            else:
                self._raylet.send(PieceReturned(*placed[:2]))

    def _ask_ahead(self) -> None:
        with interrupts.uncut():
            if self._pieces.wants():
                question = self._new_question(self._on_piece)
                self._send(question, PieceGet(question.request, PIECE_BYTES))

    def _on_piece(self, answer: ObjectCreated | None) -> None:
        if answer is None or answer.error:
            self._pieces.refused()
        else:
            self._pieces.granted(answer.offset)

    def on_uncache(self, message: ObjectUncache) -> None:
        super().on_uncache(message)
        if not message.object_ids:
            self._give_back(all_of_them=True)

    def tick(self) -> bool:
        if self._pieces:
            self._give_back(all_of_them=False)
        return bool(self._pieces)

    def _give_back(self, *, all_of_them: bool) -> None:
        with interrupts.uncut():
            unused = self._pieces.unused(all_of_them=all_of_them)
            if unused:
                self._raylet.send_together(PieceReturned(*extent) for extent in unused)

    # -- reading ------------------------------------------------------------------------------------

    def load(self, object_id: bytes, home: bytes = b"", timeout: float | None = None) -> Any:
        """As in the base class; the value's buffers are views of shared memory."""
        parts = self._cached.get(object_id)
        if parts is None:
            tracker = self._pins.get(object_id)
            array = tracker() if tracker is not None else None
            if tracker is None or array is None:
                tracker, array = self._pin(object_id, home, timeout)
            view = memoryview(array).cast("B").toreadonly()
            parts = unpack(view)
            self._cache(object_id, parts, view.nbytes, tracker.asked_back)
        pickled, buffers = parts
        return loads(pickled, buffers=buffers)

    def _cache(self, object_id: bytes, parts: tuple[memoryview, list[memoryview]], size: int, asked_back: int) -> None:
        """Keeps it instead of those that were read first. Not when the raylet has asked for objects back since this one
        was asked for: that may have been this one, and it asks once."""
        with self._cache_lock:
            if asked_back != self._asked_back:
                return
            sizes, limit = self._cached_sizes, int(self._arena_size * CACHED_SHARE)
            total = sum(sizes.values()) + size
            while sizes and (total > limit or len(sizes) >= MAX_CACHED_PINS):
                oldest = next(iter(sizes))
                total -= sizes.pop(oldest)
                self._cached.pop(oldest, None)
            if total <= limit:
                self._cached[object_id] = parts
                sizes[object_id] = size

    def is_here(self, object_id: bytes) -> bool:
        """This process has it pinned, so that ``load`` asks nobody."""
        return object_id in self._cached or object_id in self._pins

    def _pin(self, object_id: bytes, home: bytes, timeout: float | None) -> tuple[_PinTracker, Any]:
        question = self._new_question()
        try:
            question = self._asked.questions.pop(object_id, question)
            answer = self._locate(question, object_id, home, timeout)
            arena = None if answer.path else self._mapped()
            # An exception out of a signal's handler must not come between a pin and its tracker.
            with interrupts.uncut():
                array_type = ctypes.c_char * answer.size
                address = 0
                if arena is None:
                    try:
                        address = _map_file(answer.path, answer.size)
                    except OSError as error:
                        detail = f"Its file cannot be mapped: {error}"
                        raise exceptions.ObjectLostError(object_id.hex(), detail=detail) from error
                    array = array_type.from_address(address)
                else:
                    array = array_type.from_buffer(arena, answer.offset)
                tracker = _PinTracker(array, self._unpinned.append)
                tracker.object_id, tracker.size, tracker.unmap_at = object_id, answer.size, address
                tracker.asked_back = question.asked_back
                self._trackers[id(tracker)] = self._pins[object_id] = tracker
                question.box.clear()
                return tracker, array
        except BaseException:
            self._take_back(question, ObjectUnpin(object_id))
            raise

    def uncache(self, object_ids: list[bytes]) -> None:
        """Let go of pins that no value uses."""
        with self._cache_lock:
            for object_id in object_ids:
                self._cached.pop(object_id, None)
                self._cached_sizes.pop(object_id, None)
        self.release_unpinned()

    def release_unpinned(self) -> None:
        """Tell the raylet of the pins that ended. Called where no lock is held."""
        if not self._unpinned:
            return
        unpins: list[ObjectUnpin] = []
        with interrupts.uncut():
            while self._unpinned:
                try:
                    tracker = self._unpinned.popleft()
                except IndexError:
                    break  # another thread took the last one
                del self._trackers[id(tracker)]
                if self._pins.get(tracker.object_id) is tracker:
                    del self._pins[tracker.object_id]
                if tracker.unmap_at:
                    _libc.munmap(tracker.unmap_at, tracker.size)
                unpins.append(ObjectUnpin(tracker.object_id))
            self._raylet.send_together(unpins)

    def close(self) -> None:
        """Give the mapping up; views that still live keep it until they go."""
        self._cached.clear()
        self._cached_sizes.clear()
        self._arena = None
        if self._arena_fd >= 0:
            os.close(self._arena_fd)
            self._arena_fd = -1


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FAILED = ctypes.c_void_p(-1).value


def _map_file(path: str, size: int) -> int:
    """Address of the file's bytes, read-only. Python's own ``mmap`` keeps a descriptor, of which a process has few.

    Raises: OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        address: int = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    finally:
        os.close(fd)
    if address == _MAP_FAILED:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return address
