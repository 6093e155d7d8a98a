"""Where objects lie."""

from __future__ import annotations

from typing import Any

import shoal
from shoal import _current
from shoal._core.object_ref import ObjectRef
from shoal._values.numbers import seconds
from shoal._wire.value_kinds import PENDING, STORED


def get_local_object_locations(obj_refs: list[ObjectRef[Any]]) -> dict[ObjectRef[Any], dict[str, Any]]:
    """For each object of which this process knows: ``node_ids`` (hexadecimal; of a small one that of its owner, which
    keeps it; empty while its task runs) and ``object_size`` in bytes (None while its task runs). Asks
    nobody.

    Raises: RuntimeError when Shoal is not running, TypeError.
    """
    core = _current.current_or_none()
    if core is None:
        raise RuntimeError("Shoal has not been started: call shoal.init() first")
    found: dict[ObjectRef[Any], dict[str, Any]] = {}
    for ref in _refs(obj_refs):
        entry = ref._entry
        if entry.state == PENDING and entry.owner is not None:
            continue  # somebody else's, and never asked for
        if entry.state == PENDING:
            found[ref] = {"node_ids": [], "object_size": None}
        elif entry.state == STORED:
            found[ref] = {"node_ids": [entry.node_id.hex()], "object_size": entry.size}
        else:
            owner = core.node_id if entry.owner is None else entry.owner.node_id
            found[ref] = {"node_ids": [owner.hex()], "object_size": len(entry.payload)}
    return found


def get_object_locations(obj_refs: list[ObjectRef[Any]], timeout_ms: int = -1) -> dict[ObjectRef[Any], dict[str, Any]]:
    """As ``get_local_object_locations``; waits for other processes' objects, at most ``timeout_ms`` milliseconds
    (-1 = for ever). Those that are not ready then are left out.

    Raises: RuntimeError when Shoal is not running, TypeError.
    """
    timeout = None if (given := seconds(timeout_ms, "timeout_ms", "milliseconds")) < 0 else given / 1000
    borrowed = [ref for ref in dict.fromkeys(_refs(obj_refs)) if ref._entry.owner is not None]
    if borrowed and _current.current_or_none() is not None:
        shoal.wait(borrowed, num_returns=len(borrowed), timeout=timeout)
    return get_local_object_locations(obj_refs)


def _refs(given: Any) -> list[ObjectRef[Any]]:
    """Raises: TypeError."""
    if not isinstance(given, list | tuple) or not all(isinstance(each, ObjectRef) for each in given):
        raise TypeError(f"obj_refs must be a list of ObjectRefs, not {given!r}")
    return list(given)
