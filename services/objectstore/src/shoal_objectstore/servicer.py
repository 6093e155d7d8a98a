"""Protobuf in, protobuf out; what a blob is and what goes wrong with it is the store's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from shoal_common.blob import CHUNK_BYTES, BlobStore
from shoal_common.blob.direct import SigningStore
from shoal_common.errors import InvalidRequest
from shoal_objectstore.measurements import Counts
from shoal_proto.v1 import objectstore_pb2 as pb
from shoal_proto.v1.objectstore_pb2_grpc import ObjectStoreServiceServicer


class ObjectStoreServicer(ObjectStoreServiceServicer):
    def __init__(self, blobs: BlobStore, signing: SigningStore | None) -> None:
        """``signing`` is the same store, if clients have a way of their own to what it keeps."""
        self._blobs = blobs
        self._signing = signing
        self.counts = Counts()

    async def PutBlob(self, request_iterator: AsyncIterator[pb.PutBlobRequest], context: Any) -> pb.PutBlobResponse:
        header = await anext(aiter(request_iterator), None)
        if header is None:
            raise InvalidRequest("PutBlob without a message: the first one must name the key")
        try:
            stored = await self._blobs.put(header.key, _chunks(header, request_iterator), header.section_sizes)
        except Exception:
            # A client that is still sending when its call ends sees a broken stream instead of this error.
            async for _ in request_iterator:
                pass
            raise
        self._count(stored.size_bytes)
        return pb.PutBlobResponse(size_bytes=stored.size_bytes, checksum=stored.checksum)

    async def PutBlobThenList(self, request: pb.PutBlobThenListRequest, context: Any) -> pb.ListBlobsResponse:
        stored = await self._blobs.put(request.key, _chunk(request.data))
        self._count(stored.size_bytes)
        return await self._list(request.prefix)

    async def GetBlob(self, request: pb.GetBlobRequest, context: Any) -> AsyncIterator[pb.GetBlobResponse]:
        async for chunk in self._blobs.get(request.key, request.offset, request.length):
            self.counts.read_bytes += len(chunk)
            yield pb.GetBlobResponse(chunk=chunk)

    async def SignPut(self, request: pb.SignPutRequest, context: Any) -> pb.SignedPut:
        if self._signing is None:
            return pb.SignedPut()
        self.counts.signed += 1
        signed = await self._signing.sign_put(request.key)
        return pb.SignedPut(url=signed.url, ca_pem=signed.ca_pem)

    async def SignGet(self, request: pb.SignGetRequest, context: Any) -> pb.SignedGet:
        if self._signing is None:
            return pb.SignedGet()
        self.counts.signed += 1
        signed = await self._signing.sign_get(request.key, request.offset, request.length)
        parts = [
            pb.SectionPart(size_bytes=size, checksum=checksum or 0, whole=checksum is not None)
            for size, checksum in signed.parts
        ]
        return pb.SignedGet(url=signed.url, ca_pem=signed.ca_pem, tag=signed.tag, parts=parts)

    async def DeleteBlobs(self, request: pb.DeleteBlobsRequest, context: Any) -> pb.DeleteBlobsResponse:
        deleted = await self._blobs.delete(request.keys, request.prefix)
        self.counts.deleted += deleted
        return pb.DeleteBlobsResponse(deleted=deleted)

    async def ListBlobs(self, request: pb.ListBlobsRequest, context: Any) -> pb.ListBlobsResponse:
        return await self._list(request.prefix)

    def _count(self, size_bytes: int) -> None:
        self.counts.stored += 1
        self.counts.stored_bytes += size_bytes

    async def _list(self, prefix: str) -> pb.ListBlobsResponse:
        found = await self._blobs.list(prefix)
        return pb.ListBlobsResponse(blobs=[pb.BlobInfo(key=blob.key, size_bytes=blob.size_bytes) for blob in found])


async def _chunk(data: bytes) -> AsyncIterator[bytes]:
    if len(data) > CHUNK_BYTES:
        raise InvalidRequest(f"the blob has {len(data)} bytes: at most {CHUNK_BYTES} go in one message")
    if data:
        yield data


async def _chunks(header: pb.PutBlobRequest, rest: AsyncIterator[pb.PutBlobRequest]) -> AsyncIterator[bytes]:
    if header.chunk:
        yield header.chunk
    async for message in rest:
        if len(message.chunk) > CHUNK_BYTES:
            raise InvalidRequest(f"a chunk has {len(message.chunk)} bytes: at most {CHUNK_BYTES} go in one message")
        yield message.chunk
