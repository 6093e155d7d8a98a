"""How functions travel to and from the function table: in one piece, or in chunks that the metadata store can hold.

One large message costs far more than its bytes in small ones: each copy that gRPC makes of it is fresh memory.
"""

from __future__ import annotations

from collections.abc import Iterable

from shoal_common.errors import DataLoss
from shoal_common.metadata import MAX_VALUE_BYTES

#: Of a pickled function or class, as in Ray.
MAX_FUNCTION_BYTES = 100 * 1024 * 1024
#: A row has some bytes besides.
CHUNK_BYTES = MAX_VALUE_BYTES - 1024
#: Chunks of a function that are on their way at the same time.
AT_ONCE = 8


def split(data: bytes) -> list[bytes]:
    """The chunks of a function; one that fits into a row has none."""
    if len(data) <= CHUNK_BYTES:
        return []
    return [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]


def join(function_id: bytes, chunks: Iterable[bytes], size: int) -> bytes:
    """Raises: DataLoss when these are not ``size`` bytes."""
    data = b"".join(chunks)
    if len(data) != size:
        raise DataLoss(
            f"function {function_id.hex()} has {len(data)} of its {size} bytes in the metadata store: define it again"
        )
    return data
