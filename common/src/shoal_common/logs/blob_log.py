"""A log in the cluster's blobs, which outlives whoever has written it.

It is a sequence of bytes in parts of the same size, ``<prefix><number>``; the last part is written anew as it grows.
The newest parts are kept. Offsets count from the beginning of all that was written, dropped parts included, so that a
reader who comes back goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shoal_common.blob.local import Blobs
from shoal_common.blob.store import BlobInfo
from shoal_common.errors import NotFound

PART_BYTES = 256 * 1024
_NUMBER_DIGITS = 10
#: A reader whose place was dropped goes on so many parts after the oldest one, and looks so often before it waits.
_LEAP, _TRIES = 8, 5


@dataclass(frozen=True, slots=True)
class Piece:
    """Of a log. ``start``: the offset of ``data``, later than the one asked for when what was there is dropped."""

    start: int
    data: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class BlobLog:
    """Belongs to the event loop of ``blobs``; methods raise what that raises."""

    def __init__(self, blobs: Blobs, prefix: str, parts_kept: int) -> None:
        """``prefix``: ends with a slash."""
        self._blobs = blobs
        self._prefix = prefix
        self._parts_kept = parts_kept
        #: Of the part that is being written; None = what an earlier writer has left is not known yet.
        self._number: int | None = None
        self._tail = b""

    async def append(self, data: bytes) -> None:
        """For one writer at a time; an earlier one's text is continued. After an error the same data can be given
        again, or more that begins with it."""
        if self._number is None:
            await self._continue()
        assert self._number is not None
        number, tail = self._number, self._tail + data
        while True:
            await self._blobs.put(self._key(number), [tail[:PART_BYTES]])
            if len(tail) < PART_BYTES:
                break
            number, tail = number + 1, tail[PART_BYTES:]
            if number >= self._parts_kept:
                await self._blobs.delete([self._key(number - self._parts_kept)])
        self._number, self._tail = number, tail

    async def read(self, offset: int, limit: int) -> Piece:
        """At most ``limit`` bytes from ``offset`` on; none at the end of what there is."""
        for _ in range(_TRIES):
            try:
                part = await self._blobs.get(self._key(offset // PART_BYTES))
                break
            except NotFound:
                later = [number for number in await self._numbers() if number * PART_BYTES > offset]
                if not later:
                    return Piece(offset, b"")
                # Not the oldest one: of what prints much it may be gone before it is read.
                offset = later[min(_LEAP, len(later) - 1)] * PART_BYTES
        else:
            return Piece(offset, b"")
        within = offset % PART_BYTES
        data = part[within : within + limit]
        if within + len(data) == PART_BYTES and len(data) < limit:
            more = await self.read(offset + len(data), limit - len(data))
            if more.start == offset + len(data):
                data += more.data
        return Piece(offset, data)

    async def begin(self) -> int:
        """The offset of the oldest byte that is there; 0 = nothing is."""
        numbers = await self._numbers()
        return numbers[0] * PART_BYTES if numbers else 0

    async def tail_offset(self, size: int) -> int:
        """From where there are at most ``size`` bytes to the end."""
        numbers = await self._numbers()
        if not numbers:
            return 0
        last = await self._blobs.get(self._key(numbers[-1]))
        end = numbers[-1] * PART_BYTES + len(last)
        return max(end - size, numbers[0] * PART_BYTES)

    async def delete(self) -> None:
        await self._blobs.delete(prefix=self._prefix)

    async def _continue(self) -> None:
        numbers = await self._numbers()
        self._tail = await self._blobs.get(self._key(numbers[-1])) if numbers else b""
        self._number = numbers[-1] if numbers else 0
        if len(self._tail) >= PART_BYTES:
            self._number, self._tail = self._number + 1, b""

    async def _numbers(self) -> list[int]:
        found: Sequence[BlobInfo] = await self._blobs.list(self._prefix)
        return sorted(int(info.key.removeprefix(self._prefix)) for info in found)

    def _key(self, number: int) -> str:
        return f"{self._prefix}{number:0{_NUMBER_DIGITS}d}"
