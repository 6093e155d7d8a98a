"""A small map that programs keep in the metadata store (``shoal.util.kv``): bytes by namespace and key.

Nothing of it is kept here. A version is the store's own revision, so a write that expects one is decided by the store,
and a GCS that takes over knows as much. Time limits are the store's leases.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import quote

import structlog
from google.protobuf.message import DecodeError

from shoal_common.errors import DataLoss, InvalidRequest, Unavailable
from shoal_common.metadata import MetadataStore, MetadataStoreError, RevisionConflict
from shoal_common.service.background import Background
from shoal_proto.v1 import gcs_pb2

#: Larger values belong into the object store.
MAX_VALUE_BYTES = 512 * 1024
MAX_KEY_BYTES = 512
#: A long poll is answered after this time at the latest, in seconds.
MAX_WAIT_S = 30.0
#: Pause before the store is watched again, in seconds.
_WATCH_AGAIN_S = 1.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    value: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a write. ``version``: the new one, or where ``refused`` the one that is there; 0 = none is there."""

    version: int
    refused: bool = False


class KvManager:
    """Belongs to one event loop. All methods raise: Unavailable (the store does not answer), InvalidRequest."""

    def __init__(self, store: MetadataStore, prefix: str, background: Background) -> None:
        """Keys are ``<prefix><namespace>/<key>``, both quoted as in URLs; ``prefix`` ends with a slash."""
        self._store = store
        self._prefix = prefix
        self._background = background
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._following: asyncio.Task[None] | None = None

    async def get(self, namespace: str, key: str) -> Found | None:
        row = await self._read(self._place(namespace, key))
        return Found(row[0].value, row[1]) if row is not None else None

    async def put(
        self, namespace: str, key: str, value: bytes, expected: int | None, ttl_s: float, write_id: bytes
    ) -> Outcome:
        """``expected``: the version that must be there, 0 = none; None = any. ``ttl_s``: 0 = it stays.
        ``write_id``: of the caller's choice, the same in a repeat, whose first try may have been carried out."""
        place = self._place(namespace, key)
        if len(value) > MAX_VALUE_BYTES:
            raise InvalidRequest(f"the value of {key!r} has {len(value)} bytes, more than {MAX_VALUE_BYTES}")
        row = gcs_pb2.KvRow(value=value, write_id=write_id).SerializeToString()
        lease_id = 0
        try:
            if ttl_s:
                lease_id = await self._store.grant_lease(ttl_s)
            return Outcome(await self._store.put(place, row, expected_revision=expected, lease_id=lease_id))
        except RevisionConflict:
            if lease_id:
                self._background.spawn(self._revoke(lease_id))
            there = await self._read(place)
            if there is not None and there[0].write_id == write_id:
                return Outcome(there[1])
            return Outcome(there[1] if there is not None else 0, refused=True)
        except MetadataStoreError as error:
            raise Unavailable(str(error)) from error

    async def delete(self, namespace: str, key: str, expected: int | None) -> Outcome:
        """``version`` is 1 when it is gone by this call, and 0 when it was gone. That is no conflict: a repeat finds
        it so."""
        place = self._place(namespace, key)
        try:
            return Outcome(int(await self._store.delete(place, expected_revision=expected)))
        except RevisionConflict as conflict:
            return Outcome(conflict.actual, refused=conflict.actual != 0)
        except MetadataStoreError as error:
            raise Unavailable(str(error)) from error

    async def watch(self, namespace: str, key: str, known_version: int, wait_s: float) -> Found | None:
        """What is there once that has another version than ``known_version`` (0 = nothing is there), or after
        ``wait_s``."""
        place = self._place(namespace, key)
        if self._following is None:
            self._following = self._background.spawn(self._follow())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(wait_s, MAX_WAIT_S)
        news = asyncio.Event()
        # Registered before the store is read, so that no write falls between the two.
        self._waiters.setdefault(place, set()).add(news)
        try:
            while True:
                news.clear()
                row = await self._read(place)
                if (row[1] if row is not None else 0) != known_version or loop.time() >= deadline:
                    return Found(row[0].value, row[1]) if row is not None else None
                try:
                    async with asyncio.timeout_at(deadline):
                        await news.wait()
                except TimeoutError:
                    continue
        finally:
            waiters = self._waiters[place]
            waiters.discard(news)
            if not waiters:
                del self._waiters[place]

    async def forget(self, namespace: str) -> None:
        """All of a namespace that nobody can name any more. Raises: MetadataStoreError."""
        for place in await self._store.keys(f"{self._prefix}{quote(namespace, safe='')}/"):
            await self._store.delete(place)

    async def _follow(self) -> None:
        """Wakes those who wait, as entries change, and as their leases end."""
        while True:
            try:
                watch = await self._store.watch(self._prefix)
                try:
                    self._wake(*self._waiters)  # for what changed before it was watched
                    async for event in watch:
                        self._wake(event.key)
                finally:
                    await watch.close()
            except MetadataStoreError as error:
                _log.warning("kv_not_watched", reason=str(error))
            await asyncio.sleep(_WATCH_AGAIN_S)

    def _wake(self, *places: str) -> None:
        for place in places:
            for news in self._waiters.get(place, ()):
                news.set()

    async def _read(self, place: str) -> tuple[gcs_pb2.KvRow, int] | None:
        """With its version. Raises: Unavailable, DataLoss."""
        try:
            entry = await self._store.get(place)
        except MetadataStoreError as error:
            raise Unavailable(str(error)) from error
        if entry is None:
            return None
        try:
            return gcs_pb2.KvRow.FromString(entry.value), entry.revision
        except DecodeError as error:
            raise DataLoss(f"{place} is damaged in the metadata store: write it again") from error

    async def _revoke(self, lease_id: int) -> None:
        try:
            await self._store.revoke_lease(lease_id)
        except MetadataStoreError as error:
            _log.info("lease_not_revoked", reason=str(error))  # it ends by itself

    def _place(self, namespace: str, key: str) -> str:
        if not key or len(key.encode()) > MAX_KEY_BYTES:
            raise InvalidRequest(f"a key has 1 to {MAX_KEY_BYTES} bytes as UTF-8")
        return f"{self._prefix}{quote(namespace, safe='')}/{quote(key, safe='')}"
