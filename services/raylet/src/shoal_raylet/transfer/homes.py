"""Which node has the primary copy of an object, when that changes: a home leaves or dies, and another one adopts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Any

import structlog

from shoal_common.blob.local import Blobs
from shoal_common.channel import frames
from shoal_common.errors import ServiceError
from shoal_common.service.background import Background
from shoal_raylet.channel.connection import Connection
from shoal_raylet.objects.directory import ObjectDirectory
from shoal_raylet.objects.entry import Entry, StoreAction
from shoal_raylet.objects.index import ObjectIndex
from shoal_raylet.objects.leaving import Ending
from shoal_raylet.objects.recent_frees import RecentFrees
from shoal_raylet.transfer.copy_server import node_of
from shoal_raylet.transfer.fetcher import Nodes
from shoal_raylet.transfer.links import LinkLost, RayletLinks
from shoal_raylet.transfer.locations import ObjectLocations

log = structlog.get_logger(__name__)

#: Whoever is asked to adopt copies tells the GCS before it answers.
_ADOPT_TIMEOUT_S = 10.0


class Homes:
    """Belongs to one event loop. ``execute`` carries out what the index decides."""

    def __init__(
        self,
        index: ObjectIndex,
        directory: ObjectDirectory,
        blobs: Blobs,
        links: RayletLinks,
        locations: ObjectLocations,
        nodes: Nodes,
        execute: Callable[[list[StoreAction]], None],
    ) -> None:
        self._index = index
        self._directory = directory
        self._blobs = blobs
        self._links = links
        self._locations = locations
        self._nodes = nodes
        self._execute = execute
        self._loop = asyncio.get_running_loop()
        self._reports = Background()
        self._frees = RecentFrees()
        self.handlers: dict[type[frames.Message], Callable[[Connection, Any], None]] = {
            frames.CopiesFree: self._copies_free,
            frames.CopiesAdopt: self._copies_adopt,
            frames.ObjectFree: self._objects_free,
        }

    async def stop(self) -> None:
        await self._reports.stop()

    # --- copies of this node's objects ---

    def copy_gone(self, home: bytes, object_id: bytes) -> None:
        """The copy here is no more."""
        self._links.tell(home, frames.CopiesGone([object_id]))

    def deleted(self, object_ids: Iterable[bytes]) -> None:
        """Primary copies are no more: those who have others drop them."""
        holders: dict[bytes, list[bytes]] = {}
        for object_id in object_ids:
            for node_id in self._directory.forget(object_id):
                holders.setdefault(node_id, []).append(object_id)
        for node_id, ids in holders.items():
            self._links.tell(node_id, frames.CopiesFree(ids))

    async def hand_over(self, ending: Ending) -> list[Entry]:
        """This node leaves the cluster: copies elsewhere become primary. The objects that have none are returned."""
        left: list[Entry] = []
        by_holder: dict[bytes, list[Entry]] = {}
        for entry in self._index.only_here(ending):
            holders = [node for node in self._directory.complete_copies(entry.object_id) if self._nodes.get(node)]
            if holders:
                by_holder.setdefault(holders[0], []).append(entry)
            else:
                left.append(entry)

        async def ask(holder: bytes, entries: list[Entry]) -> None:
            question = frames.CopiesAdopt(0, [entry.object_id for entry in entries])
            adopted: set[bytes] = set()
            try:
                answer: frames.CopiesAdopted = await self._links.ask(holder, question, _ADOPT_TIMEOUT_S)
                adopted.update(answer.object_ids)
            except LinkLost as error:
                log.info("copies_not_adopted", node_id=holder.hex(), reason=str(error))
            left.extend(entry for entry in entries if entry.object_id not in adopted)

        await asyncio.gather(*(ask(holder, entries) for holder, entries in by_holder.items()))
        return left

    # --- copies here of other nodes' objects ---

    def fetched(self, entry: Entry, home: bytes) -> None:
        """A copy is here."""
        if self._nodes.get(home) is not None:
            self._links.tell(home, frames.CopyMade(entry.object_id))
        elif not entry.deleted:
            # The home has died meanwhile.
            self._index.adopt(entry)
            self._reports.spawn(self._report_copies(home, [entry.object_id]))

    def node_lost(self, node_id: bytes) -> None:
        """It is dead, or has left: copies of its objects that are here are the primary ones now."""
        unheard = self._frees.take(node_id, self._loop.time())
        if unheard:
            self._reports.spawn(self._free_elsewhere(unheard))
        orphans = [entry for entry in self._index.copies() if self._nodes.get(entry.home) is None]
        unneeded = [entry.object_id for entry in orphans if entry.home == node_id and entry.object_id in unheard]
        self._execute(self._index.free(unneeded, self._loop.time()))
        orphans = [entry for entry in orphans if not entry.deleted]
        for entry in orphans:
            self._index.adopt(entry)
        self._reports.spawn(self._report_copies(node_id, [entry.object_id for entry in orphans]))
        self._directory.node_lost(node_id)

    def free(self, object_ids: list[bytes], home: bytes) -> None:
        """The owner needs these no more, whose home is another node."""
        if self._nodes.get(home) is not None:
            self._links.tell(home, frames.ObjectFree(object_ids))
            self._frees.told(home, object_ids, self._loop.time())
        else:
            self._reports.spawn(self._free_orphans(object_ids))

    async def _report_copies(self, home: bytes, object_ids: list[bytes]) -> None:
        try:
            freed = await self._locations.copies(home, object_ids)
            self._execute(self._index.free(freed, self._loop.time()))
        except ServiceError as error:
            log.error("copies_not_reported", home=home.hex(), objects=len(object_ids), reason=str(error))

    async def _free_orphans(self, object_ids: list[bytes]) -> None:
        await self._free_elsewhere(object_ids)
        # Those that are here, adopted or not.
        self._execute(self._index.free(object_ids, self._loop.time()))

    async def _free_elsewhere(self, object_ids: Collection[bytes]) -> None:
        """What other nodes have adopted, and what is in blobs of a dead one."""
        try:
            freed = await self._locations.free(object_ids)
            if freed.blob_keys:
                await self._blobs.delete(list(freed.blob_keys))
        except ServiceError as error:
            # The end of the job deletes them.
            log.info("objects_not_freed", objects=len(object_ids), reason=str(error))
            return
        for copies in freed.copies:
            if copies.node_id != self._links.node_id:
                self._links.tell(copies.node_id, frames.ObjectFree(list(copies.object_ids)))

    # --- what other raylets say ---

    def _copies_free(self, connection: Connection, message: frames.CopiesFree) -> None:
        """The home has deleted its own. A primary copy here is another one, made anew, unless the home has asked this
        node to adopt it: it is leaving."""
        entries = [entry for entry in map(self._index.find, message.object_ids) if entry is not None]
        copies = [entry.object_id for entry in entries if entry.home]
        adopted = [entry.object_id for entry in entries if not entry.home and entry.adopted_from == node_of(connection)]
        self._execute(self._index.free(copies, self._loop.time()))
        if adopted:
            self._reports.spawn(self._free_orphans(adopted))

    def _copies_adopt(self, connection: Connection, message: frames.CopiesAdopt) -> None:
        entries = [entry for entry in map(self._index.find, message.object_ids) if entry is not None and entry.sealed]
        for entry in entries:
            self._index.adopt(entry)
        self._reports.spawn(self._adopt(connection, message.request, [entry.object_id for entry in entries]))

    async def _adopt(self, connection: Connection, request: int, object_ids: list[bytes]) -> None:
        try:
            if object_ids:
                freed = await self._locations.copies(node_of(connection), object_ids)
                self._execute(self._index.free(freed, self._loop.time()))
        except ServiceError as error:
            log.warning("copies_not_adopted", objects=len(object_ids), reason=str(error))
            object_ids = []
        connection.send(frames.CopiesAdopted(request, object_ids))

    def _objects_free(self, connection: Connection, message: frames.ObjectFree) -> None:
        """Another node's owner needs these no more; it has asked its own raylet to tell."""
        self._execute(self._index.free(message.object_ids, self._loop.time()))
