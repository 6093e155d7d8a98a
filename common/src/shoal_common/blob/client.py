"""The objectstore service's client: sections in, ranges out, without joining what need not be joined."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

import grpc.aio

from shoal_common.blob.store import CHUNK_BYTES, BlobInfo
from shoal_common.errors import DataLoss
from shoal_common.grpc_channel import retrying, service_errors
from shoal_proto.v1 import objectstore_pb2
from shoal_proto.v1.objectstore_pb2_grpc import ObjectStoreServiceStub

#: A transfer's deadline: this long, in seconds, ...
BASE_DEADLINE_S = 30.0
#: ... and longer by its size at this rate, in bytes a second, below which a disk or network is as good as gone.
SLOWEST_BYTES_PER_S = 4 * 1024 * 1024


class BlobClient:
    """Belongs to the event loop of ``channel``, which the caller makes (`aio_channel`) and closes.

    Every method tries again for a short while when no replica answers, and raises the service's errors: NotFound,
    DataLoss, OutOfDisk, InvalidRequest, Unavailable, DeadlineExceeded.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = ObjectStoreServiceStub(channel)

    async def put(self, key: str, sections: Sequence[bytes | bytearray | memoryview]) -> BlobInfo:
        """Store one blob made of ``sections``, each checksummed by itself; their memory must not change meanwhile."""
        views = [memoryview(section).cast("B") for section in sections]
        sizes = [len(view) for view in views]

        async def call() -> BlobInfo:
            with service_errors():
                answer = await self._stub.PutBlob(_put_requests(key, views, sizes), timeout=_deadline_s(sum(sizes)))
            return BlobInfo(key, answer.size_bytes, answer.checksum)

        return await retrying(call)

    async def get_into(self, key: str, target: memoryview, offset: int = 0) -> None:
        """Fill the writable ``target`` with the blob's bytes from ``offset`` on.

        The contents are undefined when this raises, and checked as `BlobStore.get` describes when it returns.
        """
        if not len(target):
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
                answer = await self._stub.ListBlobs(objectstore_pb2.ListBlobsRequest(prefix=prefix))
            return [BlobInfo(blob.key, blob.size_bytes) for blob in answer.blobs]

        return await retrying(call)


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
