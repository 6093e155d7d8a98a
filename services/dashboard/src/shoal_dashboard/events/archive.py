"""What has been recorded, in the cluster's blobs: segments of attempts as Parquet, and the counts.

A segment is named after what it holds, so that one that is stored again, after a crash in the middle of it, replaces
itself. Who finds no file of its own takes up from here what others have recorded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from shoal_common.blob.store import BlobInfo
from shoal_common.errors import NotFound
from shoal_common.events.node_events import ClusterEvent
from shoal_common.events.task_events import FunctionTally
from shoal_dashboard.events.counters import Life

#: Of the tables: what another version has recorded is not taken up.
VERSION = 5
#: Segments that are kept; beyond that the oldest go.
MAX_SEGMENTS = 10_000

_NAME = re.compile(r"(\d+)-(\d+)-(\d+)-([0-9a-f]{8})\.parquet")


class Blobs(Protocol):
    """What is needed of ``BlobClient``."""

    async def put(self, key: str, sections: Sequence[bytes | bytearray | memoryview]) -> BlobInfo: ...

    async def get(self, key: str) -> bytes: ...

    async def delete(self, keys: Sequence[str] = (), prefix: str = "") -> int: ...

    async def list(self, prefix: str = "") -> Sequence[BlobInfo]: ...


@dataclass(frozen=True, slots=True)
class Segment:
    """Of attempts that ended from ``first_ms`` to ``last_ms`` (milliseconds since 1970)."""

    first_ms: int
    last_ms: int
    rows: int
    #: Of its first and last attempt, to tell it from others.
    mark: str

    @property
    def name(self) -> str:
        return f"{self.first_ms}-{self.last_ms}-{self.rows}-{self.mark}.parquet"

    @classmethod
    def of(cls, name: str) -> Segment | None:
        """None = it is not the name of one."""
        found = _NAME.fullmatch(name)
        return cls(int(found[1]), int(found[2]), int(found[3]), found[4]) if found else None


class Counts(msgspec.Struct, array_like=True):
    tallies: list[tuple[Life, FunctionTally]]
    unnamed: int
    lost: int
    #: As ``Listening.seen``.
    seen: dict[bytes, tuple[int, int]]
    #: What has happened to the cluster, the newest that are kept.
    happened: list[ClusterEvent] = []


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Counts).decode


class Archive:
    """Of one cluster. Methods raise: ServiceError."""

    def __init__(self, blobs: Blobs, cluster_id: str) -> None:
        self._blobs = blobs
        self._prefix = f"events/{cluster_id}/{VERSION}/"

    async def save(self, segment: Segment, data: bytes, counts: Counts) -> None:
        await self._blobs.put(self._prefix + segment.name, [data])
        await self._blobs.put(self._prefix + "counts", [_encode(counts)])
        segments = await self.segments()
        if len(segments) > MAX_SEGMENTS:
            await self._blobs.delete([self._prefix + each.name for each in segments[MAX_SEGMENTS:]])

    async def segments(self) -> list[Segment]:
        """The newest first."""
        names = [info.key.removeprefix(self._prefix) for info in await self._blobs.list(self._prefix)]
        found = [segment for name in names if (segment := Segment.of(name)) is not None]
        return sorted(found, key=lambda segment: -segment.last_ms)

    async def load(self, segment: Segment) -> bytes:
        return await self._blobs.get(self._prefix + segment.name)

    async def counts(self) -> Counts | None:
        try:
            return _decode(await self._blobs.get(self._prefix + "counts"))
        except NotFound:
            return None
