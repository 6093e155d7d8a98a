"""Packages of runtime environments, and what ``pip`` and ``uv`` have installed, go when nobody uses them any more; and
logs of nodes when those have written nothing for so long."""

from __future__ import annotations

import structlog

from shoal_common.blob import last_used
from shoal_common.blob.local import Blobs

_PREFIXES = ("package/", "environment/", "node_log/")

_log = structlog.get_logger()


async def drop_unused(blobs: Blobs, today: int, keep_days: int) -> None:
    """What was used last more than ``keep_days`` before ``today`` (`shoal_common.blob.last_used`).

    What nobody has marked is marked now: it is of a release that did not.

    Raises: ServiceError.
    """
    for prefix in _PREFIXES:
        found = last_used.find([blob.key for blob in await blobs.list(prefix)], today, keep_days)
        for place in found.unmarked:
            await blobs.put(last_used.mark(place, today), [b"\n"])
        for place in found.old:
            # Somebody may have asked for it since.
            now = [blob.key for blob in await blobs.list(f"{place}/")]
            if last_used.find(now, today, keep_days).old:
                await blobs.delete(prefix=f"{place}/")
                _log.info("package_dropped", place=place, blobs=len(now), unused_for_days=keep_days)
