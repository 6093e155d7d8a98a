"""Log files for whoever asks this node: read in threads, a piece at a time, and followed until their worker ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from shoal_common.errors import InvalidRequest, NotFound
from shoal_common.logs.lines import Wanted, worker_of
from shoal_raylet.workers.log_reading import LogDirectory, LogInfo, LogReader

#: A file that is followed is looked at every so many seconds.
FOLLOW_S = 0.2
#: Last lines that can be asked for: they are held in memory.
MAX_LAST = 100_000


class LogService:
    def __init__(self, directory: LogDirectory, prints: Callable[[bytes], bool]) -> None:
        """``prints``: whether a worker may print more."""
        self._directory = directory
        self._prints = prints

    async def list(self, pattern: str) -> list[LogInfo]:
        return await asyncio.to_thread(self._directory.list, pattern)

    async def read(
        self, file: str, wanted: Wanted, *, stderr: bool, last: int, follow: bool, fields: bool
    ) -> AsyncIterator[bytes]:
        """Whole lines. ``file`` empty: of all files that have some of the wanted ones. ``last`` 0: all of them.

        Raises: InvalidRequest, NotFound.
        """
        if not 0 <= last <= MAX_LAST:
            raise InvalidRequest(f"the last {last} lines cannot be had: ask for up to {MAX_LAST}, or for all")
        if not file and wanted.everything:
            raise InvalidRequest("say a file, a task or an actor")
        names = [file] if file else await asyncio.to_thread(self._directory.having, wanted, stderr=stderr)
        if not names:
            whose = f"task {wanted.task_id}" if wanted.task_id else f"actor {wanted.actor_id}"
            raise NotFound(f"nothing that {whose} has printed is on this node")
        readers = [self._directory.open(name, wanted, fields=fields) for name in names]
        try:
            if last:
                parts = [await asyncio.to_thread(reader.last, last) for reader in readers]
                lines = b"".join(parts).split(b"\n")[:-1]
                yield b"".join(line + b"\n" for line in lines[-last:])
            for reader, name in zip(readers, names, strict=True):
                is_last = reader is readers[-1]
                async for data in self._read(reader, worker_of(name), follow and is_last):
                    yield data
        finally:
            for reader in readers:
                reader.close()

    async def _read(self, reader: LogReader, worker_id: bytes, follow: bool) -> AsyncIterator[bytes]:
        while True:
            # Before the end is read: what it prints last is there then.
            more = follow and (not worker_id or self._prints(worker_id))
            while (data := await asyncio.to_thread(reader.read)) is not None:
                if data:
                    yield data
            if not more:
                break
            await asyncio.sleep(FOLLOW_S)
        if rest := reader.rest():
            yield rest
