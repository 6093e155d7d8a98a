"""Packages of runtime environments: from drivers and workers into the cluster's blobs, and out of them.

A package is blobs below ``package/<SHA-256>/``: its parts by number, and ``size``, which is written last. What ``pip``
and ``uv`` have installed is the same below ``environment/<name>/``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from shoal_common.blob.local import Blobs
from shoal_common.channel import frames
from shoal_common.errors import DataLoss, InvalidRequest, NotFound, ServiceError
from shoal_common.placement.runtime_env import MAX_PACKAGE_BYTES, PACKAGE_PART_BYTES, is_digest, package_place, part_key
from shoal_common.service.background import Background
from shoal_raylet.channel.connection import Connection

log = structlog.get_logger(__name__)

_PARTS = -(-2 * MAX_PACKAGE_BYTES // PACKAGE_PART_BYTES)


class Packages:
    """Belongs to one event loop."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._background = Background()
        self.handlers: dict[type[frames.Message], Callable[[Connection, Any], None]] = {
            frames.PackageFind: lambda c, m: self._serve(c, m, self._find),
            frames.PackagePut: lambda c, m: self._serve(c, m, self._put),
        }

    async def stop(self) -> None:
        await self._background.stop()

    async def size(self, place: str) -> int:
        """Raises: NotFound, ServiceError."""
        data = await self._blobs.get(part_key(place, -1))
        if not data.isdigit():
            raise DataLoss(f"{place} is damaged")
        return int(data)

    async def part(self, place: str, number: int) -> bytes:
        """Raises: NotFound, ServiceError."""
        return await self._blobs.get(part_key(place, number))

    async def put(self, place: str, number: int, data: bytes) -> None:
        """-1 = its size in decimal digits: all of it is there. Raises: ServiceError."""
        await self._blobs.put(part_key(place, number), [data])

    def _serve(
        self, connection: Connection, message: Any, serve: Callable[[Any], Coroutine[Any, Any, frames.PackageDone]]
    ) -> None:
        self._background.spawn(self._answer(connection, message, serve))

    async def _answer(
        self, connection: Connection, message: Any, serve: Callable[[Any], Coroutine[Any, Any, frames.PackageDone]]
    ) -> None:
        try:
            if not is_digest(message.digest):
                raise InvalidRequest("a package is named by 64 hexadecimal digits")
            answer = await serve(message)
        except (ServiceError, OSError) as error:
            log.warning("package_failed", what=type(message).__name__, reason=str(error))
            answer = frames.PackageDone(message.request, error=str(error))
        connection.send(answer)

    async def _find(self, message: frames.PackageFind) -> frames.PackageDone:
        try:
            await self.size(package_place(message.digest))
        except NotFound:
            return frames.PackageDone(message.request)
        return frames.PackageDone(message.request, found=True)

    async def _put(self, message: frames.PackagePut) -> frames.PackageDone:
        if not -1 <= message.part < _PARTS or len(message.data) > PACKAGE_PART_BYTES:
            raise InvalidRequest(f"a package has at most {_PARTS} parts of {PACKAGE_PART_BYTES} bytes")
        await self.put(package_place(message.digest), message.part, message.data)
        return frames.PackageDone(message.request, found=True)
