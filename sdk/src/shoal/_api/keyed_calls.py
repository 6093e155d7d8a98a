"""Tasks with a key: what has ended with it is not run again.

The worker looks: a keyed call runs a function around the user's, which takes the value that is kept under the key, or
calls the user's and stores what it returns before anybody is answered. So whatever a caller has seen is kept, values go
from the worker to the blobs and not through the driver, and an argument that is a reference counts by its value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal import _context, _current
from shoal._core.object_ref import ObjectEntry, ObjectRef
from shoal._owner.objects.named_objects import CACHE
from shoal._values import content
from shoal._values.content import Content
from shoal._values.serialization import loads_packed, serialize

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker


class KeyedFunction:
    """What runs in the worker."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)  # it is known by the same name
        self.function = function

    def __call__(self, key: str | None, ttl_s: float | None, /, *args: Any, **kwargs: Any) -> Any:
        """``key`` None: by its content. Raises: NamedObjectError, and what the function raises."""
        objects = _current.current().named_objects
        scope = CACHE if key is None else objects.scope
        name = key or content.address(self.function, args, kwargs, _context.process.runtime_env)
        kept = objects.find(scope, name)
        if kept is not None:
            return loads_packed(kept)
        value = self.function(*args, **kwargs)
        objects.store(scope, name, serialize(value, "the result"), ttl_s)
        return value


class _Ended:
    """Watches for the end of a keyed call."""

    def __init__(self, under_way: dict[str, Any], key: str) -> None:
        self._under_way = under_way
        self._key = key

    def ready(self, entry: ObjectEntry) -> None:
        self._under_way.pop(self._key, None)


def submit(
    core: CoreWorker,
    call: Callable[..., Any],
    key: str | Content,
    ttl_s: float | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """What ``.remote(...)`` returns. ``call``: that of a remote ``KeyedFunction``. A call of this process that has the
    same key and has not ended is the same call.

    Raises: ValueError in a job without a name; as ``call``.
    """
    if isinstance(key, Content):
        return call(None, ttl_s, *args, **kwargs)
    objects = core.named_objects
    _ = objects.scope  # raises
    with core.lock:
        if key in objects.under_way:
            return objects.under_way[key]
    refs = call(key, ttl_s, *args, **kwargs)
    first = refs[0] if isinstance(refs, list) else refs
    if isinstance(first, ObjectRef):
        with core.lock:
            if not first._entry.state:
                objects.under_way[key] = refs
                core.waiting.watch(first._entry, _Ended(objects.under_way, key))
    return refs
