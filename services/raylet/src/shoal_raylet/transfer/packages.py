"""Packages of runtime environments: from drivers and workers into the cluster's blobs, and out of them.

A package is blobs below ``package/<SHA-256>/``: its parts by number, and ``size``, which is written last. What ``pip``
and ``uv`` have installed is the same below ``environment/<name>/``. The GCS deletes those that nobody uses for days: as
long as a process that has asked for one is connected, or an environment that needs it is made here, it counts as used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import structlog

from shoal_common.blob import last_used
from shoal_common.blob.local import Blobs
from shoal_common.channel import frames
from shoal_common.errors import DataLoss, InvalidRequest, NotFound, ServiceError
from shoal_common.placement.runtime_env import MAX_PACKAGE_BYTES, PACKAGE_PART_BYTES, is_digest, package_place, part_key
from shoal_common.service.background import Background
from shoal_raylet.channel.connection import Connection

log = structlog.get_logger(__name__)

#: Between two looks at what is used here, in seconds: several a day.
_RENEW_S = 6 * 3600.0
_PARTS = -(-2 * MAX_PACKAGE_BYTES // PACKAGE_PART_BYTES)


class Packages:
    """Belongs to one event loop."""

    def __init__(self, blobs: Blobs, unix_time: Callable[[], float] = time.time) -> None:
        self._blobs = blobs
        self._unix_time = unix_time
        #: What each process has asked for.
        self._asked: dict[bytes, set[str]] = {}
        #: The day on which each was marked last, here.
        self._marked: dict[str, int] = {}
        self._background = Background()
        self.handlers: dict[type[frames.Message], Callable[[Connection, Any], None]] = {
            frames.PackageFind: lambda c, m: self._serve(c, m, self._find),
            frames.PackagePut: lambda c, m: self._serve(c, m, self._put),
        }

    def start(self, is_connected: Callable[[bytes], bool], needed: Callable[[], set[str]]) -> None:
        """``is_connected``: a process, by its worker id. ``needed``: by the environments that are made here."""
        self._background.spawn(self._renew(is_connected, needed))

    async def stop(self) -> None:
        await self._background.stop()

    async def used(self, places: Iterable[str]) -> None:
        """They are not deleted for some days. Raises nothing: what fails is tried again some hours later."""
        today = last_used.day(self._unix_time())
        for place in places:
            if self._marked.get(place) != today:
                try:
                    await self._blobs.put(last_used.mark(place, today), [b"\n"])
                except ServiceError as error:
                    log.warning("package_not_marked", place=place, reason=str(error))
                else:
                    self._marked[place] = today

    async def _renew(self, is_connected: Callable[[bytes], bool], needed: Callable[[], set[str]]) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            await self.renew(is_connected, needed())

    async def renew(self, is_connected: Callable[[bytes], bool], needed: set[str]) -> None:
        """Mark what is used."""
        self._asked = {asker: places for asker, places in self._asked.items() if is_connected(asker)}
        await self.used(needed.union(*self._asked.values()))
        today = last_used.day(self._unix_time())
        self._marked = {place: day for place, day in self._marked.items() if day == today}

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
            place = f"package/{message.digest}"
            self._asked.setdefault(connection.worker_id, set()).add(place)
            await self.used([place])  # first: then it is not deleted after it was found
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
