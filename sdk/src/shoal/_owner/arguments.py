"""The arguments of a call: packed and resolved by its owner, loaded by the worker that runs it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal._core.object_ref import ObjectRef
from shoal._core.objects import ERROR, MAX_INLINE_BYTES, ObjectEntry
from shoal._core.tasks import TaskRecord
from shoal._values.ref_pickling import collected
from shoal._values.serialization import PLAIN, loads, loads_packed, serialize
from shoal._wire.actor_creation import ActorCreation
from shoal._wire.peer_frames import INLINE, PACKED, Argument, TaskPush, Value

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker


# -- the owner ------------------------------------------------------------------------------------------


class PackedArguments:
    """Arguments of one call, serialized."""

    __slots__ = ("args_object", "arguments", "data", "holds", "packed")

    def __init__(self) -> None:
        self.data = b""
        self.packed = False
        self.args_object = b""
        self.arguments: list[tuple[int, str, ObjectRef[Any]]] | None = None
        self.holds: list[ObjectRef[Any]] | None = None


def pack_arguments(core: CoreWorker, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PackedArguments | None:
    """None for no arguments at all. Large ones go to the object store, as one object."""
    if not args and not kwargs:
        return None
    packed = PackedArguments()
    plain = True
    for value in (*args, *kwargs.values()) if kwargs else args:
        kind = type(value)
        if kind not in PLAIN:
            plain = False
            if kind is ObjectRef:
                args, kwargs = _take_references(packed, args, kwargs)
                break
    if plain:
        packed.data = pickle.dumps((args, kwargs), 5)
        if len(packed.data) <= MAX_INLINE_BYTES:
            return packed
    serialized = serialize((args, kwargs), "the arguments")
    holds = serialized.contained
    if packed.arguments is not None:
        holds = holds + [ref for _, _, ref in packed.arguments]
    if serialized.size > MAX_INLINE_BYTES:
        ref = core.put_serialized(serialized)
        packed.data = b""
        packed.args_object = ref._entry.object_id
        holds = [*holds, ref]
    elif serialized.buffers:
        packed.data = serialized.packed()
        packed.packed = True
    else:
        packed.data = serialized.pickled
    packed.holds = holds or None
    return packed


def _take_references(
    packed: PackedArguments, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Replace top-level references by None; the worker puts their values there."""
    found: list[tuple[int, str, ObjectRef[Any]]] = []
    plain_args = list(args)
    for index, value in enumerate(args):
        if type(value) is ObjectRef:
            found.append((index, "", value))
            plain_args[index] = None
    plain_kwargs = dict(kwargs)
    for name, value in kwargs.items():
        if type(value) is ObjectRef:
            found.append((-1, name, value))
            plain_kwargs[name] = None
    packed.arguments = found
    return tuple(plain_args), plain_kwargs


class _ArgumentWatcher:
    """A task that waits for its arguments."""

    __slots__ = ("_ready", "_record")

    def __init__(self, record: TaskRecord, ready: Callable[[TaskRecord], None]) -> None:
        self._record = record
        self._ready = ready

    def ready(self, entry: ObjectEntry) -> None:
        self._record.unready -= 1
        if self._record.unready == 0:
            self._ready(self._record)


def await_arguments(core: CoreWorker, record: TaskRecord, ready: Callable[[TaskRecord], None]) -> bool:
    """True when all reference arguments are ready; else ``ready(record)`` comes later. Caller holds the lock."""
    if record.arguments is None:
        return True
    pending = {ref._entry.object_id: ref._entry for _, _, ref in record.arguments if not ref._entry.state}
    record.unready = len(pending)
    if not pending:
        return True
    watcher = _ArgumentWatcher(record, ready)
    for entry in pending.values():
        core.watch(entry, watcher)
    return False


def resolve_arguments(core: CoreWorker, record: TaskRecord) -> ObjectEntry | None:
    """Fill in the values of ready reference arguments; the entry of one that is an error, if any."""
    if record.arguments is None:
        return None
    resolved = []
    for position, keyword, ref in record.arguments:
        entry = ref._entry
        if entry.state == ERROR:
            return entry
        owner = entry.owner or core.address
        value = Value(entry.state, entry.payload, entry.size, entry.node_id)
        resolved.append(Argument(position, keyword, entry.object_id, owner, value))
    record.push.refs = resolved
    return None


# -- the worker -----------------------------------------------------------------------------------------


def load_arguments(
    core: CoreWorker, push: TaskPush | ActorCreation, received: list[ObjectRef[Any]], home: bytes
) -> tuple[Any, dict[str, Any]]:
    """The arguments of a call or an actor's creation, whose maker lives on the node ``home``; references met go to
    ``received``."""
    outer, collected.unpickled = collected.unpickled, received
    try:
        args: Any
        kwargs: dict[str, Any]
        if push.args_object:
            args, kwargs = core.load_stored(push.args_object, home)
        elif push.packed:
            args, kwargs = loads_packed(push.args)
        else:
            args, kwargs = loads(push.args)
        if push.refs is not None:
            positional = list(args)
            for argument in push.refs:
                value = argument.value
                if value.kind == INLINE:
                    loaded = loads(value.payload)
                elif value.kind == PACKED:
                    loaded = loads_packed(value.payload)
                else:
                    loaded = core.load_stored(argument.object_id, value.node_id)
                if argument.position >= 0:
                    positional[argument.position] = loaded
                else:
                    kwargs[argument.keyword] = loaded
            args = positional
        return args, kwargs
    finally:
        collected.unpickled = outer
