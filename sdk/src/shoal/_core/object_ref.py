"""``ObjectRef``: a name for a value that exists, or will."""

from __future__ import annotations

import asyncio
import concurrent.futures
import weakref
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shoal import _current
from shoal_common import ids

if TYPE_CHECKING:
    from shoal._core.objects import ObjectEntry

T = TypeVar("T")


class ObjectRef(Generic[T]):
    """A reference to an object. There is one instance per object in a process, so that identity is equality.

    Hashable, picklable (as an argument, inside values), awaitable. While any instance anywhere lives, the
    object does.
    """

    __slots__ = ("__weakref__", "_entry")

    def __init__(self, entry: ObjectEntry) -> None:
        self._entry = entry

    def binary(self) -> bytes:
        return self._entry.object_id

    def hex(self) -> str:
        return self._entry.object_id.hex()

    def task_id(self) -> ids.TaskID:
        """Of the task that makes the object; for ``put`` an id of its own."""
        return ids.task_of_object(ids.ObjectID(self._entry.object_id))

    def job_id(self) -> ids.JobID:
        return ids.job_of_task(ids.ObjectID(self._entry.object_id))

    def is_nil(self) -> bool:
        return not any(self._entry.object_id)

    @classmethod
    def nil(cls) -> ObjectRef[Any]:
        from shoal._core.objects import ObjectEntry

        return ObjectRef(ObjectEntry(b"\0" * ids.OBJECT_LENGTH))

    @classmethod
    def size(cls) -> int:
        """Bytes of an object id."""
        return ids.OBJECT_LENGTH

    def future(self) -> concurrent.futures.Future[T]:
        """A ``concurrent.futures.Future`` of the value; cancelling it does not cancel the task."""
        from shoal._owner import futures

        return futures.concurrent_future(_current.current(), self)

    def as_future(self, _internal: bool = False) -> asyncio.Future[T]:
        """An asyncio future of the value, in the running loop; cancelling it does not cancel the task."""
        from shoal._owner import futures

        return futures.asyncio_future(_current.current(), self)

    def __await__(self) -> Generator[Any, None, T]:
        return self.as_future().__await__()

    def __reduce__(self) -> tuple[Any, ...]:
        from shoal._values import ref_pickling as _ref_pickling

        return _ref_pickling.reduce(self)

    def __copy__(self) -> ObjectRef[T]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ObjectRef[T]:
        return self

    def __repr__(self) -> str:
        return f"ObjectRef({self.hex()})"

    def __iter__(self) -> Any:
        raise TypeError("an ObjectRef is not iterable: `shoal.get` it first, or use num_returns to get several refs")


class RefTracker(weakref.ref[ObjectRef[Any]]):
    """Notices when the ``ObjectRef`` of an object is gone. Its callback only appends it to a deque: it may run
    in the middle of anything."""

    __slots__ = ("object_id",)

    object_id: bytes
