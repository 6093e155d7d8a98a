"""Objects between nodes: copies are fetched from other raylets, and served to them.

Its home knows who else has copies of an object (``objects.directory``), so whoever needs one asks there first
(``objects.search``), then reads chunks from the nodes that it is given (``objects.pulls``), and can pass on at once
what it has got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from shoal_common.blob.local import Blobs
from shoal_common.channel import frames
from shoal_raylet.arena.buffers import ObjectBytes
from shoal_raylet.channel.connection import Connection
from shoal_raylet.objects.directory import ObjectDirectory
from shoal_raylet.objects.entry import StoreAction
from shoal_raylet.objects.index import ObjectIndex
from shoal_raylet.transfer.copy_server import CopyServer
from shoal_raylet.transfer.fetcher import Fetcher, Nodes
from shoal_raylet.transfer.homes import Homes
from shoal_raylet.transfer.links import RayletLinks
from shoal_raylet.transfer.locations import ObjectLocations
from shoal_raylet.transfer.news import News


class ObjectExchange:
    """Puts the parts together, and gives them the messages of other raylets. Belongs to one event loop. ``execute``
    carries out what the index decides."""

    def __init__(
        self,
        index: ObjectIndex,
        object_bytes: ObjectBytes,
        blobs: Blobs,
        links: RayletLinks,
        locations: ObjectLocations,
        nodes: Nodes,
        news: News,
        execute: Callable[[list[StoreAction]], None],
    ) -> None:
        self._links = links
        directory = ObjectDirectory(links.node_id)
        self.homes = Homes(index, directory, blobs, links, locations, nodes, execute)
        self.fetcher = Fetcher(
            index,
            object_bytes,
            blobs,
            links,
            locations,
            nodes,
            execute,
            on_fetched=self.homes.fetched,
            on_part=self.changed,
        )
        now = asyncio.get_running_loop().time
        self._server = CopyServer(index, object_bytes, directory, self.fetcher.has, now, execute)
        self.handlers: Mapping[type[frames.Message], Callable[[Connection, Any], None]] = {
            **self._server.handlers,
            **self.homes.handlers,
            frames.ObjectLocate: news.first(self._server.handlers[frames.ObjectLocate]),
            frames.ObjectFree: news.first(self.homes.handlers[frames.ObjectFree]),
        }

    async def stop(self) -> None:
        await self.fetcher.stop()
        await self.homes.stop()
        await self._links.stop()

    def connected(self, connection: Connection) -> None:
        self._server.connected(connection)

    def closed(self, connection: Connection) -> None:
        self._server.closed(connection)

    def changed(self, object_id: bytes) -> None:
        """Nodes that wait for it are answered, or wait on."""
        self._server.changed(object_id)

    def node_lost(self, node_id: bytes) -> None:
        """It is dead, or has left."""
        self.homes.node_lost(node_id)
        self._links.node_lost(node_id)
        self.fetcher.node_lost(node_id)
