"""Values on their way through a ring."""

from __future__ import annotations

import ctypes
import pickle
from typing import Any, NamedTuple

from shoal import exceptions
from shoal._values.serialization import ALIGNMENT, PLAIN, Serialized, loads, loads_packed, serialize
from shoal._wire.value_kinds import BYTES, ERROR, INLINE, PACKED


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


def unpacked(kind: int, payload: memoryview) -> Any:
    """The value, which has nothing in common with the ring any more, or a ``Failed``.

    Raises: what unpickling raises.
    """
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
    return loads_packed(copy)
