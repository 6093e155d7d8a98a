"""Iterators over results in the order in which they become ready."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import shoal
from shoal._api.functions import RemoteFunction
from shoal._core.object_ref import ObjectRef

#: Results awaited at a time.
CHUNK_SIZE = 10
#: Tasks in flight at most.
BACKPRESSURE_SIZE = 100


def as_completed(
    refs: Sequence[ObjectRef[Any]], *, chunk_size: int = CHUNK_SIZE, yield_obj_refs: bool = False, **kwargs: Any
) -> Iterator[Any]:
    """The values of ``refs`` (or the refs, with ``yield_obj_refs``) as they become ready, ``chunk_size`` at a time.

    Within a chunk the order is that of ``refs``. Other keywords (``timeout``, ``fetch_local``) go to ``wait``.

    Raises, when first iterated: ValueError (chunk_size < 1, or ``num_returns`` given); and what the tasks raised.
    """
    _check(chunk_size, kwargs)
    rest = list(refs)
    while rest:
        ready, rest = _take(rest, chunk_size, yield_obj_refs, kwargs)
        yield from ready


def map_unordered(
    fn: RemoteFunction[..., Any],
    items: Iterable[Any],
    *,
    backpressure_size: int | None = BACKPRESSURE_SIZE,
    chunk_size: int = CHUNK_SIZE,
    yield_obj_refs: bool = False,
    **kwargs: Any,
) -> Iterator[Any]:
    """Results of ``fn.remote(item)`` for all items as they become ready; at most ``backpressure_size`` tasks are in
    flight (None = no limit). Everything else as in ``as_completed``.

    Raises, when first iterated: ValueError; and what the tasks raised.
    """
    if backpressure_size is not None and backpressure_size <= 0:
        raise ValueError("backpressure_size must be positive.")
    _check(chunk_size, kwargs)
    running: list[ObjectRef[Any]] = []
    for item in items:
        running.append(fn.remote(item))
        if backpressure_size is not None and len(running) >= backpressure_size:
            ready, running = _take(running, chunk_size, yield_obj_refs, kwargs)
            yield from ready
    yield from as_completed(running, chunk_size=chunk_size, yield_obj_refs=yield_obj_refs, **kwargs)


def _check(chunk_size: int, kwargs: dict[str, Any]) -> None:
    if chunk_size < 1:
        raise ValueError("`chunk_size` must be >= 1")
    if "num_returns" in kwargs:
        raise ValueError("Use the `chunk_size` argument instead of `num_returns`.")


def _take(
    refs: list[ObjectRef[Any]], chunk_size: int, yield_obj_refs: bool, kwargs: dict[str, Any]
) -> tuple[list[Any], list[ObjectRef[Any]]]:
    ready, rest = shoal.wait(refs, num_returns=min(chunk_size, len(refs)), **kwargs)
    return ready if yield_obj_refs else shoal.get(ready), rest
