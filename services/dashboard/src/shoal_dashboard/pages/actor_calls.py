"""What the pages of actors tell of their calls and checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from shoal_common.errors import ServiceError
from shoal_dashboard.context import Context
from shoal_dashboard.events.rows import ENDED, RUNNING
from shoal_dashboard.pages.columns import cell
from shoal_dashboard.state.query import Row

#: Waited for the store of blobs, in seconds, and checkpoints that are shown, the newest.
_PATIENCE_S, _MOST = 0.5, 20


async def add_calls(context: Context, rows: Sequence[Row]) -> None:
    """To rows of actors: ``calls``, of those that are recorded singly, and ``queue``, how many have not begun."""
    if context.tasks is None:
        return
    counts = await context.tasks.actor_calls([row["actor_id"] for row in rows])
    for row in rows:
        states = counts.get(row["actor_id"], {})
        begun = sum(states.get(state, 0) for state in (*ENDED, RUNNING))
        row["calls"] = ", ".join(f"{count:,} {state}" for state, count in sorted(states.items()))
        row["queue"] = sum(states.values()) - begun


async def checkpoints(context: Context, actor_id: str) -> list[tuple[str, dict[str, Any]]]:
    """A table under its heading, as an item's page takes it; none = it has stored nothing, or nobody can say now."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            blobs = await (await context.cluster.blobs()).list(f"checkpoint/{actor_id}/")
    except (ServiceError, TimeoutError):
        return [("Checkpoints: the store of blobs does not answer", {"columns": ("name",), "rows": []})]
    prefix = len(f"checkpoint/{actor_id}/")
    rows = [
        (blob.key, [cell("name", blob.key[prefix:]), cell("stored_size", blob.size_bytes)])
        for blob in sorted(blobs, key=lambda blob: blob.key, reverse=True)[:_MOST]
    ]
    return [(f"Checkpoints: {len(blobs):,}", {"columns": ("name", "stored_size"), "rows": rows})] if rows else []
