"""The results of a generator task or method: refs that come one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, NoReturn, TypeVar

from shoal import _current
from shoal._core.object_ref import ObjectRef
from shoal._core.streams import DYNAMIC, Stream
from shoal._wire.peer_frames import STREAMING
from shoal._wire.value_kinds import PENDING

T = TypeVar("T")


def check_streaming(num_returns: int | str | None, is_generator: bool) -> None:
    """Raises: ValueError when results are to be streamed from what is not a generator."""
    if isinstance(num_returns, str) and not is_generator:
        raise ValueError(
            f"num_returns='{num_returns}' can only be used with generator functions (functions that use 'yield'). The "
            "decorated function is not a generator function."
        )


def returns_of(num_returns: int | str | None, is_generator: bool) -> int:
    """The option ``num_returns`` as a number."""
    if num_returns is None:
        return STREAMING if is_generator else 1
    if isinstance(num_returns, str):
        return DYNAMIC if num_returns == "dynamic" else STREAMING
    return num_returns


class ObjectRefGenerator(Generic[T]):
    """The refs of what a generator task or method yields, each as soon as it is yielded: iterate over it with ``for``
    or ``async for``. It takes part in ``wait``.

    The generator runs whether or not somebody reads. An exception in it is its last item: ``get`` of that raises it.
    So N items are N refs, or N + 1.

    Not thread-safe, and not to be passed to other tasks: pass the refs. When it is gone half-read (and so is
    ``completed()``), its task is closed where it yields next.
    """

    def __init__(self, stream: Stream, completed: ObjectRef[Any], reader: ObjectRef[Any]) -> None:
        """Made by ``.remote()``. ``reader`` is held as long as this lives."""
        self._stream = stream
        self._completed = completed
        self._reader = reader

    def __iter__(self) -> Iterator[ObjectRef[T]]:
        return self

    def __next__(self) -> ObjectRef[T]:
        """Waits for the next item.

        Raises: StopIteration; ValueError in a later session than its own.
        """
        ref = _current.current().streaming.next(self._stream, self._completed)
        assert ref is not None
        return ref

    def __aiter__(self) -> AsyncIterator[ObjectRef[T]]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        """As ``next``. Raises: StopAsyncIteration."""
        return await self._next_async()

    def completed(self) -> ObjectRef[Any]:
        """A ref that is ready, with the value None, when the generator has ended, also by an exception of its own; when
        it could not end, as its worker died, was cancelled or had no more time, it is that error. Whoever holds this
        ref has the generator run on without a reader."""
        return self._completed

    def next_ready(self) -> bool:
        """Whether ``next`` would return at once; False at the end."""
        ready = self._next_ref()._entry.state != PENDING
        return ready and not self.is_finished()

    def is_finished(self) -> bool:
        """Whether ``next`` would raise StopIteration."""
        return self._stream.finished

    def _next_ref(self) -> ObjectRef[T]:
        """The next item, without taking it; at the end, a ref that is an error."""
        return _current.current().streaming.peek(self._stream, self._completed)

    def _next_sync(self, timeout_s: float | None = None) -> ObjectRef[T]:
        """As ``next``; ``ObjectRef.nil()`` after ``timeout_s`` seconds (None and -1 = it waits)."""
        timeout = None if timeout_s is None or timeout_s < 0 else timeout_s
        ref = _current.current().streaming.next(self._stream, self._completed, timeout)
        return ObjectRef.nil() if ref is None else ref

    async def _next_async(self, timeout_s: float | None = None) -> ObjectRef[T]:
        """As ``_next_sync``. Raises: StopAsyncIteration."""
        import asyncio  # whoever gets here has it, and others need not wait for it

        core = _current.current()
        timeout = None if timeout_s is None or timeout_s < 0 else timeout_s
        while True:
            try:
                ref = core.streaming.take(self._stream, self._completed)
            except StopIteration:
                raise StopAsyncIteration from None
            if ref is not None:
                return ref
            try:
                await asyncio.wait_for(core.asyncio_ready(self._next_ref()), timeout)
            except TimeoutError:
                return ObjectRef.nil()

    def send(self, value: Any) -> NoReturn:
        raise NotImplementedError("`gen.send` is not supported.")

    def throw(self, value: Any) -> NoReturn:
        raise NotImplementedError("`gen.throw` is not supported.")

    def close(self) -> NoReturn:
        raise NotImplementedError("`gen.close` is not supported.")

    async def asend(self, value: Any) -> NoReturn:
        raise NotImplementedError("`gen.asend` is not supported.")

    async def athrow(self, value: Any) -> NoReturn:
        raise NotImplementedError("`gen.athrow` is not supported.")

    async def aclose(self) -> NoReturn:
        raise NotImplementedError("`gen.aclose` is not supported.")

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._completed.task_id().hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "You cannot return or pass a generator to other task. Serializing a ObjectRefGenerator is not allowed: "
            "pass the refs that it gives."
        )


def stream_for(num_returns: int, limit: int | None) -> Stream | None:
    """Of a call with so many returns; ``limit``: the option for back-pressure. Raises: ValueError."""
    if num_returns >= 0:
        return None
    limit = max(0, limit or 0)
    if num_returns == DYNAMIC and limit:
        raise ValueError(
            "num_returns='dynamic' cannot have a limit of unread items: nobody reads them before the generator has "
            "ended. Leave num_returns out, and the items are streamed"
        )
    return Stream(limit, dynamic=num_returns == DYNAMIC)


def generator_of(stream: Stream, refs: list[ObjectRef[Any]]) -> ObjectRefGenerator[Any] | ObjectRef[Any]:
    """What ``.remote()`` returns, of what was submitted as a generator."""
    return refs[0] if stream.dynamic else ObjectRefGenerator(stream, *refs)
