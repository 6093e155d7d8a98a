"""The rows of one table in the metadata store.

Each write compares the revision of the write before, so a second GCS on the same store is noticed and never
overwritten. A write whose outcome is unknown is looked for in the store before the next one, which else would take it
for that of another GCS. While a row is being written, later versions of it wait, and only the newest is written next.

What lies among the rows and cannot be read, damaged or put there by somebody else, is told and left as it is: one row
costs what it was about, and not the cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from shoal_common.errors import InvalidRequest, Unavailable
from shoal_common.metadata import (
    MAX_VALUE_BYTES,
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
#: So many of the rows that cannot be read are named.
_NAMED = 5

_Read = TypeVar("_Read")
_Message = TypeVar("_Message", bound=Message)

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
    #: Another GCS has taken over: ``wanted`` never comes into the store.
    lost: bool = False
    waiters: list[asyncio.Future[None]] = field(default_factory=list)


class Rows:
    """Keys are ``<prefix><row id>``. ``prefix`` ends with a slash."""

    def __init__(self, store: MetadataStore, prefix: str, background: Background) -> None:
        self._store = store
        self._prefix = prefix
        self._background = background
        self._rows: dict[str, _Row] = {}
        #: Ids of what was not read.
        self.unreadable: frozenset[str] = frozenset()

    async def reached(self, within_s: float) -> bool:
        """Whether the store answers now."""
        try:
            async with asyncio.timeout(within_s):
                await self._store.get(self._prefix)
        except (TimeoutError, MetadataStoreError):
            return False
        return True

    async def load(self, read: Callable[[str, bytes], _Read]) -> list[_Read]:
        """All rows, in no order that means anything. ``read`` makes them of id and value, and raises ``ValueError`` or
        ``DecodeError`` for what is none."""
        found: list[_Read] = []
        problems: dict[str, str] = {}
        for entry in await self._store.scan(self._prefix):
            row_id = entry.key.removeprefix(self._prefix)
            self._rows[row_id] = _Row(revision=entry.revision)
            try:
                found.append(read(row_id, entry.value))
            except (ValueError, DecodeError) as error:
                problems[row_id] = str(error)
        if problems:
            named = {self._prefix + row_id: problem for row_id, problem in sorted(problems.items())[:_NAMED]}
            _log.error("rows_not_readable", rows=len(problems), left_as_they_are=named)
        self.unreadable = frozenset(problems)
        return found

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

    def settled(self, row_id: str) -> asyncio.Future[None]:
        """For the answer to a repeat, which changes nothing: what the first one wanted may not be in the store yet, and
        a GCS that has been overtaken never writes it. Done, or failed, as that of ``put``; nothing is written when
        nothing is outstanding."""
        row = self._rows.get(row_id)
        if row is not None and (row.writing or row.lost):
            return self._want(row_id, row.wanted, row.committed)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

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
                    row.lost = True
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


def message(kind: type[_Message], named: Callable[[_Message], str]) -> Callable[[str, bytes], _Message]:
    """For `Rows.load`: rows are such messages, and ``named`` tells from one what its id has to be."""

    def read(row_id: str, value: bytes) -> _Message:
        row = kind.FromString(value)
        if named(row) != row_id:
            raise ValueError(f"it is no {kind.DESCRIPTOR.name} of this id")
        return row

    return read


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
