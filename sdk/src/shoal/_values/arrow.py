"""Arrow arrays, and so tables: of a slice only what it shows is pickled. Arrow pickles the whole buffers that it is cut
from (https://github.com/apache/arrow/issues/26685), which then take room in the object store."""

from __future__ import annotations

from typing import Any

#: More of the buffers than this is not shown by the array: as a number of bytes, and as a part of what is shown.
_UNUSED_BYTES, _UNUSED_SHARE = 4096, 0.25


def reduce_slice(value: Any) -> Any:
    """As ``__reduce__``, for an instance of a class of ``pyarrow.lib``; None = as Arrow does it."""
    import pyarrow as pa

    if not isinstance(value, pa.Array):
        return None  # tables, batches and chunked arrays are made of arrays, each of which comes here by itself
    unused = value.get_total_buffer_size() - value.nbytes
    if unused <= max(_UNUSED_BYTES, _UNUSED_SHARE * value.nbytes):
        return None
    try:
        cut = pa.concat_arrays([value])
    except pa.ArrowNotImplementedError:
        return None
    # Views of strings keep the buffers that they point into.
    return cut.__reduce__() if cut.get_total_buffer_size() < value.get_total_buffer_size() else None
