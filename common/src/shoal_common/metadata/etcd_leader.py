"""Which GCS leads, of those that run: the one whose lease holds the key ``/shoal/leader`` of shard 0.

Theory of operation: the others watch the key and try to create it when it vanishes, with its lease or by a leader that
resigns. The winner then writes a new epoch into every shard (see `etcd_fence`), on shard 0 only while the key is still
its own, on the others only upwards. Epochs so are in the order of the elections, and whoever is overtaken while it
writes them gives way.

The lease only decides who tries to lead; what keeps two from writing is the epoch. A leader that cannot reach shard 0
therefore goes on for a while with what it knows: mostly nobody else can lead then either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from typing import Any

from aetcd import rpc

from shoal_common.metadata.etcd_fence import EPOCH_KEY, Fence, epoch_value
from shoal_common.metadata.etcd_shard import EtcdShard
from shoal_common.metadata.etcd_watch import EtcdWatch
from shoal_common.metadata.store import MetadataStoreError, StoreRefused

LEADER_KEY = b"/shoal/leader"
#: The lease is refreshed so many times within its time.
REFRESHES = 5
#: Pause after a call that failed, in seconds.
RETRY_PAUSE_S = 0.5
#: A leader that could not refresh its lease for so long gives up, in seconds: unseen, another one may lead by then.
UNREACHED_S = 60.0

_log = logging.getLogger(__name__)


class Leadership:
    """Made with `campaign`. Until its fence has fallen nobody else writes."""

    def __init__(self, shards: Sequence[EtcdShard], lease_id: int, ttl_s: float, fence: Fence) -> None:
        self._shards = shards
        self._lease_id = lease_id
        self._ttl_s = ttl_s
        self._fence = fence
        self._refreshing = asyncio.create_task(self._refresh(), name="leader's lease")
        for shard in shards:
            shard.fence = fence

    @property
    def epoch(self) -> int:
        return self._fence.epoch

    async def lost(self) -> str:
        """Returns when this process leads no more, and why."""
        return await self._fence.fallen()

    async def resign(self) -> None:
        """Let another one lead at once. Nothing is written after that."""
        self._fence.fall("it has resigned")
        self._refreshing.cancel()
        await asyncio.wait([self._refreshing])
        with contextlib.suppress(MetadataStoreError):  # the lease ends by itself then
            await self._shards[0].revoke_lease(self._lease_id)

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        refreshed_at = loop.time()
        problem = ""
        while True:
            await asyncio.sleep(self._ttl_s / REFRESHES)
            try:
                if not await self._shards[0].refresh_lease(self._lease_id):
                    self._fence.fall("its lease has ended, because it was not refreshed in time")
                    return
                refreshed_at, problem = loop.time(), ""
            except MetadataStoreError as error:
                if not problem:
                    _log.warning("the leader's lease cannot be refreshed, trying again: %s", error)
                problem = str(error)
                if loop.time() - refreshed_at > UNREACHED_S:
                    self._fence.fall(f"its lease could not be refreshed for {UNREACHED_S:g} s: {problem}")
                    return


async def campaign(shards: Sequence[EtcdShard], name: str, ttl_s: float) -> Leadership:
    """Returns when this process leads, however long that takes; the shards' own failures are waited out.

    ``name`` is for humans who look into etcd. ``ttl_s``: how long a leader that is gone is not yet replaced.

    Raises: StoreRefused.
    """
    waiting = False
    while True:
        try:
            lease_id = await _acquire(shards[0], name, ttl_s)
            epoch = 0
            try:
                epoch = await _claim(shards, lease_id)
            finally:
                if not epoch:
                    with contextlib.suppress(MetadataStoreError):  # it ends by itself then
                        await shards[0].revoke_lease(lease_id)
            if epoch:
                return Leadership(shards, lease_id, ttl_s, Fence(epoch))
        except StoreRefused:
            raise
        except MetadataStoreError as error:
            if not waiting:
                _log.warning("the election of the leader waits for the metadata store: %s", error)
            waiting = True
        await asyncio.sleep(RETRY_PAUSE_S)


async def _acquire(shard: EtcdShard, name: str, ttl_s: float) -> int:
    """The lease that holds the key, once this process has it."""
    watch = EtcdWatch(LEADER_KEY.decode(), [shard], set())
    try:
        await watch.opened()
        told = ""
        while True:
            lease_id = 1 + secrets.randbelow(2**63 - 1)
            await shard.grant_lease(lease_id, ttl_s)
            holder = await _try(shard, name, lease_id)
            if holder is None:
                return lease_id
            await shard.revoke_lease(lease_id)
            if holder != told:
                _log.info("on standby: %s leads", holder)
                told = holder
            async for event in watch:
                if event.value is None:
                    break
    finally:
        await watch.close()


async def _try(shard: EtcdShard, name: str, lease_id: int) -> str | None:
    """Who holds the key; None = this process now does."""
    absent = rpc.Compare(key=LEADER_KEY, target=rpc.Compare.CREATE, result=rpc.Compare.EQUAL, create_revision=0)
    answer = await shard.transaction(
        rpc.TxnRequest(
            compare=[absent],
            success=[rpc.RequestOp(request_put=rpc.PutRequest(key=LEADER_KEY, value=name.encode(), lease=lease_id))],
            failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=LEADER_KEY))],
        )
    )
    return None if answer.succeeded else answer.responses[0].response_range.kvs[0].value.decode(errors="replace")


async def _claim(shards: Sequence[EtcdShard], lease_id: int) -> int:
    """Write the next epoch into all shards; 0 = this process was overtaken."""
    epoch = 1 + max(await asyncio.gather(*map(_epoch_of, shards)))
    mine = rpc.Compare(key=LEADER_KEY, target=rpc.Compare.LEASE, result=rpc.Compare.EQUAL, lease=lease_id)
    written = [await _raise_epoch(shards[0], epoch, [mine])]
    written += await asyncio.gather(*(_raise_epoch(shard, epoch, []) for shard in shards[1:]))
    return epoch if all(written) else 0


async def _epoch_of(shard: EtcdShard) -> int:
    entry = await shard.get(EPOCH_KEY.decode())
    if entry is None:
        raise StoreRefused(f"{shard.name} has lost its key {EPOCH_KEY.decode()}: restore it from a backup")
    if not entry.value.isdigit():
        raise StoreRefused(
            f"{shard.name} has a key {EPOCH_KEY.decode()} that Shoal did not write: {entry.value[:40]!r}"
        )
    return int(entry.value)


async def _raise_epoch(shard: EtcdShard, epoch: int, conditions: list[Any]) -> bool:
    lower = rpc.Compare(key=EPOCH_KEY, target=rpc.Compare.VALUE, result=rpc.Compare.LESS, value=epoch_value(epoch))
    put = rpc.RequestOp(request_put=rpc.PutRequest(key=EPOCH_KEY, value=epoch_value(epoch)))
    answer = await shard.transaction(rpc.TxnRequest(compare=[lower, *conditions], success=[put]))
    return bool(answer.succeeded)
