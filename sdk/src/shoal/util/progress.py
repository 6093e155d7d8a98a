"""``shoal.progress``: values of many refs, with a bar that says how many are there."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, TypeVar, overload

import shoal
from shoal._core.object_ref import ObjectRef
from shoal._values.numbers import seconds

T = TypeVar("T")

#: The bar is looked at so often, in seconds, when nothing comes.
_LOOK_S = 0.5
#: Values are taken in so many portions at least, as far as they come that fast.
_PORTIONS = 50


@overload
def progress(object_refs: ObjectRef[T], *, desc: str = "", timeout: float | None = None) -> T: ...
@overload
def progress(object_refs: Iterable[ObjectRef[T]], *, desc: str = "", timeout: float | None = None) -> list[T]: ...


def progress(object_refs: Any, *, desc: str = "", timeout: float | None = None) -> Any:
    """As ``shoal.get`` of one ref or of many, and meanwhile a progress bar in the terminal or notebook; in a task, in
    its driver's.

    ``desc``: stands before the bar. ``timeout``: in seconds; None or -1 = for ever. The bar needs the package ``tqdm``.

    Raises: as ``shoal.get``; the first error without waiting for the rest. TypeError for what is not refs, and for
    the generator of a task: that gives its refs as they come, ``for ref in tqdm(generator)``.
    """
    from shoal.experimental.tqdm_ray import tqdm  # brings tqdm along

    if not isinstance(desc, str):
        raise TypeError(f"desc must be a text, not {type(desc).__name__}")
    timeout = None if timeout is None or timeout == -1 else seconds(timeout)
    one = isinstance(object_refs, ObjectRef)
    refs = [object_refs] if one else _refs(object_refs)
    deadline = None if timeout is None else time.monotonic() + timeout
    pending = list(dict.fromkeys(refs))
    values: dict[ObjectRef[Any], Any] = {}
    with tqdm(desc=desc, total=len(pending), unit="object", flush_interval_s=0.1) as bar:
        while pending:
            left = _LOOK_S if deadline is None else min(_LOOK_S, deadline - time.monotonic())
            if left <= 0:
                shoal.get(pending, timeout=0)  # raises, unless all are there
            portion = max(1, len(pending) // _PORTIONS)
            ready, pending = shoal.wait(pending, num_returns=portion, timeout=max(left, 0), fetch_local=False)
            values.update(zip(ready, shoal.get(ready), strict=True))
            bar.update(len(ready))
    found = [values[ref] for ref in refs]
    return found[0] if one else found


def _refs(given: Any) -> list[ObjectRef[Any]]:
    if isinstance(given, shoal.ObjectRefGenerator) or not isinstance(given, Iterable):
        raise TypeError(f"progress() takes an ObjectRef or several of them, not {type(given).__name__}")
    refs = list(given)
    for each in refs:
        if not isinstance(each, ObjectRef):
            raise TypeError(f"progress() takes ObjectRefs; {each!r:.200} is a {type(each).__name__}")
    return refs
