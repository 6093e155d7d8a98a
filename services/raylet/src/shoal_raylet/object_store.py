"""The local object store: does what ``objects.index`` decides, in the arena, on disk, with the objectstore service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import structlog

from shoal_common.blob.local import Blobs
from shoal_common.channel import frames
from shoal_common.errors import DataLoss, NotFound, ServiceError
from shoal_common.service.background import Background
from shoal_raylet.actions import Send
from shoal_raylet.arena.arena import Arena
from shoal_raylet.arena.buffers import ObjectBytes
from shoal_raylet.arena.files import DiskFull, FallbackFiles
from shoal_raylet.arena.remote_access import RemoteAccess
from shoal_raylet.channel.connection import Connection
from shoal_raylet.deadline import DeadlineTimer
from shoal_raylet.objects.entry import (
    CancelFetch,
    Changed,
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
from shoal_raylet.objects.errors import file_unusable, spilled_copy_away, spilled_copy_lost
from shoal_raylet.objects.index import ObjectIndex
from shoal_raylet.objects.leaving import Ending
from shoal_raylet.objects.search import FETCH_TIMEOUT_S
from shoal_raylet.objects.spill_tally import SpillTally
from shoal_raylet.peers import Handlers, Peers
from shoal_raylet.transfer.exchange import ObjectExchange
from shoal_raylet.transfer.fetcher import Nodes
from shoal_raylet.transfer.links import RayletLinks
from shoal_raylet.transfer.locations import ObjectLocations
from shoal_raylet.transfer.news import News

log = structlog.get_logger(__name__)

#: Pause before the objectstore service is asked again for what it did not do, in seconds.
BLOBS_AGAIN_S = 0.5
#: Deleting the session's blobs may take this long when the raylet stops, in seconds.
CLEANUP_TIMEOUT_S = 2.0


class ObjectStore:
    """Belongs to one event loop."""

    def __init__(
        self,
        index: ObjectIndex,
        arena: Arena,
        files: FallbackFiles,
        blobs: Blobs,
        links: RayletLinks,
        locations: ObjectLocations,
        nodes: Nodes,
        peers: Peers,
        on_change: Callable[[], None],
    ) -> None:
        """``on_change`` is called when the number of used bytes has changed."""
        self.index = index
        self._bytes = ObjectBytes(arena, files)
        self._files = files
        #: One thread, so that a file that is made finds the room of those removed before.
        self._file_thread = ThreadPoolExecutor(1, "fallback-files")
        self._blobs = blobs
        self._locations = locations
        self._node_id = links.node_id
        self._peers = peers
        self._on_change = on_change
        self.tally = SpillTally()
        self._used = 0
        self._stopped = False
        #: This node's objects are being handed over, or have been.
        self._leaving = False
        self._loop = asyncio.get_running_loop()
        self._timer = DeadlineTimer(self._loop, self._tick)
        self._transfers = Background()
        #: Objects that are to be restored, and why their blobs cannot be read now.
        self._unreadable: dict[bytes, str] = {}
        news = News(index, links.node_id, peers.catch_up)
        #: With the other nodes.
        self.exchange = ObjectExchange(index, self._bytes, blobs, links, locations, nodes, news, self._execute)
        self._remote = RemoteAccess(index, arena, self._file_thread, peers.send)
        self._deciders: dict[type[frames.Message], Callable[[bytes, Any], list[StoreAction]]] = {
            frames.ObjectCreate: self._create,
            frames.ObjectSeal: lambda peer, m: index.seal(peer, m.object_id, self._loop.time()),
            frames.PieceGet: lambda peer, m: index.grant_piece(peer, m.request, m.size),
            frames.ObjectPlaced: lambda peer, m: index.place(
                peer, m.object_id, m.offset, m.size, m.owner, self._loop.time()
            ),
            frames.PieceReturned: lambda peer, m: index.give_back(peer, m.offset, m.size, self._loop.time()),
            frames.ObjectAbort: lambda peer, m: index.abort(peer, m.object_id, self._loop.time()),
            frames.ObjectGet: lambda peer, m: index.get(peer, m.request, m.object_id, m.home, self._loop.time()),
            frames.ObjectGetEnd: lambda peer, m: index.end_get(
                peer, m.request, m.object_id, self._problem(m.object_id)
            ),
            frames.ObjectPrefetch: lambda peer, m: index.prefetch(m.objects, self._loop.time()),
            frames.ObjectUnpin: lambda peer, m: index.unpin(peer, m.object_id, self._loop.time()),
            frames.ObjectFree: self._free,
        }
        #: Of messages from processes.
        self.handlers: Handlers = {
            **dict.fromkeys(self._deciders, self._decide),
            frames.ObjectGet: news.first(self._decide),
            frames.ObjectFree: news.first(self._decide),
            frames.ObjectWrite: lambda c, m: self._remote.write(c.worker_id, m),
            frames.ObjectRead: lambda c, m: self._remote.read(c.worker_id, m),
        }

    def _decide(self, connection: Connection, message: frames.Message) -> None:
        self._execute(self._deciders[type(message)](connection.worker_id, message))

    def peer_gone(self, peer: bytes) -> None:
        """A process's connection ended: its pins, and the objects it owned.

        When this node leaves, owners elsewhere end their connections for that reason, and still need their objects.
        """
        now = self._loop.time()
        gone = [] if self._leaving else self.index.owner_gone(peer, now)
        self._execute(self.index.peer_gone(peer, now) + gone)

    def job_ended(self, job_id: bytes, surviving_owners: set[bytes]) -> None:
        self._execute(self.index.job_ended(job_id, surviving_owners, self._loop.time()))

    async def hand_over(self, ending: Ending) -> None:
        """This node leaves the cluster: what others may still need goes to nodes that have copies, or else to blobs.

        Whatever keeps objects from being spilled is
        waited out: the caller says how long.
        """
        self._leaving = True
        await self._transfers.wait()  # what is being spilled, and is not in the end, is among the rest
        left = await self.exchange.homes.hand_over(ending)
        while left := [entry for entry in left if entry.blob is None and not entry.deleted]:
            if not await self._spill(self.index.save(left)):
                await asyncio.sleep(BLOBS_AGAIN_S)
        # Of what was deleted so far the GCS has not heard, and without this node it is the one that deletes the blobs.
        shrunk = self.index.shrunk(ending)
        await asyncio.gather(*(self._tell_shrunk(key, kept) for key, kept in shrunk))
        await self._transfers.wait()

    async def stop(self, *, delete_blobs: bool) -> None:
        """Ends transfers. ``delete_blobs``: this node's spilled ones, as far as the objectstore service answers; nobody
        can need them, because the cluster ends."""
        self._stopped = True
        await self.exchange.stop()
        self._timer.cancel()
        await self._transfers.stop()
        await self._remote.stop()
        await self._loop.run_in_executor(self._file_thread, self._files.close)
        self._file_thread.shutdown()
        if not delete_blobs:
            return
        try:
            async with asyncio.timeout(CLEANUP_TIMEOUT_S):
                for job_id in self.index.spilled_jobs:
                    await self._blobs.delete(prefix=f"spill/{job_id.hex()}/{self._node_id.hex()}/")
        except (ServiceError, TimeoutError) as error:
            log.warning("spilled_blobs_left_behind", reason=str(error) or "the objectstore service did not answer")

    def _create(self, peer: bytes, message: frames.ObjectCreate) -> list[StoreAction]:
        return self.index.create(
            peer, message.request, message.object_id, message.size, message.owner, self._loop.time()
        )

    def _free(self, peer: bytes, message: frames.ObjectFree) -> list[StoreAction]:
        if message.home and message.home != self._node_id:
            self.exchange.homes.free(message.object_ids, message.home)
            return []
        return self.index.free(message.object_ids, self._loop.time())

    def _tick(self) -> None:
        self._execute(self.index.tick(self._loop.time()))

    def _execute(self, actions: list[StoreAction]) -> None:
        if self._stopped:
            # Owners whose connections end after that free what they had here, and nobody would wait for what follows.
            return
        deleted: list[bytes] = []
        for action in actions:
            match action:
                case Send(peer, message):
                    self._peers.send(peer, message)
                case Changed(object_id):
                    self.exchange.changed(object_id)
                case Spill():
                    self._transfers.spawn(self._spill(action))
                case Restore():
                    self._transfers.spawn(self._restore(action))
                case DeleteBlob(key):
                    self._transfers.spawn(self._delete_blob(key))
                case MakeFile(path, size):
                    self._transfers.spawn(self._make_file(path, size))
                case RemoveFile(path):
                    self._transfers.spawn(self._remove_file(path))
                case Locate(entry):
                    self.exchange.fetcher.locate(entry)
                case Hurry(entry):
                    self.exchange.fetcher.hurry(entry)
                case Fetch(entry):
                    self.exchange.fetcher.room_made(entry)
                case CancelFetch(entry):
                    self.exchange.fetcher.cancel(entry)
                case CopyGone(home, object_id):
                    self.exchange.homes.copy_gone(home, object_id)
                case Deleted(object_id):
                    deleted.append(object_id)
        if deleted:
            self.exchange.homes.deleted(deleted)
        self._timer.set(self.index.next_deadline())
        used = self.index.allocator.used
        if used != self._used:
            self._used = used
            self._on_change()

    async def _spill(self, spill: Spill) -> bool:
        """Whether it is written, and the GCS knows."""
        error = ""
        try:
            with ExitStack() as stack:
                sections = [stack.enter_context(self._bytes.of(entry)) for entry in spill.entries]
                await self._blobs.put(spill.key, sections)
            await self._locations.spilled(spill.key, spill.entries, self._nodes_of_processes())
        except (ServiceError, OSError) as failure:
            error = str(failure)
            log.warning("spill_failed", key=spill.key, reason=error)
            self.tally.failed(error, self._loop.time())
        else:
            self.tally.spilled(len(spill.entries), sum(entry.size for entry in spill.entries), self._loop.time())
        self._execute(self.index.spilled(spill.key, error, self._loop.time()))
        return not error

    def _nodes_of_processes(self) -> dict[bytes, bytes]:
        """Of those that are connected here, as is every owner that has had something made here."""
        return {hello.worker_id: hello.node_id for hello in self._peers.hellos()}

    async def _tell_shrunk(self, key: str, kept: list[Entry]) -> None:
        if not kept:
            await self._delete_blob(key)
            return
        try:
            await self._locations.spilled(key, kept, self._nodes_of_processes())
        except ServiceError as failure:
            # The end of the job deletes it.
            log.info("blob_not_shrunk", key=key, reason=str(failure))

    async def _restore(self, restore: Restore) -> None:
        entry, error = restore.entry, None
        try:
            with self._bytes.of(entry) as target:
                await self._read_blob(restore, target)
        except OSError as failure:
            error = file_unusable(entry.object_id, failure)
        except (NotFound, DataLoss) as failure:
            error = spilled_copy_lost(failure)
        except ServiceError as failure:
            error = spilled_copy_away(failure)
        now = self._loop.time()
        if error is None:
            self.tally.restored(entry.size, now)
        else:
            self.tally.failed(error.text, now)
        self._execute(self.index.restored(entry, error, now))

    async def _read_blob(self, restore: Restore, target: memoryview) -> None:
        """While anybody waits for the object, the objectstore service is waited for. Raises: ServiceError."""
        entry = restore.entry
        deadline = self._loop.time() + FETCH_TIMEOUT_S
        try:
            while True:
                try:
                    return await self._blobs.get_into(restore.key, target, entry.blob_offset)
                except (NotFound, DataLoss):
                    raise
                except ServiceError as failure:
                    if not entry.getters or self._leaving or self._loop.time() >= deadline:
                        raise
                    if entry.object_id not in self._unreadable:
                        log.warning("restore_waits", key=restore.key, reason=str(failure))
                    self._unreadable[entry.object_id] = f"its spilled copy cannot be read now: {failure}"
                await asyncio.sleep(BLOBS_AGAIN_S)
        finally:
            self._unreadable.pop(entry.object_id, None)

    def explain(self, object_id: bytes) -> str:
        """What has become of an object at this node, for humans."""
        entry = self.index.find(object_id)
        if entry is None:
            return "there is no copy, and none is on its way"
        if entry.sealed and entry.offset is not None and not entry.arriving:
            return "there is a copy"
        if problem := self._problem(object_id):
            return problem
        if entry.arriving and entry.home and entry.blob is None:
            return f"it is looked for, waits for room, or is on its way, from node {entry.home.hex()}"
        if entry.blob is not None:
            return f"it is spilled in {entry.blob.key}{', and is being restored' if entry.arriving else ''}"
        return "it is being written"

    def _problem(self, object_id: bytes) -> str:
        """What keeps an object from coming here, as far as it is known; "" = nothing does."""
        return self._unreadable.get(object_id) or self.exchange.fetcher.problem(object_id)

    async def _delete_blob(self, key: str) -> None:
        try:
            await self._locations.forget_blob(key)
            await self._blobs.delete([key])
        except ServiceError as failure:
            # Nobody needs the blob any more; the end of the job deletes what is left.
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
