"""Checksums of blobs, section by section, computed and verified while the bytes stream by. Pure.

CRC-32 because it is in the standard library at more than 1 GB/s: it guards against torn files and bit rot, not
against forgers, who would need the cluster token to get here.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from shoal_common.errors import DataLoss, InvalidRequest


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """What is stored about a blob beside its bytes."""

    #: Lengths of the sections in bytes, in order; their sum is the blob's size.
    sizes: list[int]
    #: CRC-32 of each section.
    sums: list[int]
    #: CRC-32 of the whole blob.
    total: int

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes)

    @property
    def checksum(self) -> str:
        return f"crc32:{self.total:08x}"

    def end_of(self, key: str, offset: int, length: int) -> int:
        """Where the range of ``length`` bytes from ``offset`` ends; ``length`` 0 means that it goes to the blob's end.

        Raises: InvalidRequest when the range goes beyond the blob.
        """
        end = offset + length if length else self.size_bytes
        if not 0 <= offset <= end <= self.size_bytes:
            raise InvalidRequest(f"{key} has {self.size_bytes} bytes: the range from {offset} to {end} is not inside")
        return end

    def parts(self, offset: int, length: int) -> list[Part]:
        """The sections in a range, in order; of those that it cuts only what is inside."""
        parts = []
        start, end = offset, offset + length
        at = 0
        for size, checksum in zip(self.sizes, self.sums, strict=True):
            inside = min(at + size, end) - max(at, start)
            if inside > 0:
                parts.append(Part(inside, checksum if inside == size else None))
            at += size
        return parts


class Part(NamedTuple):
    """What a range covers of one section."""

    size_bytes: int
    #: The section's CRC-32; None when the range cuts it, so that it cannot be verified.
    checksum: int | None


class ManifestBuilder:
    """Sums a blob up while it is written."""

    def __init__(self, key: str, section_sizes: Sequence[int]) -> None:
        self._key = key
        self._sizes = list(section_sizes)
        self._sums: list[int] = []
        self._total = 0
        self._seen = 0
        #: Of the section under way.
        self._sum = 0
        self._left = self._sizes[0] if self._sizes else 0

    def feed(self, chunk: bytes | memoryview) -> None:
        """Raises: InvalidRequest when the blob is longer than its sections."""
        self._seen += len(chunk)
        if len(self._sizes) != 1:  # a section that is the whole blob is summed up once
            self._total = zlib.crc32(chunk, self._total)
        if not self._sizes:
            return
        view = memoryview(chunk)
        while view:
            self._close_full_sections()
            if len(self._sums) == len(self._sizes):
                raise InvalidRequest(f"{self._key}: the blob is longer than its sections, {sum(self._sizes)} bytes")
            part, view = view[: self._left], view[self._left :]
            self._sum = zlib.crc32(part, self._sum)
            self._left -= len(part)

    def finish(self) -> Manifest:
        """Raises: InvalidRequest when the blob is shorter than its sections."""
        if not self._sizes:
            return Manifest([self._seen], [self._total], self._total)
        self._close_full_sections()
        if len(self._sums) < len(self._sizes):
            raise InvalidRequest(
                f"{self._key}: the blob ended after {self._seen} bytes, but its sections have {sum(self._sizes)}"
            )
        return Manifest(self._sizes, self._sums, self._sums[0] if len(self._sums) == 1 else self._total)

    def _close_full_sections(self) -> None:
        while self._left == 0 and len(self._sums) < len(self._sizes):
            self._sums.append(self._sum)
            self._sum = 0
            if len(self._sums) < len(self._sizes):
                self._left = self._sizes[len(self._sums)]


class RangeChecker:
    """Verifies a range of a blob while it is read; sections that the range only cuts cannot be verified."""

    def __init__(self, key: str, parts: Sequence[Part]) -> None:
        self._key = key
        #: What is still to come, the next one last.
        self._parts = list(reversed(parts))
        self._sum = 0

    def feed(self, chunk: bytes | memoryview) -> None:
        """Raises: DataLoss when a section ends whose bytes are not those that were stored."""
        at, end = 0, len(chunk)
        with memoryview(chunk) as view:  # the error must not hold on to the caller's memory
            while at < end:
                left, checksum = self._parts.pop()
                length = min(left, end - at)
                if checksum is not None:
                    self._sum = zlib.crc32(view[at : at + length], self._sum)
                at += length
                if length < left:
                    self._parts.append(Part(left - length, checksum))
                else:
                    if checksum is not None and self._sum != checksum:
                        raise DataLoss(f"{self._key} is damaged: a section's checksum does not match what was stored")
                    self._sum = 0
