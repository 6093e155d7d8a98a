"""Carries out what the table of named objects decides: rows, and blobs that nobody can name any more are deleted.

A worker stores the value first, as blobs in a place of its own, and then has it named here. What it has stored when it
is killed in between, or is refused, is deleted here: at once, or after the end of its job.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine

from shoal_common import named_objects
from shoal_common.errors import InvalidRequest, PreconditionFailed, ResourceExhausted
from shoal_common.service.background import Background
from shoal_gcs.named_objects import messages
from shoal_gcs.named_objects.table import Changes, NamedObject, NamedObjectTable, Scope
from shoal_gcs.store.rows import Rows, message, written
from shoal_proto.v1 import gcs_pb2 as pb

MAX_NAME_BYTES = 512
#: A timer is not set for later than so many seconds: it looks again then.
_LONGEST_TIMER_S = 3600.0


class NamedObjectManager:
    """Belongs to one event loop. All methods that wait raise: Unavailable (the store does not take it)."""

    def __init__(
        self,
        *,
        table: NamedObjectTable,
        rows: Rows,
        background: Background,
        delete_blobs: Callable[[str], Coroutine[None, None, object]],
        may_store: Callable[[bytes], bool],
        is_kept: Callable[[Scope], bool],
    ) -> None:
        """``delete_blobs`` takes a prefix. ``may_store``: whether a job's processes may still run. ``is_kept``: whether
        there is such a named job."""
        self._table = table
        self._rows = rows
        self._background = background
        self._delete_blobs = delete_blobs
        self._may_store = may_store
        self._is_kept = is_kept
        self._timer: asyncio.TimerHandle | None = None

    async def load(self) -> None:
        infos = await self._rows.load(message(pb.NamedObjectInfo, messages.row_id_of))
        self._table.load(map(messages.object_of_row, infos))
        self._expire()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def put(self, info: pb.NamedObjectInfo, job_id: bytes, ttl_ms: int) -> None:
        """Idempotent by its place. Raises: InvalidRequest, PreconditionFailed, ResourceExhausted."""
        if not 1 <= len(info.name.encode()) <= MAX_NAME_BYTES:
            raise InvalidRequest(f"the name of an object has 1 to {MAX_NAME_BYTES} bytes as UTF-8")
        if not named_objects.is_place(info.place) or not info.place.startswith(job_id.hex()) or info.size_bytes < 0:
            raise InvalidRequest(f"{info.place!r} is no place of a named object of this job")
        if not info.job and ttl_ms <= 0:
            raise InvalidRequest("an object of no job needs a time for which it is kept")
        now = _unix_ms()
        scope = Scope(info.namespace, info.job)
        new = NamedObject(scope, info.name, info.place, info.size_bytes, now, now + ttl_ms if ttl_ms > 0 else 0)
        try:
            if not self._may_store(job_id):
                raise PreconditionFailed(f"job {job_id.hex()} has ended")
            if not new.end_unix_ms and not self._is_kept(scope):
                raise PreconditionFailed(f"there is no job named {info.job!r} in namespace {info.namespace!r}")
            self._expire()
            changes = self._table.put(new)
        except (PreconditionFailed, ResourceExhausted):
            self._delete(new)
            raise
        await written(self._write(changes))

    def get(self, scope: Scope, name: str) -> NamedObject | None:
        return self._table.get(scope, name, _unix_ms())

    def of(self, scope: Scope) -> list[NamedObject]:
        """By name."""
        now = _unix_ms()
        living = (each for each in self._table.of(scope).values() if not 0 < each.end_unix_ms <= now)
        return sorted(living, key=lambda each: each.name)

    def job_over(self, scope: Scope) -> list[asyncio.Future[None]]:
        """Returns the writes that an answer must wait for."""
        return self._write(self._table.job_over(scope))

    def has_place(self, place: str) -> bool:
        """Whether something is named that lies there."""
        return self._table.has_place(place)

    def end_orphans(self) -> None:
        """After all is loaded: an earlier GCS may not have carried out the end of a job."""
        for scope in self._table.scopes():
            if scope.job and not self._is_kept(scope):
                self.job_over(scope)

    def _write(self, changes: Changes) -> list[asyncio.Future[None]]:
        saves = []
        for each in changes.written:
            info = messages.object_info(each)
            saves.append(self._rows.put(messages.row_id_of(info), info.SerializeToString()))
        for each in changes.gone:
            saves.append(self._rows.delete(messages.row_id_of(messages.object_info(each))))
        for each in (*changes.gone, *changes.replaced):
            self._delete(each)
        self._set_timer()
        return saves

    def _delete(self, gone: NamedObject) -> None:
        self._background.spawn(self._delete_blobs(named_objects.prefix_of(gone.place)))

    def _expire(self) -> None:
        self._write(self._table.expire(_unix_ms()))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        end = self._table.next_end_unix_ms()
        if end is not None:
            delay_s = min(max(0.0, (end - _unix_ms()) / 1000), _LONGEST_TIMER_S)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._expire)


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000
