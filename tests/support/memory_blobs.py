"""Blobs (`shoal_common.blob.local.Blobs`) in a dictionary."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shoal_common.blob import BlobInfo
from shoal_common.errors import NotFound


class MemoryBlobs:
    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.failure: Exception | None = None
        #: Cleared: what is put is on its way until it is set.
        self.arrives = asyncio.Event()
        self.arrives.set()

    async def put(self, key: str, sections: Sequence[bytes | bytearray | memoryview]) -> BlobInfo:
        self._fail()
        await self.arrives.wait()
        self.blobs[key] = b"".join(sections)
        return BlobInfo(key, 0)

    async def put_then_list(self, key: str, data: bytes, prefix: str) -> Sequence[BlobInfo]:
        await self.put(key, [data])
        return await self.list(prefix)

    async def get_into(self, key: str, target: memoryview, offset: int = 0) -> None:
        raise NotImplementedError

    async def get(self, key: str) -> bytes:
        self._fail()
        if key not in self.blobs:
            raise NotFound(f"no {key}")
        return self.blobs[key]

    async def delete(self, keys: Sequence[str] = (), prefix: str = "") -> int:
        self._fail()
        found = [key for key in self.blobs if key in keys or (prefix and key.startswith(prefix))]
        return sum(self.blobs.pop(key, None) is not None for key in found)

    async def list(self, prefix: str = "") -> Sequence[BlobInfo]:
        self._fail()
        return [BlobInfo(key, len(data)) for key, data in sorted(self.blobs.items()) if key.startswith(prefix)]

    async def close(self) -> None: ...

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
