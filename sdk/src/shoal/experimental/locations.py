"""Where objects lie."""

from __future__ import annotations

from typing import Any

import shoal
from shoal import _current
from shoal._core.object_ref import ObjectRef
from shoal._wire.value_kinds import PENDING, STORED


def get_local_object_locations(obj_refs: list[ObjectRef[Any]]) -> dict[ObjectRef[Any], dict[str, Any]]:
    """For each object of which this process knows: ``node_ids`` (hexadecimal; empty for small ones, which lie in
    their owner's process) and ``object_size`` in bytes (None while its task runs). Asks nobody.

    Raises: RuntimeError when Shoal is not running.
    """
    if _current.current_or_none() is None:
        raise RuntimeError("Shoal has not been started: call shoal.init() first")
    found = {}
    for ref in obj_refs:
        entry = ref._entry
        if entry.state == PENDING and entry.owner is not None:
            continue  # somebody else's, and never asked for
        stored = entry.state == STORED
        size = None if entry.state == PENDING else entry.size if stored else len(entry.payload)
        found[ref] = {"node_ids": [entry.node_id.hex()] if stored else [], "object_size": size}
    return found


def get_object_locations(obj_refs: list[ObjectRef[Any]], timeout_ms: int = -1) -> dict[ObjectRef[Any], dict[str, Any]]:
    """As ``get_local_object_locations``; waits for other processes' objects, at most ``timeout_ms`` milliseconds
    (-1 = for ever). Those that are not ready then are left out.

    Raises: RuntimeError when Shoal is not running.
    """
    borrowed = [ref for ref in dict.fromkeys(obj_refs) if ref._entry.owner is not None]
    if borrowed and _current.current_or_none() is not None:
        timeout = None if timeout_ms < 0 else timeout_ms / 1000
        shoal.wait(borrowed, num_returns=len(borrowed), timeout=timeout)
    return get_local_object_locations(obj_refs)
