"""Who frees what was adopted: with other raylets and the GCS scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from shoal_common.channel import frames
from shoal_proto.v1 import gcs_pb2
from shoal_raylet.objects.directory import ObjectDirectory
from shoal_raylet.objects.entry import Entry, StoreAction
from shoal_raylet.objects.index import ObjectIndex
from shoal_raylet.transfer.homes import Homes

HERE, HOME, OTHER = b"here" * 4, b"home" * 4, b"othr" * 4
PEER = b"process"
OBJECT = b"job1" + bytes(20)


class Node:
    """One that has a complete copy of an object of `HOME`'s."""

    def __init__(self) -> None:
        self.index = ObjectIndex(64 * 1024, HERE, 10.0, "/files")
        self.index.get(PEER, 1, OBJECT, HOME, 0.0)
        [self.entry] = self.index._entries.values()
        self.index.located(self.entry, 100, b"owner", 0.0)
        self.index.fetched(self.entry, HOME, 0.0)
        self.living = {HOME, OTHER}
        #: What other raylets were told.
        self.told: list[tuple[bytes, Any]] = []
        #: What the GCS was told.
        self.reported: list[bytes] = []
        self.freed: list[bytes] = []
        self.homes = Homes(
            self.index,
            ObjectDirectory(HERE),
            SimpleNamespace(),  # type: ignore[arg-type]  # no blobs
            SimpleNamespace(node_id=HERE, tell=lambda node, message: self.told.append((node, message))),  # type: ignore[arg-type]
            SimpleNamespace(copies=self._copies, free=self._free),  # type: ignore[arg-type]
            SimpleNamespace(get=lambda node: node if node in self.living else None),  # type: ignore[arg-type]
            self._execute,
        )

    def _execute(self, actions: list[StoreAction]) -> None:
        pass

    async def _copies(self, home: bytes, object_ids: Sequence[bytes]) -> list[bytes]:
        self.reported += object_ids
        return [object_id for object_id in object_ids if object_id in self.freed]

    async def _free(self, object_ids: Iterable[bytes]) -> gcs_pb2.FreeObjectsResponse:
        self.freed += object_ids
        copies = [gcs_pb2.ObjectCopies(node_id=OTHER, object_ids=object_ids)]
        return gcs_pb2.FreeObjectsResponse(copies=copies)

    def hear(self, message: frames.Message, sender: bytes = HOME) -> None:
        connection: Any = SimpleNamespace(hello=SimpleNamespace(node_id=sender), send=lambda answer: None)
        self.homes.handlers[type(message)](connection, message)

    async def settled(self) -> Entry | None:
        await self.homes._reports.wait()
        return self.index.find(OBJECT)


def test_a_home_that_leaves_frees_what_it_has_handed_on() -> None:
    async def scenario() -> None:
        node = Node()
        node.hear(frames.CopiesAdopt(1, [OBJECT]))
        assert await node.settled() is node.entry
        assert (node.entry.home, node.reported) == (b"", [OBJECT])
        node.hear(frames.CopiesFree([OBJECT]))
        assert await node.settled() is None
        assert node.freed == [OBJECT], "the GCS forgets that it is here"

    asyncio.run(scenario())


def test_a_stranger_frees_no_primary_copy() -> None:
    async def scenario() -> None:
        node = Node()
        node.hear(frames.CopiesAdopt(1, [OBJECT]))
        node.hear(frames.CopiesFree([OBJECT]), sender=OTHER)
        assert await node.settled() is node.entry

    asyncio.run(scenario())


def test_what_a_home_may_not_have_heard_before_it_died_is_freed_again() -> None:
    async def scenario() -> None:
        node = Node()
        node.homes.free([OBJECT], HOME)
        assert node.told == [(HOME, frames.ObjectFree([OBJECT]))]
        node.living.remove(HOME)
        node.homes.node_lost(HOME)
        assert await node.settled() is None, "nor is it adopted"
        assert node.freed == [OBJECT]
        assert node.told[1:] == [(OTHER, frames.ObjectFree([OBJECT]))], "who has adopted it is told"

    asyncio.run(scenario())


def test_copies_of_a_dead_home_are_adopted_and_reported() -> None:
    async def scenario() -> None:
        node = Node()
        node.living.remove(HOME)
        node.homes.node_lost(HOME)
        assert await node.settled() is node.entry
        assert (node.entry.home, node.reported, node.freed) == (b"", [OBJECT], [])

    asyncio.run(scenario())
