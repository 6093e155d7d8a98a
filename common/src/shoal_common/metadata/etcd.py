"""``MetadataStore`` over etcd clusters, one a shard.

The list of shards is fixed when a cluster is first started: entries do not move by themselves. Revisions of different
shards have nothing to do with each other.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Iterable, Sequence
from operator import attrgetter
from typing import Any

from shoal_common.metadata.etcd_leader import Leadership, campaign
from shoal_common.metadata.etcd_marker import check_markers
from shoal_common.metadata.etcd_shard import EtcdAccess, EtcdShard
from shoal_common.metadata.etcd_watch import EtcdWatch
from shoal_common.metadata.sharding import shard_of
from shoal_common.metadata.store import Entry, LeaseExpired, MetadataStoreError

#: For how long a call may wait for its shard, in seconds.
DEADLINE_S = 5.0


class EtcdMetadataStore:
    """Made in its event loop; the first call connects. ``shards``: the endpoints of each, as `EtcdShard` takes them.

    A call fails with ``MetadataStoreError`` after ``deadline_s`` seconds, and waits for a shard that restarts until
    then. A lease has the same id in every shard; its time is rounded up to whole seconds, and etcd has a minimum
    (2 s with its default election timeout).
    """

    def __init__(
        self, shards: Sequence[str], *, access: EtcdAccess | None = None, deadline_s: float = DEADLINE_S
    ) -> None:
        if not shards:
            raise ValueError("the metadata store needs at least one etcd cluster")
        self._shards = [EtcdShard(endpoints, deadline_s, access or EtcdAccess()) for endpoints in shards]
        self._watches: set[EtcdWatch] = set()
        self._closed = False

    async def join(self, cluster_id: str, within_s: float) -> None:
        """Wait for all shards, and make sure that they are this cluster's, in the right order.

        Raises: MetadataStoreError when one is not reached ``within_s`` seconds, StoreRefused.
        """
        await _all_done(shard.reached(within_s) for shard in self._all())
        await check_markers(self._all(), cluster_id)

    async def lead(self, name: str, ttl_s: float) -> Leadership:
        """Wait until this process is the one that leads; its writes are fenced from then on. See `campaign`."""
        return await campaign(self._all(), name, ttl_s)

    async def get(self, key: str) -> Entry | None:
        return await self._shard(key).get(key)

    async def scan(self, prefix: str) -> list[Entry]:
        found = await asyncio.gather(*(shard.scan(prefix) for shard in self._all()))
        return sorted((entry for entries in found for entry in entries), key=attrgetter("key"))

    async def keys(self, prefix: str) -> list[str]:
        found = await asyncio.gather(*(shard.scan(prefix, keys_only=True) for shard in self._all()))
        return sorted(entry.key for entries in found for entry in entries)

    async def put(self, key: str, value: bytes, *, expected_revision: int | None = None, lease_id: int = 0) -> int:
        return await self._shard(key).put(key, value, expected_revision, lease_id)

    async def delete(self, key: str, *, expected_revision: int | None = None) -> bool:
        return await self._shard(key).delete(key, expected_revision)

    async def watch(self, prefix: str) -> EtcdWatch:
        watch = EtcdWatch(prefix, self._all(), self._watches)
        try:
            await watch.opened()
        except BaseException:
            await watch.close()
            raise
        return watch

    async def grant_lease(self, ttl_s: float) -> int:
        lease_id = 1 + secrets.randbelow(2**63 - 1)
        await asyncio.gather(*(shard.grant_lease(lease_id, ttl_s) for shard in self._all()))
        return lease_id

    async def refresh_lease(self, lease_id: int) -> None:
        if not all(await asyncio.gather(*(shard.refresh_lease(lease_id) for shard in self._all()))):
            # Shards do not end it at the same moment; half a lease is none.
            await self.revoke_lease(lease_id)
            raise LeaseExpired(lease_id)

    async def revoke_lease(self, lease_id: int) -> None:
        await asyncio.gather(*(shard.revoke_lease(lease_id) for shard in self._all()))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for watch in list(self._watches):
            await watch.close()
        await asyncio.gather(*(shard.close() for shard in self._shards))

    def _all(self) -> list[EtcdShard]:
        if self._closed:
            raise MetadataStoreError("the metadata store is closed")
        return self._shards

    def _shard(self, key: str) -> EtcdShard:
        shards = self._all()
        return shards[shard_of(key, len(shards))]


async def _all_done(calls: Iterable[Coroutine[Any, Any, None]]) -> None:
    """As ``gather``, which leaves the others running when one fails."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
