"""``ObjectRef``: a name for a value that exists, or will; and the entry behind it.

How references are pickled is told in ``_values.ref_pickling``.
"""

from __future__ import annotations

import concurrent.futures
import weakref
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from shoal import _html
from shoal._core.public_ids import JobID, TaskID
from shoal._wire.value_kinds import ENDED, PENDING
from shoal_common import ids
from shoal_common.channel.frames import WorkerAddress

T = TypeVar("T")


class Holder(Protocol):
    """What references ask of the process that they are in: the core worker, which stands above all that uses them."""

    #: How pickled references name this process as the owner.
    address_key: bytes

    def future(self, ref: ObjectRef[Any]) -> concurrent.futures.Future[Any]: ...

    def asyncio_future(self, ref: ObjectRef[Any]) -> Awaitable[Any]: ...

    def pin_for_ever(self, refs: list[ObjectRef[Any]]) -> None: ...

    def describe_ref(self, ref: ObjectRef[Any]) -> list[tuple[str, str]]:
        """What this process knows of the object: its state, what makes it, where that is; for humans."""

    def restore_ref(self, object_id: bytes, owner: bytes) -> ObjectRef[Any]:
        """``owner``: an ``address_key``."""


_find_holder: Callable[[], Holder]


def register_holder(find: Callable[[], Holder]) -> None:
    """``find()`` gives this process's, or raises where Shoal does not run."""
    global _find_holder
    _find_holder = find


def holder() -> Holder:
    """Raises: ShoalSystemError where Shoal does not run."""
    return _find_holder()


_BY_HAND = (
    "an ObjectRef cannot be made by hand: .remote() and shoal.put() return them, and they can be passed on as "
    "arguments and inside of values"
)


class EarlierSessionError(ValueError):
    """A reference is used in a later session than its own."""

    def __init__(self, object_id: str) -> None:
        super().__init__(object_id)
        self.object_id = object_id

    def __str__(self) -> str:
        return (
            f"ObjectRef({self.object_id}) belongs to a session that was shut down: its value is gone. "
            "Make the object again in this session"
        )


class ObjectRef(Generic[T]):
    """A reference to an object. There is one instance per object in a process, so that identity is equality.

    Hashable, picklable (as an argument, inside values), awaitable. While any instance anywhere lives, the
    object does.
    """

    __slots__ = ("__weakref__", "_entry")

    def __init__(self, entry: ObjectEntry) -> None:
        if type(entry) is not ObjectEntry:
            raise TypeError(_BY_HAND)
        self._entry = entry

    def binary(self) -> bytes:
        return self._entry.object_id

    def hex(self) -> str:
        return self._entry.object_id.hex()

    def _check_session(self) -> None:
        """Raises: EarlierSessionError (a ValueError) for one whose session is over."""
        if self._entry.state == ENDED:
            raise EarlierSessionError(self.hex())

    def task_id(self) -> TaskID:
        """Of the task that makes the object; for ``put`` an id of its own."""
        return TaskID(ids.task_of_object(self._entry.object_id))

    def job_id(self) -> JobID:
        """Raises: ValueError for nil."""
        return self.task_id().job_id()

    def is_nil(self) -> bool:
        return ids.is_nil(self._entry.object_id)

    @classmethod
    def nil(cls) -> ObjectRef[Any]:
        """Stands for none."""
        return ObjectRef(ObjectEntry(ids.nil(ids.OBJECT_LENGTH)))

    @classmethod
    def from_binary(cls, id_bytes: bytes) -> ObjectRef[Any]:
        """Raises: TypeError: the id alone does not say who owns the object."""
        raise TypeError(_BY_HAND)

    from_hex = from_binary

    @classmethod
    def size(cls) -> int:
        """Bytes of an object id."""
        return ids.OBJECT_LENGTH

    def future(self) -> concurrent.futures.Future[T]:
        """A ``concurrent.futures.Future`` of the value; cancelling it does not cancel the task."""
        return holder().future(self)

    def _on_completed(self, callback: Callable[[Any], None]) -> None:
        """Calls back once, on a thread of Shoal's own, with the value or the error. Not public in Ray either, but
        libraries call it."""

        def completed(future: concurrent.futures.Future[T]) -> None:
            error = future.exception()
            callback(future.result() if error is None else error)

        self.future().add_done_callback(completed)

    def as_future(self, _internal: bool = False) -> Awaitable[T]:
        """An asyncio future of the value, in the running loop; cancelling it does not cancel the task."""
        return holder().asyncio_future(self)

    def __await__(self) -> Generator[Any, None, T]:
        return _find_holder().asyncio_future(self).__await__()

    def __copy__(self) -> ObjectRef[T]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ObjectRef[T]:
        return self

    def __repr__(self) -> str:
        return f"ObjectRef({self.hex()})"

    def _repr_html_(self) -> str:
        over = self.is_nil() or self._entry.state == ENDED
        return _html.table(repr(self), [("state", "its session is over")] if over else holder().describe_ref(self))

    def __iter__(self) -> Any:
        raise TypeError("an ObjectRef is not iterable: `shoal.get` it first, or use num_returns to get several refs")


class RefTracker(weakref.ref[ObjectRef[Any]]):
    """Notices when the ``ObjectRef`` of an object is gone. Its callback only appends it to a deque: it may run
    in the middle of anything."""

    __slots__ = ("object_id",)

    object_id: bytes


class Watcher(Protocol):
    """Told once, by the leading thread under the core's lock, when an object is no longer pending."""

    def ready(self, entry: ObjectEntry) -> None: ...


class ObjectEntry(msgspec.Struct, gc=False):
    """What this process knows of one object. Not tracked by the garbage collector: a million of them cost
    nothing, and they form no cycles (an immutable value cannot contain its own reference)."""

    object_id: bytes
    #: See ``value_kinds``.
    state: int = PENDING
    payload: bytes = b""
    size: int = 0
    node_id: bytes = b""
    tracker: RefTracker | None = None
    #: None = this process owns it.
    owner: WorkerAddress | None = None
    #: Worker ids of the processes that hold it, and how often each has been added; owner only.
    borrowers: dict[bytes, int] | None = None
    #: References inside the value, kept alive as long as it.
    contained: list[ObjectRef[Any]] | None = None
    watchers: list[Watcher] | None = None
    #: Borrowed: how often the owner has added us.
    registered: int = 0
    #: Borrowed: the value has been asked for.
    asked: bool = False
    #: Borrowed: its owner has said that there was no value yet.
    unmade: bool = False
    #: Owned and pending: how its copies were lost. Its task runs again as soon as somebody wants it.
    lost: str = ""
    #: Called when the object is freed (actor handles: the last one is gone).
    on_free: Callable[[], None] | None = None
