"""The shell of the objects, with everything around it scripted."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from shoal_common.channel import frames
from shoal_raylet.arena.arena import Arena
from shoal_raylet.object_store import ObjectStore
from shoal_raylet.objects.index import ObjectIndex

NODE, OWNER = b"node" * 4, b"ownr" * 4
SIZE = 48 * 1024


class Blobs:
    def __init__(self) -> None:
        self.put_keys: list[str] = []
        self.deleted: list[str] = []

    async def put(self, key: str, sections: object) -> None:
        self.put_keys.append(key)

    async def delete(self, keys: list[str]) -> None:
        self.deleted += keys


async def _told(*_: object) -> None:
    """The GCS has heard it."""


def _store(blobs: Any) -> ObjectStore:
    ignored = lambda *_: None  # noqa: E731
    links: Any = SimpleNamespace(node_id=NODE, stop=lambda: asyncio.sleep(0))
    files: Any = SimpleNamespace(close=ignored)
    locations: Any = SimpleNamespace(spilled=_told, forget_blob=_told)
    peers: Any = SimpleNamespace(send=ignored, hellos=tuple, catch_up=ignored)
    nodes: Any = SimpleNamespace()
    index = ObjectIndex(64 * 1024, NODE, 10.0, "/files")
    return ObjectStore(index, Arena(64 * 1024), files, blobs, links, locations, nodes, peers, ignored)


async def _owner_goes(*, after_the_store: bool) -> Blobs:
    blobs = Blobs()
    store = _store(blobs)
    connection: Any = SimpleNamespace(worker_id=OWNER)
    for number in (1, 2):  # the second one needs the room of the first
        object_id = bytes([number]) * 24
        store._decide(connection, frames.ObjectCreate(number, object_id, SIZE, OWNER))
        await store._transfers.wait()
        store._decide(connection, frames.ObjectSeal(object_id))
    if after_the_store:
        await store.stop(delete_blobs=False)
    store.peer_gone(OWNER)
    await store._transfers.wait()
    if not after_the_store:
        await store.stop(delete_blobs=False)
    assert len(blobs.put_keys) == 1
    return blobs


def test_an_owner_that_goes_frees_what_is_spilled() -> None:
    blobs = asyncio.run(_owner_goes(after_the_store=False))
    assert blobs.deleted == blobs.put_keys


def test_an_owner_that_goes_after_the_store_begins_nothing_new() -> None:
    """What deletes its blobs would find the channel to the objectstore service closed."""
    assert asyncio.run(_owner_goes(after_the_store=True)).deleted == []
