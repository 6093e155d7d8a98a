"""Keeps the rows of the object table, and answers raylets from it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Container, Iterable

from shoal_common.errors import DeadlineExceeded, InvalidRequest, NotFound
from shoal_common.ids import job_of
from shoal_gcs.objects.table import Batch, Location, LocationTable
from shoal_gcs.store.rows import Rows, message, written
from shoal_proto.v1 import gcs_pb2

#: A question waits for reports so long at most, in seconds.
MAX_WAIT_S = 10.0
#: While reports are awaited it is looked again after so many seconds at the latest.
_LOOK_AGAIN_S = 0.5
_BLOB_PREFIX = "spill/"


class ObjectManager:
    def __init__(self, *, blob_rows: Rows, copy_rows: Rows) -> None:
        """Rows are ``<job>/<node>/<blob>``, and ``<job>/<node>/<number>`` of the copies that a node reports."""
        self._table = LocationTable()
        self._blob_rows = blob_rows
        self._copy_rows = copy_rows
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()

    async def load(self, *, after_deaths: bool) -> None:
        """``after_deaths``: nodes have died, and an earlier GCS may not have heard from all others what they have."""
        spilled = message(gcs_pb2.ReportSpilledRequest, lambda row: row.key.removeprefix(_BLOB_PREFIX))
        for row in await self._blob_rows.load(spilled):
            self._table.add(_blob_batch(row))
        highest = 0
        for batch, number in await self._copy_rows.load(_read_copies):
            self._table.add(batch)
            highest = max(highest, number)
        self._numbers = itertools.count(highest + 1)
        if after_deaths:
            self._table.taken_over(asyncio.get_running_loop().time())

    async def spilled(self, request: gcs_pb2.ReportSpilledRequest) -> None:
        """Raises: InvalidRequest, Unavailable."""
        row_id = _row_of(request.key)
        if request.job_id.hex() != row_id.partition("/")[0] or not request.objects:
            raise InvalidRequest("a blob has objects, and is named after their job")
        save = self._blob_rows.put(row_id, request.SerializeToString())
        await written([save])
        self._table.add(_blob_batch(request))
        self._wake()

    async def forget_blob(self, key: str) -> None:
        """Raises: Unavailable."""
        row_id = _row_of(key)
        if self._table.forget_blob(row_id):
            await written([self._blob_rows.delete(row_id)])

    async def copies(self, request: gcs_pb2.ReportCopiesRequest) -> list[bytes]:
        """Returns those that nobody needs any more. Raises: Unavailable."""
        by_job: dict[bytes, list[bytes]] = {}
        for object_id in request.object_ids:
            by_job.setdefault(job_of(object_id), []).append(object_id)
        batches = []
        for job_id, object_ids in by_job.items():
            row_id = f"{job_id.hex()}/{request.node_id.hex()}/{next(self._numbers)}"
            batches.append(_copy_batch(row_id, request.node_id, object_ids))
        await written(self._write_rows(batches))
        for batch in batches:
            self._table.add(batch)
        if not request.more:
            self._table.reported(request.node_id, request.home_node_id)
        self._wake()
        late = self._table.freed_of(request.object_ids)
        if late:
            await self.free(late)
        return late

    async def locate(self, object_id: bytes, wait_ms: int) -> Location:
        """Raises: NotFound when it is nowhere, DeadlineExceeded when that is not certain yet."""
        await self._until_settled(wait_ms, lambda: self._table.locate(object_id) is not None)
        location = self._table.locate(object_id)
        if location is None:
            raise NotFound(f"no node has object {object_id.hex()}, and it was not spilled")
        return location

    async def lost(self, object_ids: Iterable[bytes], wait_ms: int) -> list[bytes]:
        """Those of dead homes that are nowhere. Raises: DeadlineExceeded when that is not certain yet."""
        await self._until_settled(wait_ms, lambda: False)
        return [object_id for object_id in object_ids if self._table.locate(object_id) is None]

    async def _until_settled(self, wait_ms: int, found: Callable[[], bool]) -> None:
        """Or found before. Raises: DeadlineExceeded."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(wait_ms / 1000, MAX_WAIT_S)
        while not found():
            now = loop.time()
            if self._table.is_settled(now):
                return
            if now >= deadline:
                silent = ", ".join(sorted(node_id.hex() for node_id in self._table.awaited()))
                raise DeadlineExceeded(f"not all nodes have told what they have of a dead one's objects ({silent})")
            changed = self._changed
            try:
                async with asyncio.timeout(min(deadline - now, _LOOK_AGAIN_S)):
                    await changed.wait()
            except TimeoutError:
                pass

    async def free(self, object_ids: Iterable[bytes]) -> gcs_pb2.FreeObjectsResponse:
        """Raises: Unavailable."""
        freed = self._table.free(object_ids)
        await written(self._delete_rows(freed.batches) + self._write_rows(freed.shrunk))
        return gcs_pb2.FreeObjectsResponse(
            blob_keys=[batch.blob_key for batch in freed.batches if batch.blob_key],
            copies=[gcs_pb2.ObjectCopies(node_id=node_id, object_ids=ids) for node_id, ids in freed.copies.items()],
        )

    def jobs(self) -> set[bytes]:
        """The jobs that have rows."""
        return self._table.jobs()

    def forget_job(self, job_id: bytes) -> None:
        self._delete_rows(self._table.forget_job(job_id))

    def node_died(self, node_id: bytes, living: set[bytes]) -> tuple[list[asyncio.Future[None]], list[str]]:
        """``living``: the others. Returns the writes that follow from it, and the keys of the blobs that nobody needs
        any more."""
        gone = self._table.node_died(node_id, living, asyncio.get_running_loop().time())
        saves, blob_keys = self._free_spilled(self._table.ownerless(living))
        return self._delete_rows(gone) + saves, blob_keys

    def owner_died(self, owner_id: bytes, living: Container[bytes]) -> tuple[list[asyncio.Future[None]], list[str]]:
        """A process alone, whose node lives: raylets free what it owned, but not what dead nodes had spilled of it.
        ``living``: the nodes that are not dead. Returns as ``node_died``."""
        return self._free_spilled(self._table.owned_by(owner_id, living))

    def _free_spilled(self, object_ids: list[bytes]) -> tuple[list[asyncio.Future[None]], list[str]]:
        freed = self._table.free(object_ids)
        saves = self._delete_rows(freed.batches) + self._write_rows(freed.shrunk)
        return saves, [batch.blob_key for batch in freed.batches if batch.blob_key]

    def _delete_rows(self, batches: list[Batch]) -> list[asyncio.Future[None]]:
        return [(self._blob_rows if batch.blob_key else self._copy_rows).delete(batch.row_id) for batch in batches]

    def _write_rows(self, batches: list[Batch]) -> list[asyncio.Future[None]]:
        return [
            self._blob_rows.put(batch.row_id, _blob_row(batch).SerializeToString())
            if batch.blob_key
            else self._copy_rows.put(batch.row_id, _copy_row(batch).SerializeToString())
            for batch in batches
        ]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _row_of(blob_key: str) -> str:
    if not blob_key.startswith(_BLOB_PREFIX):
        raise InvalidRequest(f"{blob_key!r} is not the key of a spilled blob")
    return blob_key.removeprefix(_BLOB_PREFIX)


def _blob_batch(row: gcs_pb2.ReportSpilledRequest) -> Batch:
    objects = {
        each.object_id: Location(
            blob_key=row.key,
            offset=each.offset,
            size=each.size_bytes,
            owner_id=each.owner_id,
            owner_node_id=each.owner_node_id,
        )
        for each in row.objects
    }
    return Batch(_row_of(row.key), row.job_id, row.node_id, row.key, objects)


def _blob_row(batch: Batch) -> gcs_pb2.ReportSpilledRequest:
    row = gcs_pb2.ReportSpilledRequest(job_id=batch.job_id, node_id=batch.node_id, key=batch.blob_key)
    for object_id, location in batch.objects.items():
        row.objects.add(
            object_id=object_id,
            owner_id=location.owner_id,
            offset=location.offset,
            size_bytes=location.size,
            owner_node_id=location.owner_node_id,
        )
    return row


def _copy_batch(row_id: str, node_id: bytes, object_ids: Iterable[bytes]) -> Batch:
    location = Location(node_id=node_id)
    return Batch(row_id, bytes.fromhex(row_id.partition("/")[0]), node_id, "", dict.fromkeys(object_ids, location))


def _read_copies(row_id: str, value: bytes) -> tuple[Batch, int]:
    """With the number of the row. Raises: ValueError, DecodeError."""
    copies = gcs_pb2.ReportCopiesRequest.FromString(value)
    _, node, number = row_id.split("/")
    if copies.node_id.hex() != node:
        raise ValueError("it is no ReportCopiesRequest of this node")
    return _copy_batch(row_id, copies.node_id, copies.object_ids), int(number)


def _copy_row(batch: Batch) -> gcs_pb2.ReportCopiesRequest:
    return gcs_pb2.ReportCopiesRequest(node_id=batch.node_id, object_ids=batch.objects)
