"""A small map that outlives its program: bytes by name, in the cluster's metadata store.

For what several programs or actors agree on: where something is, who leads, how far something has come. It is written
where the cluster keeps its own state (etcd, or the head's SQLite file), so it is for kilobytes, a few times a second:
values belong into objects.

Names are those of a namespace, by default the session's. What is in the anonymous one of a job without
``init(namespace=...)`` goes when that job has ended.

All functions wait for the GCS, a standby's take-over included. Raises: ValueError (a key without characters or above
512 bytes, a value above 512 KiB), RpcError (no answer within a minute).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal import _current
from shoal._net.gcs.errors import InvalidArgument
from shoal._net.gcs.kv import KvWritten
from shoal._values.numbers import MAX_KEPT_S, seconds
from shoal.exceptions import VersionConflictError

if TYPE_CHECKING:
    from shoal._owner.core_worker import CoreWorker

__all__ = ["Entry", "delete", "get", "put", "watch"]

#: One question of a watch, in seconds.
_POLL_S = 20.0


@dataclass(frozen=True, slots=True)
class Entry:
    """``version`` grows with each write, also of an entry that was deleted meanwhile."""

    value: bytes
    version: int


def get(key: str, *, namespace: str | None = None) -> Entry | None:
    """None = there is none."""
    core, namespace = _checked(key, namespace)
    found = core.gcs.kv.get(namespace, key)
    return Entry(*found) if found is not None else None


def put(
    key: str,
    value: bytes,
    *,
    expected_version: int | None = None,
    ttl_s: float | None = None,
    namespace: str | None = None,
) -> int:
    """Write an entry; returns its version. It is stored when this returns.

    ``expected_version``: only over that version, 0 = only if there is none; None = over any. ``ttl_s``: it goes so many
    seconds after this write, at the earliest, or some seconds later; None = it stays.

    Raises: VersionConflictError, TypeError (not bytes, not a number), ValueError.
    """
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"a value is bytes, not {type(value).__name__}: pickle it, or write it as JSON")
    if ttl_s is not None and not 0 < seconds(ttl_s, "ttl_s") <= MAX_KEPT_S:
        raise ValueError(f"ttl_s must be a number of seconds above 0, at most {MAX_KEPT_S:,}, or None, not {ttl_s!r}")
    core, namespace = _checked(key, namespace, expected_version)
    try:
        written = core.gcs.kv.put(namespace, key, bytes(value), expected_version, ttl_s or 0.0)
    except InvalidArgument as error:
        raise ValueError(error.message) from None
    return _version(key, expected_version, written)


def delete(key: str, *, expected_version: int | None = None, namespace: str | None = None) -> bool:
    """Whether there was one. Raises: VersionConflictError, when there is one of another version than expected."""
    core, namespace = _checked(key, namespace, expected_version)
    return _version(key, expected_version, core.gcs.kv.delete(namespace, key, expected_version)) > 0


def watch(
    key: str, known_version: int = 0, *, timeout_s: float | None = None, namespace: str | None = None
) -> Entry | None:
    """Wait until the entry has another version than the known one, 0 = until there is one; returns what is there then,
    None = it is gone. Of several changes the last one is seen.

    Raises: TimeoutError after ``timeout_s`` seconds.
    """
    deadline = None if timeout_s is None else time.monotonic() + seconds(timeout_s, "timeout_s")
    core, namespace = _checked(key, namespace, known_version)
    while True:
        wait_s = _POLL_S if deadline is None else min(_POLL_S, max(0.0, deadline - time.monotonic()))
        found = core.gcs.kv.watch(namespace, key, known_version, wait_s)
        if (found[1] if found is not None else 0) != known_version:
            return Entry(*found) if found is not None else None
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"{key!r} had not changed within {timeout_s:g} s")


def _checked(key: str, namespace: str | None, version: int | None = None) -> tuple[CoreWorker, str]:
    """Raises: TypeError, ValueError."""
    if not isinstance(key, str):
        raise TypeError(f"a key is a string, not {type(key).__name__}")
    if not 1 <= len(key.encode()) <= 512:
        raise ValueError(f"a key has 1 to 512 bytes as UTF-8, and this one {len(key.encode())}")
    if version is not None and (type(version) is not int or version < 0):
        raise ValueError(f"a version is a number from an earlier call, or 0, not {version!r}")
    if not isinstance(namespace, str | None):
        raise TypeError(f"a namespace is a string, not {type(namespace).__name__}")
    core = _current.connected()
    return core, core.namespace if namespace is None else namespace


def _version(key: str, expected: int | None, written: KvWritten) -> int:
    if written.refused:
        assert expected is not None
        raise VersionConflictError(key, expected, written.version)
    return written.version
