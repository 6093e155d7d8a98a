"""``shoal.progress``: values of many refs, with a bar that says how many are there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TypeVar

import shoal
from shoal._core.object_ref import ObjectRef

T = TypeVar("T")

#: The bar is looked at so often, in seconds, when nothing comes.
_LOOK_S = 0.5
#: Values are taken in so many portions at least, as far as they come that fast.
_PORTIONS = 50


def progress(object_refs: Sequence[ObjectRef[T]], *, desc: str = "", timeout: float | None = None) -> list[T]:
    """As ``shoal.get`` of a list, and meanwhile a progress bar in the terminal or notebook; in a task, in its driver's.

    ``desc``: stands before the bar. ``timeout``: in seconds; None = for ever. The bar needs the package ``tqdm``.

    Raises: as ``shoal.get``; the first error without waiting for the rest.
    """
    from shoal.experimental.tqdm_ray import tqdm  # brings tqdm along

    deadline = None if timeout is None else time.monotonic() + timeout
    pending = list(dict.fromkeys(object_refs))
    values: dict[ObjectRef[T], Any] = {}
    with tqdm(desc=desc, total=len(pending), unit="object", flush_interval_s=0.1) as bar:
        while pending:
            left = _LOOK_S if deadline is None else min(_LOOK_S, deadline - time.monotonic())
            if left <= 0:
                shoal.get(pending, timeout=0)  # raises, unless all are there
            portion = max(1, len(pending) // _PORTIONS)
            ready, pending = shoal.wait(pending, num_returns=portion, timeout=max(left, 0), fetch_local=False)
            values.update(zip(ready, shoal.get(ready), strict=True))
            bar.update(len(ready))
    return [values[ref] for ref in object_refs]
