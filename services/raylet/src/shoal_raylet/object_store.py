"""The local object store: does what ``object_index`` decides, in the arena, on disk, with the objectstore service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from shoal_common import frames
from shoal_common.blob.client import BlobClient
from shoal_common.errors import DataLoss, NotFound, ServiceError
from shoal_proto.v1 import gcs_pb2
from shoal_raylet.actions import Send
from shoal_raylet.arena import Arena
from shoal_raylet.deadline import DeadlineTimer
from shoal_raylet.fallback_files import DiskFull, FallbackFiles
from shoal_raylet.object_entry import (
    CancelFetch,
    CopyGone,
    DeleteBlob,
    Deleted,
    Entry,
    Fetch,
    Hurry,
    Locate,
    MakeFile,
    RemoveFile,
    Restore,
    Spill,
    StoreAction,
)
from shoal_raylet.object_exchange import ObjectExchange
from shoal_raylet.object_index import ObjectIndex
from shoal_raylet.raylet_links import RayletLinks

log = structlog.get_logger(__name__)

#: Deleting the session's blobs may take this long when the raylet stops, in seconds.
CLEANUP_TIMEOUT_S = 2.0


class ObjectStore:
    """Belongs to one event loop."""

    def __init__(
        self,
        index: ObjectIndex,
        arena: Arena,
        files: FallbackFiles,
        blobs: BlobClient,
        links: RayletLinks,
        find_node: Callable[[bytes], Awaitable[gcs_pb2.NodeInfo | None]],
        send: Callable[[bytes, frames.Message], None],
        on_change: Callable[[], None],
    ) -> None:
        """``on_change`` is called when the number of used bytes has changed."""
        self.index = index
        self._arena = arena
        self._files = files
        #: One thread, so that a file that is made finds the room of those removed before.
        self._file_thread = ThreadPoolExecutor(1, "fallback-files")
        self._blobs = blobs
        self._node_hex = links.node_id.hex()
        self._send = send
        self._on_change = on_change
        self._used = 0
        self._loop = asyncio.get_running_loop()
        self._timer = DeadlineTimer(self._loop, self._tick)
        self._transfers: set[asyncio.Task[None]] = set()
        #: With the other nodes.
        self.exchange = ObjectExchange(index, arena, files, blobs, links, find_node, self._execute)
        self._handlers: dict[type[frames.Message], Callable[[bytes, Any], list[StoreAction]]] = {
            frames.ObjectCreate: self._create,
            frames.ObjectSeal: lambda peer, m: index.seal(peer, m.object_id, self._loop.time()),
            frames.ObjectAbort: lambda peer, m: index.abort(peer, m.object_id, self._loop.time()),
            frames.ObjectGet: lambda peer, m: index.get(peer, m.request, m.object_id, m.home, self._loop.time()),
            frames.ObjectPrefetch: lambda peer, m: index.prefetch(m.objects),
            frames.ObjectUnpin: lambda peer, m: index.unpin(peer, m.object_id, self._loop.time()),
            frames.ObjectFree: lambda peer, m: index.free(m.object_ids, self._loop.time()),
        }

    def handles(self, message: frames.Message) -> bool:
        return type(message) in self._handlers

    def received(self, peer: bytes, message: frames.Message) -> None:
        self._execute(self._handlers[type(message)](peer, message))
        if type(message) is frames.ObjectSeal:
            self.exchange.sealed(message.object_id)

    def peer_gone(self, peer: bytes) -> None:
        """A process's connection ended: its pins, and the objects it owned."""
        now = self._loop.time()
        self._execute(self.index.peer_gone(peer, now) + self.index.owner_gone(peer, now))

    def job_ended(self, job_id: bytes, surviving_owners: set[bytes]) -> None:
        self._execute(self.index.job_ended(job_id, surviving_owners, self._loop.time()))

    async def stop(self) -> None:
        """Ends transfers and deletes this node's spilled blobs, as far as the objectstore service answers."""
        await self.exchange.stop()
        self._timer.cancel()
        for task in self._transfers:
            task.cancel()
        await asyncio.gather(*self._transfers, return_exceptions=True)
        await self._loop.run_in_executor(self._file_thread, self._files.close)
        self._file_thread.shutdown()
        try:
            async with asyncio.timeout(CLEANUP_TIMEOUT_S):
                for job_id in self.index.spilled_jobs:
                    await self._blobs.delete(prefix=f"spill/{job_id.hex()}/{self._node_hex}/")
        except (ServiceError, TimeoutError) as error:
            log.warning("spilled_blobs_left_behind", reason=str(error) or "the objectstore service did not answer")

    def _create(self, peer: bytes, message: frames.ObjectCreate) -> list[StoreAction]:
        return self.index.create(
            peer, message.request, message.object_id, message.size, message.owner, self._loop.time()
        )

    def _tick(self) -> None:
        self._execute(self.index.tick(self._loop.time()))

    def _execute(self, actions: list[StoreAction]) -> None:
        deleted: list[bytes] = []
        for action in actions:
            match action:
                case Send(peer, message):
                    self._send(peer, message)
                case Spill():
                    self._start(self._spill(action))
                case Restore():
                    self._start(self._restore(action))
                case DeleteBlob(key):
                    self._start(self._delete_blob(key))
                case MakeFile(path, size):
                    self._start(self._make_file(path, size))
                case RemoveFile(path):
                    self._start(self._remove_file(path))
                case Locate(entry):
                    self.exchange.locate(entry)
                case Hurry(entry):
                    self.exchange.hurry(entry)
                case Fetch(entry):
                    self.exchange.room_made(entry)
                case CancelFetch(entry):
                    self.exchange.cancel(entry)
                case CopyGone(home, object_id):
                    self.exchange.copy_gone(home, object_id)
                case Deleted(object_id):
                    deleted.append(object_id)
        if deleted:
            self.exchange.deleted(deleted)
        self._timer.set(self.index.next_deadline())
        used = self.index.allocator.used
        if used != self._used:
            self._used = used
            self._on_change()

    def _start(self, transfer: Any) -> None:
        task = self._loop.create_task(transfer)
        self._transfers.add(task)
        task.add_done_callback(self._transfers.discard)

    def _bytes_of(self, entry: Entry) -> memoryview:
        assert entry.offset is not None
        return self._arena.view[entry.offset : entry.offset + entry.size]

    async def _spill(self, spill: Spill) -> None:
        error = ""
        sections = [self._bytes_of(entry) for entry in spill.entries]
        try:
            await self._blobs.put(spill.key, sections)
        except ServiceError as failure:
            error = str(failure)
            log.warning("spill_failed", key=spill.key, reason=error)
        finally:
            for section in sections:
                section.release()
        self._execute(self.index.spilled(spill.key, error, self._loop.time()))

    async def _restore(self, restore: Restore) -> None:
        entry, error = restore.entry, ""
        try:
            file = self._files.map(entry.path, entry.size) if entry.path else None
        except OSError as failure:
            file_error = f"ObjectStoreFullError: the file for object {entry.object_id.hex()} cannot be used: {failure}"
            self._execute(self.index.restored(entry, file_error, self._loop.time()))
            return
        target = self._bytes_of(entry) if file is None else memoryview(file)
        try:
            await self._blobs.get_into(restore.key, target, entry.blob_offset)
        except (NotFound, DataLoss) as failure:
            error = f"ObjectLostError: the spilled copy of object {entry.object_id.hex()} is lost: {failure}"
        except ServiceError as failure:
            error = (
                f"ObjectFetchTimedOutError: the spilled copy of object {entry.object_id.hex()} "
                f"cannot be read now: {failure}"
            )
        finally:
            target.release()
            if file is not None:
                file.close()
        self._execute(self.index.restored(entry, error, self._loop.time()))

    async def _delete_blob(self, key: str) -> None:
        try:
            await self._blobs.delete([key])
        except ServiceError as failure:
            # Nobody needs the blob any more; the end of the session deletes what is left.
            log.info("blob_not_deleted", key=key, reason=str(failure))

    async def _remove_file(self, path: str) -> None:
        await self._loop.run_in_executor(self._file_thread, self._files.remove, path)

    async def _make_file(self, path: str, size: int) -> None:
        error, disk_full = "", False
        try:
            await self._loop.run_in_executor(self._file_thread, self._files.make, path, size)
        except DiskFull as failure:
            error, disk_full = str(failure), True
        except OSError as failure:
            error = str(failure)
        if error:
            log.warning("fallback_file_not_made", size=size, reason=error)
        self._execute(self.index.file_made(path, error, disk_full))
