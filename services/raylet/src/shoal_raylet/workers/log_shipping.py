"""Log files of this node are brought to the cluster's blobs while they grow, so that they can be read when it is gone:
all of them when it leaves, and what there was half a minute before when it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import structlog

from shoal_common.blob import last_used
from shoal_common.blob.local import Blobs
from shoal_common.errors import ServiceError
from shoal_common.logs.blob_log import PART_BYTES, BlobLog
from shoal_common.logs.lines import is_log_name
from shoal_common.logs.node_logs import PARTS_KEPT, log_of, place
from shoal_raylet.workers.log_files import OLDER, older

log = structlog.get_logger(__name__)

#: Between two rounds, in seconds.
EVERY_S = 30.0
#: In one round, in bytes; what is left comes in the next ones.
ROUND_BYTES = 16 * 1024 * 1024
#: Files that are kept, those that were written last.
MAX_FILES = 1000
#: At once from one file: the beginning of one that is longer is not kept anyway.
_MAX_NEWS = PART_BYTES * PARTS_KEPT


class _Shipped:
    """What of a file is in the blobs."""

    def __init__(self, blob_log: BlobLog) -> None:
        self.log = blob_log
        #: Of the part that was read last, and how far.
        self.inode = 0
        self.offset = 0


class LogShipping:
    """Belongs to one event loop."""

    def __init__(self, directory: Path, node_id: bytes, blobs: Blobs) -> None:
        self._directory = directory
        self._node_id = node_id
        self._blobs = blobs
        self._files: dict[str, _Shipped] = {}
        self._marked = -1
        self._rounds: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._rounds = asyncio.create_task(self._always(), name="log shipping")

    async def stop(self, within_s: float) -> None:
        """Brings what there is now, as far as that takes no longer."""
        if self._rounds is None:
            return
        self._rounds.cancel()
        await asyncio.wait({self._rounds})
        try:
            async with asyncio.timeout(within_s):
                while await self.ship():
                    pass
        except (ServiceError, TimeoutError) as error:
            log.warning("logs_not_shipped", reason=str(error) or f"it took more than {within_s:g} s")

    async def ship(self) -> bool:
        """One round. True = there is more. Raises: ServiceError; what was not stored is tried again."""
        there = await asyncio.to_thread(self._there)
        for name in set(self._files) - there.keys():
            await self._files[name].log.delete()
            del self._files[name]
        today = last_used.day(_newest(there)) if there else -1
        if today > self._marked:
            await self._blobs.put(last_used.mark(place(self._node_id), today), [b"\n"])
            self._marked = today
        room = ROUND_BYTES
        for name in there:
            shipped = self._files.get(name)
            if shipped is None:
                shipped = self._files[name] = _Shipped(log_of(self._blobs, self._node_id, name))
            data, inode, offset = await asyncio.to_thread(_news, self._directory / name, shipped.inode, shipped.offset)
            if data:
                await shipped.log.append(data)
                room -= len(data)
            shipped.inode, shipped.offset = inode, offset
            if room <= 0:
                return True
        return False

    async def _always(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.ship()
            except ServiceError as error:
                log.info("logs_not_shipped", reason=str(error))

    def _there(self) -> dict[str, float]:
        """The newest files, those that were written first in front, with when that was."""
        found: dict[str, float] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            for entry in entries:
                if is_log_name(entry.name) and not entry.name.endswith(OLDER):
                    with contextlib.suppress(FileNotFoundError):
                        if entry.is_file(follow_symlinks=False):
                            found[entry.name] = entry.stat(follow_symlinks=False).st_mtime
        newest = sorted(found.items(), key=lambda each: each[1])[-MAX_FILES:]
        return dict(newest)


def _newest(there: dict[str, float]) -> float:
    return max(there.values())


def _news(path: Path, inode: int, offset: int) -> tuple[bytes, int, int]:
    """What has been written since, and the place behind it. A part that was rotated away is read to its end first."""
    parts: list[bytes] = []
    # The file first: it may be rotated away meanwhile, and then it is the older part, too.
    current, before = _open(path), _open(older(path))
    try:
        for fd in (before, current):
            if fd < 0:
                continue
            status = os.fstat(fd)
            if status.st_ino != inode and fd == before:
                continue  # it is known
            start = max(offset if status.st_ino == inode else 0, status.st_size - _MAX_NEWS)
            data = os.pread(fd, _MAX_NEWS, start)
            parts.append(data)
            inode, offset = status.st_ino, start + len(data)
    finally:
        for fd in (before, current):
            if fd >= 0:
                os.close(fd)
    return b"".join(parts), inode, offset


def _open(path: Path) -> int:
    """-1 = it is not there."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
