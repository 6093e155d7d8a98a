"""The rows of one table in the metadata store.

Each write compares the revision of the write before, so a second GCS on the same store is noticed and never
overwritten. A write whose outcome is unknown is looked for in the store before the next one, which else would take it
for that of another GCS. While a row is being written, later versions of it wait, and only the newest is written next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from shoal_common.errors import InvalidRequest, Unavailable
from shoal_common.metadata import (
    MAX_VALUE_BYTES,
    Entry,
    Fenced,
    MetadataStore,
    MetadataStoreError,
    RevisionConflict,
    StoreRefused,
)
from shoal_common.service.background import Background

#: Pause before a row that the store did not take is tried again, in seconds.
RETRY_AFTER_S = 1.0
#: Whoever waits for a write is told after so many tries that the store does not answer. A client's call is repeated
#: five times, and each try takes 5 s: so a store that is away for half a minute is waited for, and the client hears
#: what was wrong before its own patience of a minute ends.
TRIES_UNTIL_TOLD = 2

_log = structlog.get_logger()


@dataclass(slots=True)
class _Row:
    revision: int = 0
    #: Versions written after that revision, with an unknown outcome.
    unconfirmed: list[bytes | None] = field(default_factory=list)
    #: What the row is to be; None = deleted.
    wanted: bytes | None = None
    #: Called when ``wanted`` is in the store.
    committed: Callable[[], None] | None = None
    dirty: bool = False
    writing: bool = False
    waiters: list[asyncio.Future[None]] = field(default_factory=list)


class Rows:
    """Keys are ``<prefix><row id>``. ``prefix`` ends with a slash."""

    def __init__(self, store: MetadataStore, prefix: str, background: Background) -> None:
        self._store = store
        self._prefix = prefix
        self._background = background
        self._rows: dict[str, _Row] = {}

    async def load(self) -> list[Entry]:
        """All rows, in no order that means anything, with the prefix cut off their keys."""
        entries = await self._store.scan(self._prefix)
        rows = [Entry(entry.key.removeprefix(self._prefix), entry.value, entry.revision) for entry in entries]
        self._rows = {row.key: _Row(revision=row.revision) for row in rows}
        return rows

    def put(self, row_id: str, value: bytes, committed: Callable[[], None] | None = None) -> asyncio.Future[None]:
        """Write a row. The future is done when this version or a newer one is in the store, and fails with
        ``Unavailable`` when the store refuses it or does not answer for long; the row is tried again every second.

        Raises: InvalidRequest for a row that is too large.
        """
        if len(value) > MAX_VALUE_BYTES:
            raise InvalidRequest(f"{self._prefix}{row_id} would have {len(value)} bytes, more than {MAX_VALUE_BYTES}")
        return self._want(row_id, value, committed)

    def delete(self, row_id: str) -> asyncio.Future[None]:
        return self._want(row_id, None, None)

    def _want(self, row_id: str, value: bytes | None, committed: Callable[[], None] | None) -> asyncio.Future[None]:
        row = self._rows.setdefault(row_id, _Row())
        row.wanted, row.committed, row.dirty = value, committed, True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A caller that does not wait for the write needs not hear of its failure: it is logged and tried again.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        row.waiters.append(future)
        if not row.writing:
            self._begin(row_id, row)
        return future

    def _begin(self, row_id: str, row: _Row) -> None:
        row.writing = True
        self._background.spawn(self._write(row_id, row))

    async def _write(self, row_id: str, row: _Row) -> None:
        key = self._prefix + row_id
        tries = 0
        try:
            while row.dirty:
                value, committed, waiters = row.wanted, row.committed, row.waiters
                row.dirty, row.waiters = False, []
                try:
                    await self._store_version(key, row, value)
                except (RevisionConflict, Fenced) as overtaken:
                    _log.critical("another_gcs_writes_to_the_same_store", key=key, error=str(overtaken))
                    _fail(waiters, f"another GCS has taken over: {overtaken}")
                    return
                except MetadataStoreError as error:
                    _log.error("row_not_written", key=key, error=str(error))
                    tries += 1
                    if isinstance(error, StoreRefused) or tries % TRIES_UNTIL_TOLD == 0:
                        _fail(waiters, f"the metadata store did not take {key}: {error}")
                    else:
                        row.waiters = waiters + row.waiters
                    if not row.dirty:
                        row.wanted, row.committed, row.dirty = value, committed, True
                    await asyncio.sleep(RETRY_AFTER_S)
                    continue
                tries = 0
                if committed is not None:
                    committed()
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(None)
            if row.wanted is None:
                self._rows.pop(row_id, None)
        finally:
            row.writing = False

    async def _store_version(self, key: str, row: _Row, value: bytes | None) -> None:
        """Raises: RevisionConflict, Fenced, MetadataStoreError when the outcome is unknown."""
        if row.unconfirmed and await self._arrived(key, row, value):
            return
        try:
            if value is not None:
                row.revision = await self._store.put(key, value, expected_revision=row.revision)
            elif row.revision:
                await self._store.delete(key, expected_revision=row.revision)
                row.revision = 0
        except RevisionConflict as conflict:
            if row.unconfirmed:  # one of them has arrived just now, unless the next look tells otherwise
                raise MetadataStoreError(str(conflict)) from conflict
            raise
        except Fenced:
            raise
        except MetadataStoreError:
            row.unconfirmed.append(value)
            raise
        row.unconfirmed.clear()

    async def _arrived(self, key: str, row: _Row, value: bytes | None) -> bool:
        """Find out what has become of the unconfirmed versions; True = ``value`` is one of them, and in the store."""
        entry = await self._store.get(key)
        revision, found = (entry.revision, entry.value) if entry is not None else (0, None)
        if revision == row.revision:
            return False
        if found not in row.unconfirmed:
            raise RevisionConflict(key, row.revision, revision)
        row.revision = revision
        row.unconfirmed.clear()
        return found == value


async def written(saves: Iterable[asyncio.Future[None]]) -> None:
    """Wait for writes without owning them: cancelling the caller cancels none. Raises: Unavailable."""
    saves = list(saves)
    if saves:
        await asyncio.wait(saves)
    for save in saves:
        save.result()


def _fail(waiters: list[asyncio.Future[None]], reason: str) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(Unavailable(reason))
