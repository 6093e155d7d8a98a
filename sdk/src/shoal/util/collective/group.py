"""One rank of a group: the operations, in terms of a meeting."""

from __future__ import annotations

import enum
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import shoal
from shoal._core.object_ref import ObjectRef

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

#: Arrays up to so many bytes go along with the message, larger ones through the object store.
_INLINE_BYTES = 64 * 1024


class ReduceOp(enum.Enum):
    SUM = 0
    PRODUCT = 1
    MIN = 2
    MAX = 3


class Group:
    """``meeting``: the handle of the actor. Operations change their arrays in place."""

    def __init__(self, meeting: Any, rank: int, world_size: int) -> None:
        self.meeting = meeting
        self.rank = rank
        self.world_size = world_size
        self._numbers = itertools.count()

    def barrier(self) -> None:
        self._exchange([None] * self.world_size)

    def broadcast(self, array: Array, source: int) -> None:
        item = _item(array) if self.rank == source else None
        received = self._exchange([item] * self.world_size)
        if self.rank != source:
            _fill(array, _values([received[source]])[0])

    def allgather(self, arrays: Sequence[Array], array: Array) -> None:
        for target, value in zip(arrays, _values(self._exchange([_item(array)] * self.world_size)), strict=True):
            _fill(target, value)

    def allreduce(self, array: Array, op: ReduceOp) -> None:
        if array.nbytes <= _INLINE_BYTES:
            _fill(array, _reduced(_values(self._exchange([_item(array)] * self.world_size)), op))
            return
        part = self._reduced_part(array, op)
        self._join_parts(array, self._exchange([_item(part)] * self.world_size))

    def reduce(self, array: Array, target: int, op: ReduceOp) -> None:
        part = _item(self._reduced_part(array, op))
        received = self._exchange([part if rank == target else None for rank in range(self.world_size)])
        if self.rank == target:
            self._join_parts(array, received)

    def reducescatter(self, array: Array, arrays: Sequence[Array], op: ReduceOp) -> None:
        _fill(array, _reduced(_values(self._exchange([_item(each) for each in arrays])), op))

    def send(self, array: Array, target: int) -> None:
        shoal.get(self.meeting.send.remote(self.rank, target, [_item(array)]))

    def recv(self, array: Array, source: int) -> None:
        item = shoal.get(self.meeting.receive.remote(source, self.rank))
        _fill(array, _values(item)[0])

    def _reduced_part(self, array: Array, op: ReduceOp) -> Array:
        """Each rank reduces the part of all arrays that is its own."""
        import numpy as np

        parts = np.array_split(np.ascontiguousarray(array).reshape(-1), self.world_size)
        return _reduced(_values(self._exchange([_item(part) for part in parts])), op)

    def _join_parts(self, array: Array, items: list[Any]) -> None:
        import numpy as np

        _fill(array, np.concatenate(_values(items)).reshape(array.shape))

    def _exchange(self, given: list[Any]) -> list[Any]:
        """What each rank has given to this one."""
        received: list[Any] = shoal.get(self.meeting.exchange.remote(next(self._numbers), self.rank, given))
        return received


def _item(array: Array) -> Any:
    """What is sent for an array: a copy, or a ref to one."""
    return array.copy() if array.nbytes <= _INLINE_BYTES else shoal.put(array)


def _values(items: list[Any]) -> list[Array]:
    large = [item for item in items if isinstance(item, ObjectRef)]
    values = iter(shoal.get(large))
    return [next(values) if isinstance(item, ObjectRef) else item for item in items]


def _fill(array: Array, value: Array) -> None:
    """Raises: ValueError when the ranks' arrays differ in shape or type."""
    if array.shape != value.shape or array.dtype != value.dtype:
        raise ValueError(
            f"an array of shape {value.shape} and type {value.dtype} does not go into one of shape {array.shape} and "
            f"type {array.dtype}: all ranks must give arrays of the same kind"
        )
    array[...] = value


def _reduced(arrays: list[Array], op: ReduceOp) -> Array:
    """In the order of the ranks, so that all of them get the same bits."""
    import numpy as np

    functions: dict[ReduceOp, Callable[..., Any]] = {
        ReduceOp.SUM: np.add,
        ReduceOp.PRODUCT: np.multiply,
        ReduceOp.MIN: np.minimum,
        ReduceOp.MAX: np.maximum,
    }
    if len({(each.shape, each.dtype.str) for each in arrays}) > 1:
        kinds = [f"{each.shape} {each.dtype}" for each in arrays]
        raise ValueError(f"the ranks' arrays differ, by rank: {', '.join(kinds)}")
    if len(arrays) == 1:
        return arrays[0]
    return functools.reduce(functions[op], arrays)
