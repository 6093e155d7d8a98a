"""Objects that are filled in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shoal import _current
from shoal._owner.objects.filling import ObjectBuffer

__all__ = ["ObjectBuffer", "create_object"]


def create_object(size: int, read: Callable[[memoryview], Any] | None = None) -> ObjectBuffer:
    """An object of ``size`` bytes in the store of this node, to be filled there, without a copy of it anywhere else:

    ```python
    with create_object(1_000_000 * 8, partial(np.frombuffer, dtype=np.float64)) as buffer:
        compute_into(np.frombuffer(buffer.memory, np.float64))
        ref = buffer.seal()
    ```

    Whoever gets it has what ``read`` makes of its memory, read-only and in place; without one, that memory.

    Raises: TypeError, ValueError (not a number of at least one byte); ObjectStoreFullError, OutOfDiskError; what
    pickling ``read`` raises.
    """
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"size must be a number of bytes, not {type(size).__name__}")
    if size <= 0:
        raise ValueError(f"size must be at least one byte, not {size}")
    if read is not None and not callable(read):
        raise TypeError(f"read must be a function of the memory, not {type(read).__name__}")
    return _current.connected().filling.create(size, read)
