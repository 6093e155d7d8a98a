"""Values on their way through a ring."""

from __future__ import annotations

import ctypes
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal import exceptions
from shoal._values.serialization import ALIGNMENT, PLAIN, Serialized, loads, loads_packed, serialize
from shoal._wire.value_kinds import BYTES, ERROR, INLINE, PACKED, STORED

if TYPE_CHECKING:
    from shoal._core.object_ref import ObjectRef


class Failed:
    """Stands for the value of a method that raised, or was not called as a value that it needs stands for another."""

    __slots__ = ("pickled",)

    def __init__(self, pickled: bytes) -> None:
        self.pickled = pickled

    @classmethod
    def of(cls, error: Exception) -> Failed:
        return cls(pickle.dumps(error, 5))

    def error(self) -> Exception:
        """To be raised to the user."""
        error: Exception = pickle.loads(self.pickled)
        return error.as_instanceof_cause() if isinstance(error, exceptions.TaskError) else error


class Message(NamedTuple):
    """What is written: as ``value_kinds``, and how many bytes."""

    kind: int
    payload: bytes | Serialized
    size: int
    #: Of what lies in the object store: ``payload`` is its id, and it lies there for as long as somebody has this.
    ref: ObjectRef[Any] | None = None


def packed(value: Any, what: str) -> Message:
    """Raises: TypeError for what cannot be pickled, and for references: nobody would count those in a ring."""
    kind = type(value)
    if kind is bytes:
        return Message(BYTES, value, len(value))
    if kind in PLAIN:
        pickled = pickle.dumps(value, 5)
        return Message(INLINE, pickled, len(pickled))
    if kind is Failed:
        return Message(ERROR, value.pickled, len(value.pickled))
    serialized = serialize(value, what)
    if serialized.contained:
        raise TypeError(
            f"{what} has an ObjectRef in it, which cannot go through a compiled graph: get() it before, and pass the "
            "value on"
        )
    if serialized.buffers:
        return Message(PACKED, serialized, serialized.packed_size)
    return Message(INLINE, serialized.pickled, len(serialized.pickled))


def unpacked(kind: int, payload: memoryview, load: Callable[[bytes], Any]) -> Any:
    """The value, which has nothing in common with the ring any more, or a ``Failed``; ``load(object_id)`` gives what
    lies in the object store. Its buffers cannot be written to, be it large or small, as those of a call's argument.

    Raises: what unpickling and ``load`` raise.
    """
    if kind == STORED:
        return load(bytes(payload))
    if kind == INLINE:
        return loads(payload)
    if kind == BYTES:
        return bytes(payload)
    if kind == ERROR:
        return Failed(bytes(payload))
    # Aligned, as in the object store: what computes on arrays is quicker then, and some of it insists.
    memory = bytearray(payload.nbytes + ALIGNMENT)
    offset = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % ALIGNMENT
    copy = memoryview(memory)[offset : offset + payload.nbytes]
    copy[:] = payload
    return loads_packed(copy.toreadonly())
