"""Blobs of a directory that this process has: from its memory to the files and back, without the objectstore service.

Through gRPC, twice, the same bytes take some ten times the processor time of writing and reading the files.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Protocol, TypeVar

from shoal_common.blob.directory import DirectoryBlobStore
from shoal_common.blob.store import BlobInfo
from shoal_common.errors import Unavailable

#: Blobs that are written or read at once; more wait for their turn.
TRANSFERS = 4

T = TypeVar("T")


class Blobs(Protocol):
    """What a raylet does with blobs. Raises the service's errors."""

    async def put(self, key: str, sections: Sequence[bytes | bytearray | memoryview]) -> BlobInfo:
        """Store one blob made of ``sections``, each checksummed by itself; their memory must not change meanwhile."""

    async def put_then_list(self, key: str, data: bytes, prefix: str) -> Sequence[BlobInfo]:
        """Store a blob; then all whose key begins with ``prefix``, sorted by key."""

    async def get_into(self, key: str, target: memoryview, offset: int = 0) -> None:
        """Fill the writable ``target`` with the blob's bytes from ``offset`` on.

        The contents are undefined when this raises, and checked as `BlobStore.get` describes when it returns.
        """

    async def get(self, key: str) -> bytes:
        """The whole blob, checked."""

    async def delete(self, keys: Sequence[str] = (), prefix: str = "") -> int:
        """Delete keys, and all that begins with a non-empty ``prefix``; returns how many there were."""

    async def list(self, prefix: str = "") -> Sequence[BlobInfo]:
        """All blobs whose key begins with ``prefix``, sorted by key."""

    async def close(self) -> None:
        """When no call is under way any more."""


class LocalBlobs:
    """`Blobs` of one event loop. Raises: NotFound, DataLoss, OutOfDisk, InvalidRequest, Unavailable: the disk fails."""

    def __init__(self, store: DirectoryBlobStore) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(TRANSFERS, thread_name_prefix="blob")

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def put(self, key: str, sections: Sequence[bytes | bytearray | memoryview]) -> BlobInfo:
        with ExitStack() as stack:
            views = [stack.enter_context(memoryview(section).cast("B")) for section in sections]
            return await self._run(lambda may_go_on: self._store.put_sections(key, views, may_go_on))

    async def put_then_list(self, key: str, data: bytes, prefix: str) -> Sequence[BlobInfo]:
        def store(may_go_on: Callable[[], bool]) -> Sequence[BlobInfo]:
            with memoryview(data) as view:
                self._store.put_sections(key, [view], may_go_on)
            return self._store.list_now(prefix)

        return await self._run(store)

    async def get_into(self, key: str, target: memoryview, offset: int = 0) -> None:
        if len(target):
            await self._run(lambda may_go_on: self._store.read_into(key, target, offset, may_go_on))

    async def get(self, key: str) -> bytes:
        return await self._run(lambda may_go_on: self._store.read(key, may_go_on))

    async def delete(self, keys: Sequence[str] = (), prefix: str = "") -> int:
        try:
            return await self._store.delete(keys, prefix)
        except OSError as error:
            raise Unavailable(f"the directory of the blobs cannot be used: {error}") from error

    async def list(self, prefix: str = "") -> Sequence[BlobInfo]:
        try:
            return await self._store.list(prefix)
        except OSError as error:
            raise Unavailable(f"the directory of the blobs cannot be used: {error}") from error

    async def _run(self, work: Callable[[Callable[[], bool]], T]) -> T:
        """``work`` in a thread, which has ended when this returns or raises: it uses the caller's memory."""
        given_up = threading.Event()
        future = asyncio.get_running_loop().run_in_executor(self._threads, work, lambda: not given_up.is_set())
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            given_up.set()
            while not future.done():
                try:
                    await asyncio.wait({future})
                except asyncio.CancelledError:
                    continue
            future.exception()  # that it gave up, which nobody asks for any more
            raise
        except OSError as error:
            raise Unavailable(f"the directory of the blobs cannot be used: {error}") from error
        finally:
            del future  # else its error and this frame hold each other, and with them views of the caller's memory
