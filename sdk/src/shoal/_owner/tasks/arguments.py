"""The arguments of a call: packed and resolved by its owner, loaded by the worker that runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal import exceptions
from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._core.objects import MAX_INLINE_BYTES
from shoal._core.task_record import References
from shoal._owner.objects.values import Values, is_lost
from shoal._owner.objects.waiting import Waiting
from shoal._text import check_text
from shoal._values.ref_pickling import collected
from shoal._values.serialization import (
    load_inline,
    loads,
    pickle_arguments,
    serialize_arguments,
)
from shoal._wire.actor_creation import ActorCreation
from shoal._wire.peer_frames import Argument, LostArgument, TaskPush, Value
from shoal._wire.value_kinds import ASK, ERROR, STORED

if TYPE_CHECKING:
    from shoal._owner.process import Process

#: Values of references that go along with one call, in bytes (as in Ray); for the others the worker asks their owner.
MAX_INLINED_BYTES = 10 * 1024 * 1024


# -- the owner ------------------------------------------------------------------------------------------


class PackedArguments:
    """Arguments of one call, serialized."""

    __slots__ = ("args_object", "buffers", "holds", "pickled", "references")

    def __init__(self) -> None:
        #: As in TaskPush.
        self.pickled = b""
        self.buffers: list[bytes] | None = None
        self.args_object = b""
        self.references: References | None = None
        #: Everything that must live until the call is over.
        self.holds: list[ObjectRef[Any]] | None = None


def pack_arguments(values: Values, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PackedArguments | None:
    """None for no arguments at all. Large ones go to the object store, as one object."""
    if not args and not kwargs:
        return None
    packed = PackedArguments()
    holds: list[ObjectRef[Any]] = []
    pickled = pickle_arguments(args, kwargs)
    if pickled is None and (ObjectRef in map(type, args) or ObjectRef in map(type, kwargs.values())):
        args, kwargs = _take_references(packed, args, kwargs)
        holds += [ref for _, _, ref in packed.references or ()]
        pickled = pickle_arguments(args, kwargs)
    if pickled is not None:
        packed.pickled, packed.buffers = pickled
    else:
        serialized = serialize_arguments(args, kwargs)
        holds += serialized.contained
        if serialized.size > MAX_INLINE_BYTES:
            ref = values.put_serialized(serialized)
            packed.args_object = ref._entry.object_id
            holds.append(ref)
        else:
            packed.pickled = serialized.pickled
            packed.buffers = [bytes(buffer) for buffer in serialized.buffers] or None
    packed.holds = holds or None
    return packed


def _take_references(
    packed: PackedArguments, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Replace top-level references by None; the worker puts their values there."""
    found: References = []
    plain_args = list(args)
    for index, value in enumerate(args):
        if type(value) is ObjectRef:
            value._check_session()
            found.append((index, "", value))
            plain_args[index] = None
    plain_kwargs = dict(kwargs)
    for name, value in kwargs.items():
        if type(value) is ObjectRef:
            check_text("the name of an argument", name)
            value._check_session()
            found.append((-1, name, value))
            plain_kwargs[name] = None
    packed.references = found
    return tuple(plain_args), plain_kwargs


class _ArgumentWatcher:
    """Counts the arguments that a call waits for."""

    __slots__ = ("_missing", "_ready")

    def __init__(self, missing: int, ready: Callable[[], None]) -> None:
        self._missing = missing
        self._ready = ready

    def ready(self, entry: ObjectEntry) -> None:
        self._missing -= 1
        if self._missing == 0:
            self._ready()


def await_arguments(waiting: Waiting, references: References, ready: Callable[[], None]) -> bool:
    """True when all are ready; else ``ready()`` comes later. Caller holds the lock."""
    pending = {ref._entry.object_id: ref._entry for _, _, ref in references if not ref._entry.state}
    if not pending:
        return True
    watcher = _ArgumentWatcher(len(pending), ready)
    for entry in pending.values():
        waiting.watch(entry, watcher)
    return False


def resolve_arguments(process: Process, references: References) -> list[Argument] | ObjectEntry:
    """The values of ready references; the entry of one that is an error, if any."""
    resolved = []
    inlined = 0
    for position, keyword, ref in references:
        entry = ref._entry
        if entry.state == ERROR:
            return entry
        if inlined + len(entry.payload) <= MAX_INLINED_BYTES:
            inlined += len(entry.payload)
            value = Value(entry.state, entry.payload, entry.size, entry.node_id)
        else:
            value = Value(ASK)
        resolved.append(Argument(position, keyword, entry.object_id, entry.owner or process.address, value))
    return resolved


# -- the worker -----------------------------------------------------------------------------------------


class ArgumentsLost(Exception):
    """A task cannot begin."""

    def __init__(self, lost: list[LostArgument]) -> None:
        super().__init__(lost)
        self.lost = lost


def load_arguments(
    values: Values, push: TaskPush | ActorCreation, received: list[ObjectRef[Any]], home: bytes, *, wait: bool
) -> tuple[Any, dict[str, Any]]:
    """The arguments of a call or an actor's creation, whose maker lives on the node ``home``; references met go to
    ``received``. ``wait`` for those that are lost.

    Raises: ArgumentsLost; what unpickling raises.
    """
    lost: list[LostArgument] = []
    outer, collected.unpickled = collected.unpickled, received
    try:
        args: Any
        kwargs: dict[str, Any]
        if push.args_object:
            try:
                args, kwargs = values.load_stored(push.args_object, home)
            except exceptions.ObjectLostError as error:
                if wait or not is_lost(error, push.args_object):
                    raise
                raise ArgumentsLost([LostArgument(push.args_object, home, error.detail)]) from None
        else:
            args, kwargs = loads(push.args, buffers=push.buffers)
        if push.refs is not None:
            positional = list(args)
            for argument in push.refs:
                value = argument.value
                if value.kind == ASK:
                    loaded = values.get_owned(argument.object_id, argument.owner)
                elif value.kind != STORED:
                    loaded = load_inline(value.kind, value.payload)
                elif wait:
                    loaded = values.load_or_make(argument.object_id, argument.owner, value.node_id)
                else:
                    try:
                        loaded = values.load_stored(argument.object_id, value.node_id)
                    except exceptions.ObjectLostError as error:
                        if not is_lost(error, argument.object_id):
                            raise
                        lost.append(LostArgument(argument.object_id, value.node_id, error.detail))
                        continue
                if argument.position >= 0:
                    positional[argument.position] = loaded
                else:
                    kwargs[argument.keyword] = loaded
            args = positional
        if lost:
            raise ArgumentsLost(lost)
        return args, kwargs
    finally:
        collected.unpickled = outer
