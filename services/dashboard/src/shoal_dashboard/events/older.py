"""Segments of the archive that were asked for, as files on this disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from shoal_dashboard.events.archive import Archive, Segment

#: That the files take; beyond that those go that were used longest ago.
KEEP_BYTES = 256 * 2**20


class OlderSegments:
    """Belongs to one event loop, and to whoever holds ``lock``: a file may go when the next ones are fetched."""

    def __init__(self, archive: Archive, directory: Path) -> None:
        self._archive = archive
        self._directory = directory
        self.lock = asyncio.Lock()

    async def all(self) -> list[Segment]:
        """The newest first. Raises: ServiceError."""
        return await self._archive.segments()

    async def fetch(self, segments: Sequence[Segment]) -> list[Path]:
        """Raises: ServiceError, OSError."""
        await asyncio.to_thread(self._make_room)
        return await asyncio.gather(*map(self._fetch, segments))

    async def _fetch(self, segment: Segment) -> Path:
        path = self._directory / segment.name
        if await asyncio.to_thread(_used, path):
            return path
        data = await self._archive.load(segment)
        await asyncio.to_thread(_write, path, data)
        return path

    def _make_room(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        files = sorted(((each.stat(), each) for each in self._directory.iterdir()), key=lambda file: -file[0].st_mtime)
        taken = 0
        for stat, path in files:
            taken += stat.st_size
            if taken > KEEP_BYTES:
                path.unlink()


def _used(path: Path) -> bool:
    """Now, if it is there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _write(path: Path, data: bytes) -> None:
    """Whole, or not at all."""
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.rename(path)
