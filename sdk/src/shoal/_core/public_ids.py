"""Ids as programs see them. Inside they are plain ``bytes``; their form is said in ``shoal_common.ids`` alone.

Picklable, hashable; equal to ids of the same class only, and to no bytes, as in Ray.
"""

from __future__ import annotations

from typing import ClassVar, Self

from shoal_common import ids

#: ``JobID`` has a method ``int``, which would be meant in its annotations.
_Int = int


class BaseID:
    """What all ids have. ``JobID(binary)`` makes one of its bytes."""

    __slots__ = ("_binary",)

    #: In bytes.
    _LENGTH: ClassVar[int]

    def __init__(self, id: bytes) -> None:
        """Raises: TypeError (not bytes), ValueError (too short or too long)."""
        if not isinstance(id, bytes):
            raise TypeError(f"A {type(self).__name__} is made of bytes, not of a {type(id).__name__}")
        if len(id) != self._LENGTH:
            raise ValueError(f"A {type(self).__name__} has {self._LENGTH} bytes, not {len(id)}")
        self._binary = bytes(id)

    @classmethod
    def from_binary(cls, id_bytes: bytes) -> Self:
        """Raises: as the class itself."""
        return cls(id_bytes)

    @classmethod
    def from_hex(cls, hex_id: str | bytes) -> Self:
        """The other way of ``hex``. Raises: ValueError (no hexadecimal digits, too few, too many), TypeError."""
        if not isinstance(hex_id, str | bytes):
            raise TypeError(f"{cls.__name__}.from_hex takes a str, not a {type(hex_id).__name__}")
        text = hex_id if isinstance(hex_id, str) else hex_id.decode("latin-1")
        try:
            return cls(bytes.fromhex(text))
        except ValueError:
            raise ValueError(f"{text!r} is no {cls.__name__}: it has {2 * cls._LENGTH} hexadecimal digits") from None

    @classmethod
    def nil(cls) -> Self:
        """Stands for none."""
        return cls(ids.nil(cls._LENGTH))

    @classmethod
    def size(cls) -> int:
        """Of the binary form, in bytes."""
        return cls._LENGTH

    def is_nil(self) -> bool:
        return ids.is_nil(self._binary)

    def binary(self) -> bytes:
        return self._binary

    __bytes__ = binary

    def hex(self) -> str:
        return self._binary.hex()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._binary == self._binary

    def __hash__(self) -> int:
        return hash((type(self), self._binary))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()})"

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return type(self), (self._binary,)

    def _job(self, job_id: bytes) -> JobID:
        """Raises: ValueError for nil."""
        if self.is_nil():
            raise ValueError(f"{self!r} is nil: it belongs to no job")
        return JobID(job_id)


class UniqueID(BaseID):
    """One that is random and belongs to nothing else."""

    __slots__ = ()
    _LENGTH = ids.UNIQUE_LENGTH

    @classmethod
    def from_random(cls) -> Self:
        return cls(ids.random(cls._LENGTH))


class NodeID(UniqueID):
    __slots__ = ()
    _LENGTH = ids.NODE_LENGTH


class WorkerID(UniqueID):
    """Of the process of a driver, too."""

    __slots__ = ()
    _LENGTH = ids.WORKER_LENGTH


class FunctionID(UniqueID):
    __slots__ = ()
    _LENGTH = ids.FUNCTION_LENGTH


class ActorClassID(UniqueID):
    """Classes stand in the function table, too."""

    __slots__ = ()
    _LENGTH = ids.FUNCTION_LENGTH


class JobID(BaseID):
    """Jobs are numbered from 1 in a cluster."""

    __slots__ = ()
    _LENGTH = ids.JOB_LENGTH

    @classmethod
    def from_int(cls, value: _Int) -> Self:
        """Raises: OverflowError below 0 and from 2**32."""
        return cls(ids.job_of_number(value))

    def int(self) -> _Int:
        return ids.number_of_job(self._binary)


class TaskID(BaseID):
    __slots__ = ()
    _LENGTH = ids.TASK_LENGTH

    def job_id(self) -> JobID:
        """Raises: ValueError for nil."""
        return self._job(ids.job_of(self._binary))

    def actor_id(self) -> ActorID:
        """Raises: NotImplementedError: Shoal's ids of calls do not hold it."""
        raise NotImplementedError(
            "A TaskID of Shoal does not say which actor ran it. In the call get_runtime_context().get_actor_id() does."
        )


class ActorID(BaseID):
    __slots__ = ()
    _LENGTH = ids.ACTOR_LENGTH

    @classmethod
    def from_random(cls) -> Self:
        return cls(ids.random(cls._LENGTH))

    def job_id(self) -> JobID:
        """Raises: ValueError for nil."""
        return self._job(ids.job_of_actor(self._binary))


class PlacementGroupID(BaseID):
    __slots__ = ()
    _LENGTH = ids.PLACEMENT_GROUP_LENGTH

    @classmethod
    def from_random(cls) -> Self:
        return cls(ids.random(cls._LENGTH))
