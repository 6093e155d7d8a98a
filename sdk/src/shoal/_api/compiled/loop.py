"""What an actor of a compiled graph does, in a thread of its own: read, call, write, again and again.

It is one call of the actor, in its system group, that ends with the graph: so whatever ends the actor ends it, and the
driver's reference to it says how.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from shoal import _context, _current, exceptions
from shoal._api.compiled.handover import take
from shoal._api.compiled.messages import Failed, packed, unpacked
from shoal._api.compiled.outlet import Outlet
from shoal._api.compiled.plan import Argument, Step
from shoal._api.compiled.ring import RingClosed, RingReader, RingWriter
from shoal._executor.replies import wrap_error
from shoal._wire.value_kinds import STORED


class Part(NamedTuple):
    """One actor's part of a graph."""

    #: The actor's, and where it gets its memory, and how it proves that it may.
    number: int
    path: str
    secret: bytes
    steps: list[Step]
    #: Rings, by wire, in the order of their descriptors; those that it reads with the number of the reader.
    reads: list[tuple[int, int]]
    writes: list[int]


def look(instance: Any, methods: list[str]) -> bytes:
    """Before anything is set up: the id of the actor's node. Raises: ValueError for a method that cannot take part."""
    for name in methods:
        method = getattr(instance, name)
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            raise ValueError(
                f"{type(instance).__name__}.{name} is a coroutine, and the methods of a compiled graph run in a thread "
                "without an event loop: make it an ordinary method."
            )
    return _current.current().node_id


def run(instance: Any, part: Part) -> None:
    """Until the graph is torn down, its driver is gone, or the actor ends."""
    fds = take(part.path, part.secret, part.number, len(part.reads) + len(part.writes))
    readers = {wire: RingReader(fd, number) for (wire, number), fd in zip(part.reads, fds, strict=False)}
    values = _current.current().values
    outlets = {
        wire: Outlet(RingWriter(fd), values) for wire, fd in zip(part.writes, fds[len(part.reads) :], strict=True)
    }
    task = _context.current_task.get()
    assert task is not None
    loop = _Loop(instance, part.steps, readers, outlets, task)
    try:
        while True:
            loop.execute()
    except RingClosed:
        return


class _Loop:
    def __init__(
        self,
        instance: Any,
        steps: list[Step],
        readers: dict[int, RingReader],
        outlets: dict[int, Outlet],
        task: _context.TaskContext,
    ) -> None:
        self._class = type(instance).__name__
        self._steps: list[tuple[Step, Callable[..., Any]]] = [(step, getattr(instance, step.method)) for step in steps]
        self._readers = readers
        self._outlets = outlets
        self._task = task
        core = _current.current()
        self._load = partial(core.values.load_stored, home=core.node_id)
        #: Of this execution, by wire.
        self._values: dict[int, Any] = {}

    def execute(self) -> None:
        """Each step once. Raises: RingClosed."""
        for step, method in self._steps:
            # All of them, also behind one that has failed: each reader reads every message.
            args = [self._argument(each, step) for each in step.args]
            kwargs = {name: self._argument(each, step) for name, each in step.kwargs.items()} if step.kwargs else {}
            result = _first_failed(args, kwargs)
            if result is None:
                try:
                    result = method(*args, **kwargs)
                except Exception as error:  # the driver gets whatever the user's code raised
                    result = self._failure(step.method, error)
            self._hand_on(step, result)
            del args, kwargs, result  # nothing of the user's lives on while this waits
        self._values.clear()

    def _argument(self, argument: Argument, step: Step) -> Any:
        wire, values = argument.wire, self._values
        if wire is None:
            return argument.value
        if wire not in values:
            values[wire] = self._read(self._readers[wire], step)
        return values[wire]

    def _read(self, reader: RingReader, step: Step) -> Any:
        reader.await_message(None, self._ended)
        kind, payload = reader.message()
        try:
            return unpacked(kind, payload, self._load)
        except Exception as error:  # whatever the user's classes raise
            if kind == STORED and reader.closed:
                raise RingClosed from None  # who wrote it has gone, and it with him
            return self._failure(step.method, error)
        finally:
            payload.release()
            reader.release()

    def _hand_on(self, step: Step, result: Any) -> None:
        for wire, index in step.results:
            value = result
            if index is not None and type(result) is not Failed:
                try:
                    value = result[index]
                except Exception as error:  # it has not as many values, or none at all
                    value = self._failure(step.method, error)
            self._values[wire] = value
            if wire in self._outlets:
                self._write(self._outlets[wire], step, value)

    def _write(self, outlet: Outlet, step: Step, value: Any) -> None:
        try:
            message = packed(value, f"the return value of {step.method}()")
        except Exception as error:  # whatever pickling raises
            message = packed(self._failure(step.method, error), "")
        outlet.ring.await_room(None, self._ended)
        try:
            message = outlet.placed(message)
        except (OSError, exceptions.ObjectStoreFullError, exceptions.OutOfDiskError) as error:  # none for one so large
            message = outlet.placed(packed(self._failure(step.method, error), ""))
        outlet.write(message)

    def _failure(self, what: str, error: Exception) -> Failed:
        return Failed.of(wrap_error(_current.current(), None, f"{self._class}.{what}", self._task.task_id, error))

    def _ended(self) -> bool:
        """Its driver has gone, or has cancelled it."""
        return self._task.cancelled


def _first_failed(args: list[Any], kwargs: dict[str, Any]) -> Failed | None:
    for each in args:
        if type(each) is Failed:
            return each
    for each in kwargs.values():
        if type(each) is Failed:
            return each
    return None
