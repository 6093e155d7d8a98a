"""What actors have stored for their next process (``checkpoint/<actor>/``), and its end.

It goes when the actor is dead and its last process is gone, which could store more. The spec of such an actor stays in
the metadata store until then, so that a GCS that takes over goes on with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shoal_common.service.background import Background
from shoal_gcs.store.rows import Rows

#: Deletes all blobs with a prefix; False = not now, it is logged.
Delete = Callable[[str], Awaitable[bool]]


class Checkpoints:
    def __init__(self, spec_rows: Rows, delete: Delete, background: Background) -> None:
        self._spec_rows = spec_rows
        self._delete_prefix = delete
        self._background = background
        #: Dead actors that have kept checkpoints, and whose last process may still run.
        self._dead: set[bytes] = set()

    def actor_died(self, actor_id: bytes) -> None:
        self._dead.add(actor_id)

    def process_gone(self, actor_id: bytes) -> None:
        """Of whatever actor: nothing happens to one that lives, or has kept none."""
        if actor_id in self._dead:
            self._dead.discard(actor_id)
            self._background.spawn(self._delete(actor_id))

    async def _delete(self, actor_id: bytes) -> None:
        if await self._delete_prefix(f"checkpoint/{actor_id.hex()}/"):
            self._spec_rows.delete(actor_id.hex())
