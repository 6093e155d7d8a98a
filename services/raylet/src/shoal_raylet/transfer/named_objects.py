"""Values of named objects: from drivers and workers into the cluster's blobs, part by part, and out of them.

Which of them have a name, and until when, the GCS knows; it deletes the others.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from shoal_common.blob.local import Blobs
from shoal_common.channel import frames
from shoal_common.errors import InvalidRequest, NotFound, ServiceError
from shoal_common.named_objects import PART_BYTES, is_place, part_key
from shoal_common.service.background import Background
from shoal_raylet.channel.connection import Connection
from shoal_raylet.transfer.blob_errors import kind_of

log = structlog.get_logger(__name__)


class NamedObjects:
    """Belongs to one event loop."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._background = Background()
        #: Of messages from processes.
        self.handlers: dict[type[frames.Message], Callable[[Connection, Any], None]] = {
            frames.NamedObjectPut: lambda c, m: self._serve(c, m, self._put),
            frames.NamedObjectGet: lambda c, m: self._serve(c, m, self._get),
        }

    async def stop(self) -> None:
        await self._background.stop()

    def _serve(
        self, connection: Connection, message: Any, serve: Callable[[Any], Coroutine[Any, Any, frames.NamedObjectDone]]
    ) -> None:
        self._background.spawn(self._answer(connection, message, serve))

    async def _answer(
        self, connection: Connection, message: Any, serve: Callable[[Any], Coroutine[Any, Any, frames.NamedObjectDone]]
    ) -> None:
        try:
            if not is_place(message.place) or message.part < 0:
                raise InvalidRequest(f"{message.place!r} is no place of a named object")
            answer = await serve(message)
        except (ServiceError, OSError) as error:
            if not isinstance(error, NotFound):
                log.warning("named_object_failed", what=type(message).__name__, reason=str(error))
            answer = frames.NamedObjectDone(message.request, kind_of(error), str(error))
        connection.send(answer)

    async def _put(self, message: frames.NamedObjectPut) -> frames.NamedObjectDone:
        if len(message.data) > PART_BYTES:
            raise InvalidRequest(f"a part has at most {PART_BYTES} bytes")
        await self._blobs.put(part_key(message.place, message.part), [message.data])
        return frames.NamedObjectDone(message.request)

    async def _get(self, message: frames.NamedObjectGet) -> frames.NamedObjectDone:
        data = await self._blobs.get(part_key(message.place, message.part))
        return frames.NamedObjectDone(message.request, data=data)
