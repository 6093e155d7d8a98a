"""Small blobs of a node that does not have the directory of the cluster's blobs: a raylet that has it stores them.

They go over the framed channel, in a fifth of the processor time that gRPC and the objectstore service take for one: a
durable actor's log is made of hundreds a second. What is larger, and everything while no such raylet answers, goes
through the service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from shoal_common.blob.local import Blobs
from shoal_common.channel import frames
from shoal_common.errors import ServiceError
from shoal_common.service.background import Background
from shoal_proto.v1 import gcs_pb2
from shoal_raylet.channel.connection import Connection
from shoal_raylet.transfer.blob_errors import error_of, kind_of
from shoal_raylet.transfer.links import LinkLost, RayletLinks

log = structlog.get_logger(__name__)

#: Larger ones would hold up what else passes between two raylets.
MAX_BYTES = 1024 * 1024
#: It has answered by then, in seconds; else the service is asked, for so long.
_ANSWER_S, _AGAIN_S = 5.0, 30.0
#: All that is stored for others is below it.
_PREFIX = "checkpoint/"


class Neighbours:
    """Belongs to one event loop."""

    def __init__(
        self, blobs: Blobs, has_directory: bool, links: RayletLinks, living: Callable[[], Iterable[gcs_pb2.NodeInfo]]
    ) -> None:
        """``has_directory``: this node. ``living``: the nodes that live."""
        self._blobs = blobs
        self._has_directory = has_directory
        self._links = links
        self._living = living
        self._loop = asyncio.get_running_loop()
        #: Loop time from which a neighbour is worth a try.
        self._ask_from = 0.0
        self._background = Background()
        #: Of messages from other raylets.
        self.handlers: dict[type[frames.Message], Callable[[Connection, Any], None]] = {
            frames.CheckpointPut: lambda connection, message: self._serve(connection, message)
        }

    async def stop(self) -> None:
        await self._background.stop()

    async def put_then_list(self, key: str, data: bytes, prefix: str) -> list[str]:
        """As `Blobs.put_then_list`; the keys."""
        if not self._has_directory and len(data) <= MAX_BYTES and self._loop.time() >= self._ask_from:
            neighbour = next((node.node_id for node in self._living() if node.has_blobs), None)
            if neighbour is not None:
                try:
                    question = frames.CheckpointPut(0, key, data, prefix)
                    answer: frames.CheckpointDone = await self._links.ask(neighbour, question, _ANSWER_S)
                except LinkLost as error:
                    log.warning("neighbour_did_not_store", key=key, reason=str(error))
                    self._ask_from = self._loop.time() + _AGAIN_S
                else:
                    if answer.error is not None:
                        raise error_of(answer.error, answer.detail)
                    return answer.names
        return [blob.key for blob in await self._blobs.put_then_list(key, data, prefix)]

    def _serve(self, connection: Connection, message: frames.CheckpointPut) -> None:
        if self._has_directory and message.name.startswith(_PREFIX) and message.then_list is not None:
            self._background.spawn(self._store(connection, message, message.then_list))
        else:
            connection.close("it has something stored that this node does not store for others")

    async def _store(self, connection: Connection, message: frames.CheckpointPut, prefix: str) -> None:
        try:
            found = await self._blobs.put_then_list(message.name, message.data, prefix)
            answer = frames.CheckpointDone(message.request, names=[blob.key for blob in found])
        except (ServiceError, OSError) as error:
            answer = frames.CheckpointDone(message.request, kind_of(error), str(error))
        connection.send(answer)
