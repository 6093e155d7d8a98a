"""Objects that are made empty in the store and filled there: what is as large as the value exists once only.

While anything in this process can write to an object it is not sealed; and until it is, its memory is not given to
another. Both are told by the end of a ctypes array over that memory, which every view of it keeps alive.
"""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections import deque
from collections.abc import Callable
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, NoReturn, Self

from shoal import exceptions
from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._values.serialization import aligned, head_size, serialize, write_head
from shoal._wire.value_kinds import STORED

if TYPE_CHECKING:
    from shoal._owner.process import Process


class _Read:
    """Pickled in the place of the value that is to be made of the memory."""

    def __init__(self, read: Callable[[memoryview], Any] | None) -> None:
        self.read = read

    def __reduce__(self) -> tuple[Any, ...]:
        return _value, (self.read, PickleBuffer(b"\0"))


def _value(read: Callable[[memoryview], Any] | None, memory: memoryview) -> Any:
    return memory if read is None else read(memory)


class Filling:
    """Of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        #: Those that nobody can seal any more. Views may end in the middle of anything: this is looked at later.
        self.abandoned: deque[bytes] = deque()

    def create(self, size: int, read: Callable[[memoryview], Any] | None) -> ObjectBuffer:
        """As ``shoal.experimental.create_object``."""
        pickled = serialize(_Read(read), "what makes the value").pickled
        begin = aligned(head_size(pickled, 1))
        process = self._process
        object_id = process.new_object_id()
        try:
            view = process.store.create(object_id, begin + size, process.worker_id)
            write_head(view, pickled, [size])
            array = (ctypes.c_char * size).from_buffer(view, begin)
            return ObjectBuffer(self, object_id, array, begin + size)
        except BaseException:  # an interrupt too, at whatever moment
            process.store.abort(object_id)
            raise

    def seal(self, object_id: bytes, size: int) -> ObjectRef[Any]:
        """Nothing can write to it any more."""
        process = self._process
        if process.closed:
            raise exceptions.ShoalSystemError("shoal.shutdown() was called while this object was filled: it is gone")
        try:
            process.store.seal(object_id)
        except BaseException:
            process.store.abort(object_id)
            raise
        try:
            return process.table.add(ObjectEntry(object_id, STORED, b"", size, process.node_id))
        except BaseException:  # an interrupt: nobody would free the object
            process.raylets.free(process.node_id, [object_id])
            raise

    def collect(self) -> None:
        """Give back the memory of those that will not be sealed."""
        while self.abandoned:
            try:
                object_id = self.abandoned.popleft()
            except IndexError:
                return  # another thread has it
            self._process.store.abort(object_id)


class ObjectBuffer:
    """An object of the store that is being made: fill ``memory``, then ``seal``. A context manager; what was not sealed
    is dropped when it is left, or nobody has it any more. Not thread-safe."""

    def __init__(self, filling: Filling, object_id: bytes, array: ctypes.Array[ctypes.c_char], size: int) -> None:
        """``size``: of the whole object."""
        self._filling = filling
        self._object_id = object_id
        self._size = size
        self._hold(array)

    def _hold(self, array: ctypes.Array[ctypes.c_char]) -> None:
        self._array: ctypes.Array[ctypes.c_char] | None = array
        self._memory = memoryview(array).cast("B")
        self._end = weakref.finalize(array, self._filling.abandoned.append, self._object_id)
        self._end.atexit = False  # then all of it goes

    @property
    def memory(self) -> memoryview:
        """Bytes that can be written, from a multiple of 64 on. What they are at first is not said.

        Raises: ValueError when it was sealed or dropped.
        """
        self._check()
        return self._memory

    def seal(self) -> ObjectRef[Any]:
        """The object is complete; from now on nobody can change it.

        Raises: BufferError while something else can write to it (an array over ``memory``, a slice of it): let go of
        that, and seal again; ValueError when it was sealed or dropped; ShoalSystemError when the session is over.
        """
        array = self._check()
        last = weakref.ref(array)
        del array
        self._end.detach()
        with contextlib.suppress(BufferError):  # as is found below
            self._memory.release()
        self._array = None
        if (used := last()) is not None:
            self._hold(used)
            raise BufferError(
                "Something can still write to this object, such as an array over its memory or a slice of it: let go "
                "of that (del array), then seal it"
            )
        return self._filling.seal(self._object_id, self._size)

    def drop(self) -> None:
        """It will not be sealed. Its memory goes back once nothing uses it any more."""
        if self._array is not None:
            with contextlib.suppress(BufferError):  # it goes with whatever still uses it
                self._memory.release()
            self._memory = memoryview(b"")
            self._array = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.drop()

    def __len__(self) -> int:
        """Bytes of ``memory``."""
        return len(self._check())

    def __reduce__(self) -> NoReturn:
        raise TypeError("an object that is being filled cannot be sent: seal() it, and send the reference")

    def _check(self) -> ctypes.Array[ctypes.c_char]:
        if self._array is None:
            raise ValueError("this object was sealed or dropped before")
        return self._array
