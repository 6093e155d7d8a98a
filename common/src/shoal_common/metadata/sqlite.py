"""``MetadataStore`` on one SQLite file.

Theory of operation: SQLite calls block, so they run in one dedicated thread. Whatever was asked while the
thread was busy becomes its next batch: one transaction, one commit, one wake-up of the event loop. Under
load a commit is so shared by hundreds of writes, and an idle store still answers one write at once.

``synchronous=NORMAL`` in WAL mode: a crash of the process loses nothing, a power failure may lose the last
commits but never corrupts. FULL would cost an fsync (milliseconds) for each group of writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from shoal_common.metadata.queued_watch import QueuedWatch
from shoal_common.metadata.store import (
    Entry,
    LeaseExpired,
    MetadataStoreError,
    RevisionConflict,
    WatchEvent,
    check_value,
)

T = TypeVar("T")

#: Calls that wait for the thread at most; more are refused, the caller is faster than the disk.
MAX_PENDING = 100_000
#: Calls that share one transaction at most.
MAX_BATCH = 1_000
#: Events that a watcher may be behind.
MAX_WATCH_EVENTS = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS entries_by_lease ON entries (lease) WHERE lease != 0;
CREATE TABLE IF NOT EXISTS leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s REAL NOT NULL);
CREATE TABLE IF NOT EXISTS latest (revision INTEGER NOT NULL);
INSERT INTO latest SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM latest);
"""


class _Database:
    """The blocking half: used by the store's thread only."""

    def __init__(self, path: str, flushed: bool) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        run = self._connection.execute
        try:
            run("PRAGMA journal_mode=WAL")
            run(f"PRAGMA synchronous={'NORMAL' if flushed else 'OFF'}")
            self._connection.executescript(_SCHEMA)
            self._revision: int = run("SELECT revision FROM latest").fetchone()[0]
            # Leases outlive the process with their full time again: their holders could not refresh meanwhile.
            now = time.monotonic()
            self._lease_ttl: dict[int, float] = dict(run("SELECT id, ttl_s FROM leases"))
        except sqlite3.Error:
            self._connection.close()
            raise
        self._lease_end = {lease_id: now + ttl_s for lease_id, ttl_s in self._lease_ttl.items()}
        #: Changes of the open transaction.
        self.changes: list[WatchEvent] = []

    def begin(self) -> None:
        self.changes = []
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        if self.changes:
            self._connection.execute("UPDATE latest SET revision = ?", (self._revision,))
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        self.changes = []
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._revision = self._connection.execute("SELECT revision FROM latest").fetchone()[0]
        self._lease_ttl = dict(self._connection.execute("SELECT id, ttl_s FROM leases"))
        now = time.monotonic()
        self._lease_end = {i: self._lease_end.get(i, now + ttl_s) for i, ttl_s in self._lease_ttl.items()}

    def close(self) -> None:
        self._connection.close()

    def get(self, key: str) -> Entry | None:
        row = self._connection.execute("SELECT value, revision FROM entries WHERE key = ?", (key,)).fetchone()
        return Entry(key, row[0], row[1]) if row else None

    def scan(self, prefix: str) -> list[Entry]:
        rows = self._connection.execute(
            "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key", _range(prefix)
        )
        return [Entry(*row) for row in rows]

    def keys(self, prefix: str) -> list[str]:
        rows = self._connection.execute(
            "SELECT key FROM entries WHERE key >= ? AND key < ? ORDER BY key", _range(prefix)
        )
        return [row[0] for row in rows]

    def put(self, key: str, value: bytes, expected_revision: int | None, lease_id: int) -> int:
        self._compare(key, expected_revision)
        if lease_id and lease_id not in self._lease_end:
            raise LeaseExpired(lease_id)
        self._revision += 1
        self._connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE"
            " SET value = excluded.value, revision = excluded.revision, lease = excluded.lease",
            (key, value, self._revision, lease_id),
        )
        self.changes.append(WatchEvent(key, value, self._revision))
        return self._revision

    def delete(self, key: str, expected_revision: int | None) -> bool:
        self._compare(key, expected_revision)
        if not self._connection.execute("DELETE FROM entries WHERE key = ?", (key,)).rowcount:
            return False
        self._revision += 1
        self.changes.append(WatchEvent(key, None, self._revision))
        return True

    def grant_lease(self, ttl_s: float) -> int:
        lease_id = self._connection.execute("INSERT INTO leases (ttl_s) VALUES (?)", (ttl_s,)).lastrowid
        assert lease_id is not None
        self._lease_ttl[lease_id] = ttl_s
        self._lease_end[lease_id] = time.monotonic() + ttl_s
        return lease_id

    def refresh_lease(self, lease_id: int) -> None:
        if lease_id not in self._lease_end:
            raise LeaseExpired(lease_id)
        self._lease_end[lease_id] = time.monotonic() + self._lease_ttl[lease_id]

    def revoke_lease(self, lease_id: int) -> None:
        held = self._connection.execute("SELECT key FROM entries WHERE lease = ?", (lease_id,)).fetchall()
        for (key,) in held:
            self.delete(key, None)
        self._connection.execute("DELETE FROM leases WHERE id = ?", (lease_id,))
        self._lease_ttl.pop(lease_id, None)
        self._lease_end.pop(lease_id, None)

    def expire_leases(self) -> None:
        now = time.monotonic()
        for lease_id in [i for i, end in self._lease_end.items() if end <= now]:
            self.revoke_lease(lease_id)

    def lease_wait_s(self) -> float | None:
        """Seconds until the next lease ends; None = there is none."""
        if not self._lease_end:
            return None
        return max(0.0, min(self._lease_end.values()) - time.monotonic())

    def _compare(self, key: str, expected_revision: int | None) -> None:
        if expected_revision is None:
            return
        row = self._connection.execute("SELECT revision FROM entries WHERE key = ?", (key,)).fetchone()
        actual = row[0] if row else 0
        if actual != expected_revision:
            raise RevisionConflict(key, expected_revision, actual)


def _range(prefix: str) -> tuple[str, str]:
    return prefix, prefix + "\U0010ffff"


class _Call:
    __slots__ = ("error", "future", "result", "run")

    def __init__(self, run: Callable[[_Database], Any], future: asyncio.Future[Any]) -> None:
        self.run = run
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None


class SqliteMetadataStore:
    """One file; the first call opens it. Belongs to the event loop of that first call.

    The thread is a daemon: a process that forgets ``close()`` still ends, and WAL keeps every committed write.
    """

    def __init__(self, path: str | Path, *, flushed: bool = True) -> None:
        """``flushed``: to the device; False where the file is worth nothing once the machine has failed."""
        self._path = str(path)
        self._flushed = flushed
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._pending = 0
        self._watches: set[_SqliteWatch] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def get(self, key: str) -> Entry | None:
        return await self._call(lambda db: db.get(key))

    async def scan(self, prefix: str) -> list[Entry]:
        return await self._call(lambda db: db.scan(prefix))

    async def keys(self, prefix: str) -> list[str]:
        return await self._call(lambda db: db.keys(prefix))

    async def put(self, key: str, value: bytes, *, expected_revision: int | None = None, lease_id: int = 0) -> int:
        check_value(key, value)
        return await self._call(lambda db: db.put(key, value, expected_revision, lease_id))

    async def delete(self, key: str, *, expected_revision: int | None = None) -> bool:
        return await self._call(lambda db: db.delete(key, expected_revision))

    async def watch(self, prefix: str) -> _SqliteWatch:
        watch = _SqliteWatch(prefix, self._watches)
        # An empty call is a barrier: what was written before it is delivered before the watch is registered.
        await self._call(lambda db: None)
        self._watches.add(watch)
        return watch

    async def grant_lease(self, ttl_s: float) -> int:
        return await self._call(lambda db: db.grant_lease(ttl_s))

    async def refresh_lease(self, lease_id: int) -> None:
        await self._call(lambda db: db.refresh_lease(lease_id))

    async def revoke_lease(self, lease_id: int) -> None:
        await self._call(lambda db: db.revoke_lease(lease_id))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for watch in list(self._watches):
            await watch.close()
        if self._thread is not None:
            self._calls.put(None)
            await asyncio.to_thread(self._thread.join)

    def _call(self, run: Callable[[_Database], T]) -> asyncio.Future[T]:
        if self._closed:
            raise MetadataStoreError(f"the metadata store {self._path} is closed")
        if self._pending >= MAX_PENDING:
            raise MetadataStoreError(f"the metadata store {self._path} has {self._pending} calls waiting: slow down")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._serve, name="shoal-metadata", daemon=True)
            self._thread.start()
        future: asyncio.Future[T] = self._loop.create_future()
        self._pending += 1
        self._calls.put(_Call(run, future))
        return future

    # --- the thread ---

    def _serve(self) -> None:
        try:
            database = _Database(self._path, self._flushed)
        except sqlite3.Error as error:
            self._refuse_all(f"cannot open the metadata store {self._path}: {error}")
            return
        try:
            while True:
                batch, closing = self._next_batch(database.lease_wait_s())
                changes = self._run_batch(database, batch)
                self._deliver(batch, changes)
                if closing:
                    return
        finally:
            database.close()

    def _next_batch(self, wait_s: float | None) -> tuple[list[_Call], bool]:
        batch: list[_Call] = []
        with contextlib.suppress(queue.Empty):
            call = self._calls.get(timeout=wait_s)
            while call is not None:
                batch.append(call)
                if len(batch) == MAX_BATCH:
                    return batch, False
                call = self._calls.get_nowait()
            return batch, True
        return batch, False

    def _run_batch(self, database: _Database, batch: list[_Call]) -> list[WatchEvent]:
        try:
            database.begin()
            database.expire_leases()
            for call in batch:
                try:
                    call.result = call.run(database)
                except (MetadataStoreError, TypeError, ValueError) as error:
                    call.error = error  # this caller's own mistake: nothing of the call was written
            database.commit()
            return database.changes
        except Exception as error:  # a defect too: without this thread all callers would wait for ever
            for call in batch:
                call.error = MetadataStoreError(f"the metadata store {self._path} failed: {error!r}")
            with contextlib.suppress(sqlite3.Error):  # the same failure again: the next batch meets and reports it
                database.rollback()
            return []

    def _refuse_all(self, reason: str) -> None:
        while (call := self._calls.get()) is not None:
            call.error = MetadataStoreError(reason)
            self._deliver([call], [])

    def _deliver(self, batch: list[_Call], changes: list[WatchEvent]) -> None:
        assert self._loop is not None
        if batch or changes:
            with contextlib.suppress(RuntimeError):  # the loop ended without close(): nobody waits any more
                self._loop.call_soon_threadsafe(partial(self._resolve, batch, changes))

    def _resolve(self, batch: list[_Call], changes: list[WatchEvent]) -> None:
        self._pending -= len(batch)
        if self._watches:
            for change in changes:
                for watch in list(self._watches):
                    watch.offer(change)
        for call in batch:
            if call.future.cancelled():
                continue
            if call.error is not None:
                call.future.set_exception(call.error)
            else:
                call.future.set_result(call.result)


class _SqliteWatch(QueuedWatch):
    def __init__(self, prefix: str, registry: set[_SqliteWatch]) -> None:
        super().__init__(prefix)
        self._registry = registry

    def offer(self, event: WatchEvent) -> None:
        if not event.key.startswith(self._prefix):
            return
        if len(self._events) >= MAX_WATCH_EVENTS:
            self._lagged = True
            self._registry.discard(self)
        else:
            self._events.append(event)
        self._arrived.set()

    async def close(self) -> None:
        self._closed = True
        self._registry.discard(self)
        self._arrived.set()
