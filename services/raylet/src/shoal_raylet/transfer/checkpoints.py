"""What the actors of this node store for their next process: blobs below ``checkpoint/<actor>/``.

Workers ask here and not the objectstore service, which only raylets know how to reach. Each gets at the blobs of its
own actor only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import structlog

from shoal_common.blob.local import Blobs
from shoal_common.channel import frames
from shoal_common.errors import ServiceError
from shoal_common.kinds import BlobErrorKind
from shoal_common.service.background import Background
from shoal_raylet.channel.connection import Connection
from shoal_raylet.transfer.blob_errors import kind_of

log = structlog.get_logger(__name__)


class Checkpoints:
    """Belongs to one event loop."""

    def __init__(
        self,
        blobs: Blobs,
        put_then_list: Callable[[str, bytes, str], Awaitable[Iterable[str]]],
        actor_of: Callable[[bytes], bytes],
    ) -> None:
        """``put_then_list``: as that of ``blobs``, perhaps on a shorter way; the keys. ``actor_of``: the actor of a
        worker, by their ids; empty = it has none."""
        self._blobs = blobs
        self._put_then_list = put_then_list
        self._actor_of = actor_of
        self._background = Background()
        #: What is under way for a worker, by its id.
        self._under_way: dict[bytes, set[asyncio.Task[None]]] = {}
        #: Of messages from workers.
        self.handlers: dict[type[frames.Message], Callable[[Connection, Any], None]] = {
            frames.CheckpointPut: lambda c, m: self._serve(c, m, self._put),
            frames.CheckpointGet: lambda c, m: self._serve(c, m, self._get),
            frames.CheckpointList: lambda c, m: self._serve(c, m, self._list),
            frames.CheckpointDelete: lambda c, m: self._serve(c, m, self._delete),
        }

    async def stop(self) -> None:
        await self._background.stop()

    def worker_ended(self, worker_id: bytes) -> None:
        """What it was storing is given up. Before the GCS is told: it deletes what a dead actor has stored when the
        last process is gone, and nobody would delete what arrives later."""
        for task in self._under_way.pop(worker_id, ()):
            task.cancel()

    def _ended(self, worker_id: bytes, task: asyncio.Task[None]) -> None:
        tasks = self._under_way.get(worker_id)
        if tasks is not None:
            tasks.discard(task)
            if not tasks:
                del self._under_way[worker_id]

    def _serve(
        self,
        connection: Connection,
        message: Any,
        serve: Callable[[str, Any], Coroutine[Any, Any, frames.CheckpointDone]],
    ) -> None:
        actor_id = self._actor_of(connection.worker_id)
        if actor_id:
            worker_id = connection.worker_id
            task = self._background.spawn(
                self._answer(connection, message, partial(serve, f"checkpoint/{actor_id.hex()}/", message))
            )
            self._under_way.setdefault(worker_id, set()).add(task)
            task.add_done_callback(partial(self._ended, worker_id))
        else:
            detail = "this worker has no actor (any more)"
            connection.send(frames.CheckpointDone(message.request, BlobErrorKind.REFUSED, detail))

    async def _answer(
        self, connection: Connection, message: Any, serve: Callable[[], Coroutine[Any, Any, frames.CheckpointDone]]
    ) -> None:
        try:
            answer = await serve()
        except (ServiceError, OSError) as error:
            answer = frames.CheckpointDone(message.request, kind_of(error), str(error))
        if answer.error is not None and answer.error is not BlobErrorKind.NOT_FOUND:
            log.warning("checkpoint_failed", what=type(message).__name__, reason=answer.detail)
        connection.send(answer)

    async def _put(self, place: str, message: frames.CheckpointPut) -> frames.CheckpointDone:
        key = place + message.name
        if message.then_list is None:
            await self._blobs.put(key, [message.data])
            return frames.CheckpointDone(message.request)
        found = await self._put_then_list(key, message.data, place + message.then_list)
        return frames.CheckpointDone(message.request, names=_names(place, found))

    async def _get(self, place: str, message: frames.CheckpointGet) -> frames.CheckpointDone:
        return frames.CheckpointDone(message.request, data=await self._blobs.get(place + message.name))

    async def _list(self, place: str, message: frames.CheckpointList) -> frames.CheckpointDone:
        found = await self._blobs.list(place + message.prefix)
        return frames.CheckpointDone(message.request, names=_names(place, (blob.key for blob in found)))

    async def _delete(self, place: str, message: frames.CheckpointDelete) -> frames.CheckpointDone:
        await self._blobs.delete([place + name for name in message.names])
        return frames.CheckpointDone(message.request)


def _names(place: str, keys: Iterable[str]) -> list[str]:
    return [key.removeprefix(place) for key in keys]
