"""Watches over all shards of an etcd metadata store.

A stream that breaks is opened again from the revision after the last one seen: etcd keeps its history, so nothing is
missed across a restart. When that history has been compacted meanwhile, or is not the one seen before, what was missed
cannot be told from here (deleted keys leave no trace), and the watcher has to scan.

A watcher that is slow stops its streams from being read. The events then wait in etcd's history, not in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from typing import Any

import grpc.aio
from aetcd import rpc

from shoal_common.metadata.etcd_shard import EtcdShard, prefix_range
from shoal_common.metadata.queued_watch import QueuedWatch
from shoal_common.metadata.store import MetadataStoreError, WatchEvent

#: Events that are read ahead of the watcher.
MAX_WATCH_EVENTS = 10_000
#: Bounds of the pause before a broken stream is opened again, in seconds.
FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 1.0

_log = logging.getLogger(__name__)


class EtcdWatch(QueuedWatch):
    def __init__(self, prefix: str, shards: Sequence[EtcdShard], registry: set[EtcdWatch]) -> None:
        super().__init__(prefix)
        self._registry = registry
        self._shards = shards
        self._opened = [asyncio.Event() for _ in shards]
        self._followers = [
            asyncio.create_task(self._follow(shard, opened), name=f"watch {prefix}")
            for shard, opened in zip(shards, self._opened, strict=True)
        ]
        for follower in self._followers:
            follower.add_done_callback(self._lost)
        registry.add(self)

    async def opened(self) -> None:
        """Returns when every shard watches. Raises: MetadataStoreError."""
        for shard, opened in zip(self._shards, self._opened, strict=True):
            try:
                async with asyncio.timeout(shard.deadline_s):
                    await opened.wait()
            except TimeoutError:
                raise MetadataStoreError(f"cannot watch {self._prefix}: {shard.unanswered()}") from None

    async def close(self) -> None:
        self._closed = True
        self._registry.discard(self)
        self._arrived.set()
        for follower in self._followers:
            follower.cancel()
        await asyncio.wait(self._followers)

    async def _follow(self, shard: EtcdShard, opened: asyncio.Event) -> None:
        """Returns when events were missed."""
        next_revision = 0
        pause_s = FIRST_PAUSE_S
        with contextlib.suppress(MetadataStoreError):  # the stream tells
            await shard.authenticate()
        while True:
            call = shard.watch()
            problem = "it has ended the stream"
            try:
                await call.write(_create(self._prefix, next_revision))
                async for response in call:
                    if response.created and not response.canceled:
                        if response.header.revision + 1 < next_revision:
                            _log.warning("%s is behind revision %d, seen before", shard.name, next_revision - 1)
                            return
                        next_revision = next_revision or response.header.revision + 1
                        pause_s = FIRST_PAUSE_S
                        opened.set()
                    if response.compact_revision:
                        _log.info("watch of %s: %s has compacted revision %d", self._prefix, shard.name, next_revision)
                        return
                    if response.canceled:
                        problem = response.cancel_reason
                        break
                    for event in response.events:
                        await self._offer(_event(event))
                    if response.events:
                        next_revision = response.events[-1].kv.mod_revision + 1
                    elif not response.created:  # nothing of ours until here: so this much may be compacted
                        next_revision = response.header.revision + 1
                _log.info("watch of %s interrupted by %s: %s", self._prefix, shard.name, problem)
            except grpc.aio.AioRpcError as error:
                _log.info("watch of %s interrupted: %s", self._prefix, shard.explain(error))
            finally:
                call.cancel()
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
            with contextlib.suppress(MetadataStoreError):  # the next stream tells
                await shard.authenticate()

    async def _offer(self, event: WatchEvent) -> None:
        while len(self._events) >= MAX_WATCH_EVENTS:
            self._room.clear()
            await self._room.wait()
        self._events.append(event)
        self._arrived.set()

    def _lost(self, follower: asyncio.Task[None]) -> None:
        """One shard's events are lost: those of the others would feign that all is well."""
        if self._closed:
            return
        if not follower.cancelled() and (error := follower.exception()) is not None:
            _log.error("watch of %s failed", self._prefix, exc_info=error)
        self._lagged = True
        self._registry.discard(self)
        self._arrived.set()
        for other in self._followers:
            other.cancel()


def _create(prefix: str, start_revision: int) -> Any:
    start, end = prefix_range(prefix)
    return rpc.WatchRequest(
        create_request=rpc.WatchCreateRequest(
            key=start, range_end=end, start_revision=start_revision, progress_notify=True
        )
    )


def _event(event: Any) -> WatchEvent:
    deleted = event.type == rpc.Event.DELETE
    return WatchEvent(event.kv.key.decode(), None if deleted else event.kv.value, event.kv.mod_revision)
