"""What keeps an old leader from writing.

The leader's epoch is a number that grows with each election and stands in every shard. Each write transaction compares
it, so etcd itself refuses what a leader sends that was paused, cut off or just slow, and has been followed meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aetcd import rpc

from shoal_common.metadata.store import Fenced

EPOCH_KEY = b"/shoal/epoch"


def epoch_value(epoch: int) -> bytes:
    """Of one length, so that etcd's comparison of bytes is one of numbers."""
    return b"%016d" % epoch


class Fence:
    """Around the writes of this process while it leads."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.comparison: Any = rpc.Compare(
            key=EPOCH_KEY, target=rpc.Compare.VALUE, result=rpc.Compare.EQUAL, value=epoch_value(epoch)
        )
        self._fallen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def fall(self, reason: str) -> None:
        """This process leads no more; only the first reason counts."""
        if not self._fallen.done():
            self._fallen.set_result(reason)

    def check(self) -> None:
        """Raises: Fenced after its fall."""
        if self._fallen.done():
            raise Fenced(self.epoch, self._fallen.result())

    async def fallen(self) -> str:
        """Returns when this process leads no more, and why."""
        return await asyncio.shield(self._fallen)
