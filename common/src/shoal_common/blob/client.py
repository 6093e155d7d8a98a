"""The objectstore service's client: sections in, ranges out, without joining what need not be joined.

Where the service signs requests to the S3 server behind it, the bytes go straight there and from there. When that
does not succeed, for whatever reason, they go through the service, which then says what is wrong.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import grpc.aio
import structlog

from shoal_common.blob.checksums import Part
from shoal_common.blob.direct import MAX_BYTES, DirectError, DirectTransfers, SignedGet, SignedPut
from shoal_common.blob.store import CHUNK_BYTES, BlobInfo
from shoal_common.errors import DataLoss
from shoal_common.rpc.client import retrying, service_errors
from shoal_proto.v1 import objectstore_pb2
from shoal_proto.v1.objectstore_pb2_grpc import ObjectStoreServiceStub

#: A transfer's deadline: this long, in seconds, ...
BASE_DEADLINE_S = 30.0
#: ... and longer by its size at this rate, in bytes a second, below which a disk or network is as good as gone.
SLOWEST_BYTES_PER_S = 4 * 1024 * 1024
#: When the S3 server is not reached from here, it is tried again after this time, in seconds.
DIRECT_AGAIN_S = 60.0

_log = structlog.get_logger()

T = TypeVar("T")


class BlobClient:
    """Belongs to the event loop of ``channel``, which the caller makes (`aio_channel`) and closes after this.

    Every method tries again for a short while when no replica answers, and raises the service's errors: NotFound,
    DataLoss, OutOfDisk, InvalidRequest, Unavailable, DeadlineExceeded.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = ObjectStoreServiceStub(channel)
        self._direct: DirectTransfers | None = None
        #: Loop time from which direct transfers are worth a try.
        self._direct_from = 0.0

    async def close(self) -> None:
        """When no call is under way any more."""
        if self._direct is not None:
            await self._direct.close()
            self._direct = None

    async def put(self, key: str, sections: Sequence[bytes | bytearray | memoryview]) -> BlobInfo:
        """Store one blob made of ``sections``, each checksummed by itself; their memory must not change meanwhile."""
        views = [memoryview(section).cast("B") for section in sections]
        sizes = [len(view) for view in views]

        async def direct(transfers: DirectTransfers) -> BlobInfo:
            answer = await self._stub.SignPut(objectstore_pb2.SignPutRequest(key=key))
            signed = SignedPut(_signed(answer.url), answer.ca_pem)
            manifest = await transfers.put(key, signed, views)
            return BlobInfo(key, manifest.size_bytes, manifest.checksum)

        if sum(sizes) <= MAX_BYTES:
            stored = await self._directly(key, sum(sizes), direct)
            if stored is not None:
                return stored

        async def call() -> BlobInfo:
            with service_errors():
                answer = await self._stub.PutBlob(_put_requests(key, views, sizes), timeout=_deadline_s(sum(sizes)))
            return BlobInfo(key, answer.size_bytes, answer.checksum)

        return await retrying(call)

    async def put_then_list(self, key: str, data: bytes, prefix: str) -> Sequence[BlobInfo]:
        """Store a blob, then list. A small one takes one call, by way of the service: a log is made of many."""
        if len(data) > CHUNK_BYTES:
            await self.put(key, [data])
            return await self.list(prefix)
        request = objectstore_pb2.PutBlobThenListRequest(key=key, data=data, prefix=prefix)

        async def call() -> Sequence[BlobInfo]:
            with service_errors():
                return _infos(await self._stub.PutBlobThenList(request, timeout=_deadline_s(len(data))))

        return await retrying(call)

    async def get_into(self, key: str, target: memoryview, offset: int = 0) -> None:
        """Fill the writable ``target`` with the blob's bytes from ``offset`` on.

        The contents are undefined when this raises, and checked as `BlobStore.get` describes when it returns.
        """
        if not len(target):
            return

        async def direct(transfers: DirectTransfers) -> bool:
            request = objectstore_pb2.SignGetRequest(key=key, offset=offset, length=len(target))
            answer = await self._stub.SignGet(request)
            parts = [Part(part.size_bytes, part.checksum if part.whole else None) for part in answer.parts]
            signed = SignedGet(_signed(answer.url), answer.ca_pem, answer.tag, offset, parts)
            await transfers.get_into(key, signed, target)
            return True

        if await self._directly(key, len(target), direct):
            return
        request = objectstore_pb2.GetBlobRequest(key=key, offset=offset, length=len(target))

        async def call() -> None:
            filled = 0
            with service_errors():
                async for answer in self._stub.GetBlob(request, timeout=_deadline_s(len(target))):
                    chunk = answer.chunk
                    target[filled : filled + len(chunk)] = chunk
                    filled += len(chunk)
            if filled != len(target):
                raise DataLoss(f"{key}: the range at {offset} gave {filled} bytes instead of {len(target)}")

        await retrying(call)

    async def get(self, key: str) -> bytes:
        """The whole blob, for small ones."""

        async def call() -> bytes:
            request = objectstore_pb2.GetBlobRequest(key=key)
            with service_errors():
                return b"".join([m.chunk async for m in self._stub.GetBlob(request, timeout=_deadline_s(0))])

        return await retrying(call)

    async def delete(self, keys: Sequence[str] = (), prefix: str = "") -> int:
        """Delete keys, and all that begins with a non-empty ``prefix``; returns how many there were."""
        request = objectstore_pb2.DeleteBlobsRequest(keys=keys, prefix=prefix)

        async def call() -> int:
            with service_errors():
                return (await self._stub.DeleteBlobs(request)).deleted

        return await retrying(call)

    async def list(self, prefix: str = "") -> Sequence[BlobInfo]:
        """All blobs whose key begins with ``prefix``, sorted by key."""

        async def call() -> Sequence[BlobInfo]:
            with service_errors():
                return _infos(await self._stub.ListBlobs(objectstore_pb2.ListBlobsRequest(prefix=prefix)))

        return await retrying(call)

    async def _directly(
        self, key: str, size_bytes: int, transfer: Callable[[DirectTransfers], Awaitable[T]]
    ) -> T | None:
        """What ``transfer`` returns; None when it did not succeed and the service is to be asked instead."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._direct_from:
            return None
        transfers = self._direct = self._direct or DirectTransfers()

        async def call() -> T:
            with service_errors():
                return await transfer(transfers)

        try:
            async with asyncio.timeout(_deadline_s(size_bytes)):
                return await retrying(call)
        except _NotSigned:
            self._direct_from = math.inf
        except (DirectError, TimeoutError) as error:
            _log.info("direct_transfer_failed", key=key, reason=str(error) or "deadline exceeded")
            if isinstance(error, DirectError) and error.unreached:
                self._direct_from = loop.time() + DIRECT_AGAIN_S
        return None


class _NotSigned(Exception):
    """The service does not let its clients go anywhere else; its blobs may be in a directory."""


def _signed(url: str) -> str:
    if not url:
        raise _NotSigned
    return url


def _infos(answer: objectstore_pb2.ListBlobsResponse) -> Sequence[BlobInfo]:
    return [BlobInfo(blob.key, blob.size_bytes) for blob in answer.blobs]


def _deadline_s(size_bytes: int) -> float:
    return BASE_DEADLINE_S + size_bytes / SLOWEST_BYTES_PER_S


async def _put_requests(
    key: str, views: Sequence[memoryview], sizes: Sequence[int]
) -> AsyncIterator[objectstore_pb2.PutBlobRequest]:
    yield objectstore_pb2.PutBlobRequest(key=key, section_sizes=sizes)
    for chunk in _chunks(views):
        yield objectstore_pb2.PutBlobRequest(chunk=chunk)
        await asyncio.sleep(0)  # copying many chunks in a row must not hold up the event loop


def _chunks(views: Sequence[memoryview]) -> Iterator[bytes]:
    """Chunks of the full size, so that a blob of many small objects is not as many messages."""
    gathered: list[memoryview] = []
    room = CHUNK_BYTES
    for view in views:
        while view:
            part, view = view[:room], view[room:]
            gathered.append(part)
            room -= len(part)
            if not room:
                yield b"".join(gathered)
                gathered, room = [], CHUNK_BYTES
    if gathered:
        yield b"".join(gathered)
