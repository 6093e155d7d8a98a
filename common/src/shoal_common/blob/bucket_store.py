"""``BlobStore`` in a bucket of MinIO, or of any S3 server.

Every blob is one object that ends with the footer, so that bytes and checksums become visible together. The
bucket is shared: any number of stores, in any number of processes, may work on it.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, ParamSpec, TypeVar

import structlog
import urllib3

from shoal_common.blob.checksums import Manifest, ManifestBuilder, Part, RangeChecker
from shoal_common.blob.direct import SignedGet, SignedPut
from shoal_common.blob.footer import decode_footer, encode_footer, footer_size
from shoal_common.blob.s3 import S3Bucket, Upload
from shoal_common.blob.store import CHUNK_BYTES, BlobInfo, check_key, check_prefix
from shoal_common.errors import Cancelled, InvalidRequest, NotFound, PreconditionFailed, ServiceError

#: Ends the name of every blob's object. No key contains it: MinIO does not list "a/b" when there is an object "a".
SUFFIX = "~"
#: Larger blobs are uploaded in parts of at least this many bytes, while the next one comes in.
PART_BYTES = 2 * CHUNK_BYTES
#: Requests under way at once; each upload buffers up to two parts.
CONNECTIONS = 16
#: The end of an object that is fetched first: longer than the footer of some thousand sections, in bytes.
_END_BYTES = 64 * 1024
#: Manifests that are remembered, and how many sections such a blob has at most.
_MANIFESTS_KEPT = 256
_SECTIONS_KEPT = 1000
#: How often a read begins again because the blob was replaced meanwhile.
_READ_ATTEMPTS = 3

_log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")


class StoredBlob(NamedTuple):
    #: Of the object; another one has another tag.
    tag: str
    manifest: Manifest


class MinioBlobStore:
    """Belongs to one event loop; ``await close()`` ends it. The bucket exists (`shoal_common.blob.bucket_claim`)."""

    def __init__(self, bucket: S3Bucket) -> None:
        self._bucket = bucket
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="minio")
        self._uploading = asyncio.Semaphore(CONNECTIONS // 2)
        #: What blobs were when they were last read. Reads name the tag, so that what is out of date shows.
        self._known: OrderedDict[str, StoredBlob] = OrderedDict()

    async def close(self) -> None:
        """Waits for requests under way, which have deadlines."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        self._bucket.close()

    async def put(self, key: str, chunks: AsyncIterator[bytes], section_sizes: Sequence[int] = ()) -> BlobInfo:
        check_key(key)
        manifest = ManifestBuilder(key, section_sizes)
        async with self._uploading:
            upload = _Upload(self._bucket, key + SUFFIX, self._run)
            try:
                async for chunk in chunks:
                    manifest.feed(chunk)
                    await upload.add(chunk)
                stored = manifest.finish()
                await upload.complete(encode_footer(stored))
            except BaseException:
                await asyncio.shield(upload.abort())
                raise
        self._known.pop(key, None)
        return BlobInfo(key, stored.size_bytes, stored.checksum)

    async def get(self, key: str, offset: int = 0, length: int = 0) -> AsyncIterator[bytes]:
        check_key(key)
        reading = await self._open(key, offset, length)
        if reading is None:
            return
        try:
            while chunk := await self._run(reading.read):
                yield chunk
        finally:
            await asyncio.shield(self._run(reading.close))

    async def delete(self, keys: Sequence[str] = (), prefix: str = "") -> int:
        for key in keys:
            check_key(key)
        check_prefix(prefix)
        # S3 does not say whether what it deletes was there.
        there = await asyncio.gather(*(self._run(self._bucket.has, key + SUFFIX) for key in keys))
        doomed = {key for key, is_there in zip(keys, there, strict=True) if is_there}
        if prefix:
            doomed |= {blob.key for blob in await self.list(prefix)}
        if doomed:
            await self._run(self._bucket.delete, [key + SUFFIX for key in doomed])
        return len(doomed)

    async def list(self, prefix: str = "") -> Sequence[BlobInfo]:
        check_prefix(prefix)
        return await self._run(self._list, prefix)

    async def sweep_uploads(self, stale: Callable[[Upload], bool]) -> int:
        """Abort the uploads that killed processes have begun; returns how many. MinIO itself does so after a day."""
        left = [upload for upload in await self._run(self._bucket.uploads) if stale(upload)]
        for upload in left:
            await self._run(self._bucket.abort_upload, upload.name, upload.upload_id)
        return len(left)

    async def sign_put(self, key: str) -> SignedPut:
        check_key(key)
        self._known.pop(key, None)
        return SignedPut(await self._run(self._bucket.signed_url, "PUT", key + SUFFIX), self._bucket.ca_pem)

    async def sign_get(self, key: str, offset: int, length: int) -> SignedGet:
        check_key(key)
        try:
            tag, manifest = await self.locate(key)
            end = manifest.end_of(key, offset, length)
        except InvalidRequest:
            tag, manifest = await self.locate(key, fresh=True)
            end = manifest.end_of(key, offset, length)
        url = await self._run(self._bucket.signed_url, "GET", key + SUFFIX)
        return SignedGet(url, self._bucket.ca_pem, tag, offset, manifest.parts(offset, end - offset))

    async def locate(self, key: str, *, fresh: bool = False) -> StoredBlob:
        """What is stored under ``key``; unless ``fresh`` perhaps as it was a while ago. Raises: NotFound, DataLoss."""
        known = None if fresh else self._known.get(key)
        if known is None:
            known = await self._run(self._read_footer, key)
            self._known.pop(key, None)
            if len(known.manifest.sizes) <= _SECTIONS_KEPT:
                self._known[key] = known
            if len(self._known) > _MANIFESTS_KEPT:
                self._known.popitem(last=False)
        return known

    async def _open(self, key: str, offset: int, length: int) -> _Reading | None:
        """None when there is nothing to read."""
        for attempt in range(_READ_ATTEMPTS):
            tag, manifest = await self.locate(key, fresh=attempt > 0)
            try:
                end = manifest.end_of(key, offset, length)
                if offset == end:
                    return None
                reading = _Reading(key, self._bucket, tag, offset, manifest.parts(offset, end - offset))
                try:
                    await self._run(reading.open)
                except BaseException:
                    await asyncio.shield(self._run(reading.close))
                    raise
                return reading
            except (InvalidRequest, PreconditionFailed) as error:
                refusal = error  # perhaps only because the blob was replaced since it was located
        raise refusal

    def _read_footer(self, key: str) -> StoredBlob:
        try:
            tag, stored_bytes, end = self._end_of(key, _END_BYTES)
            length = footer_size(key, end, stored_bytes)
            if length > len(end):
                tag, stored_bytes, end = self._end_of(key, length)
        except NotFound:
            raise NotFound(f"there is no blob {key}: it was never stored, or deleted") from None
        return StoredBlob(tag, decode_footer(key, end[-length:], stored_bytes))

    def _end_of(self, key: str, size: int) -> tuple[str, int, bytes]:
        """Tag and size of an object, and its last ``size`` bytes, or all when it is shorter."""
        name = key + SUFFIX
        answer = self._bucket.open(name, f"-{size}")
        try:
            stored_bytes = int(answer.headers["Content-Range"].rpartition("/")[2])
            return answer.headers["ETag"], stored_bytes, self._bucket.read(answer, size, name)
        finally:
            answer.close()

    def _list(self, prefix: str) -> Sequence[BlobInfo]:
        found = self._bucket.list(prefix)
        blobs = [BlobInfo(name.removesuffix(SUFFIX), size) for name, size in found if name.endswith(SUFFIX)]
        return sorted(blobs, key=lambda blob: blob.key)

    def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(call, *args, **kwargs))


class _Upload:
    """One blob on its way in: one request when it is small, else parts of which one is sent while the next gathers."""

    def __init__(self, bucket: S3Bucket, name: str, run: Callable[..., asyncio.Future[Any]]) -> None:
        self._bucket = bucket
        self._name = name
        self._run = run
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        #: The id of the multipart upload, once there is one.
        self._begun: asyncio.Future[str] | None = None
        self._parts: list[asyncio.Future[str]] = []

    async def add(self, chunk: bytes) -> None:
        self._gathered.append(chunk)
        self._gathered_bytes += len(chunk)
        if self._gathered_bytes >= PART_BYTES:
            await self._send_part()

    async def complete(self, footer: bytes) -> None:
        self._gathered.append(footer)
        if self._begun is None:
            await self._run(self._bucket.put, self._name, self._gathered)
            return
        await self._send_part()
        tags = [await part for part in self._parts]
        await self._run(self._bucket.complete_upload, self._name, await self._begun, tags)

    async def abort(self) -> None:
        """Leaves no parts behind, as far as the server answers."""
        if self._begun is None:
            return
        await asyncio.wait([self._begun, *self._parts])
        try:
            await self._run(self._bucket.abort_upload, self._name, await self._begun)
        except ServiceError as error:
            _log.warning("upload_not_aborted", object=self._name, reason=str(error))

    async def _send_part(self) -> None:
        if self._begun is None:
            self._begun = self._run(self._bucket.begin_upload, self._name)
        # A thread cannot be cancelled with the task that waits for it, and abort() waits for them all.
        upload_id = await asyncio.shield(self._begun)
        if self._parts:
            await asyncio.shield(self._parts[-1])
        number = len(self._parts) + 1
        self._parts.append(self._run(self._bucket.put_part, self._name, upload_id, number, self._gathered))
        self._gathered, self._gathered_bytes = [], 0


class _Reading:
    """One range on its way out. Its thread may be in ``read`` when the task that waits for it ends: hence the lock."""

    def __init__(self, key: str, bucket: S3Bucket, tag: str, offset: int, parts: Sequence[Part]) -> None:
        self._name = key + SUFFIX
        self._bucket = bucket
        self._tag = tag
        self._range = f"{offset}-{offset + sum(part.size_bytes for part in parts) - 1}"
        self._checker = RangeChecker(key, parts)
        self._lock = threading.Lock()
        self._answer: urllib3.BaseHTTPResponse | None = None

    def open(self) -> None:
        with self._lock:
            self._answer = self._bucket.open(self._name, self._range, self._tag)

    def read(self) -> bytes:
        """The next chunk, verified as far as sections end in it; b"" at the end."""
        with self._lock:
            if self._answer is None:
                raise Cancelled(f"the read of {self._name} was given up")
            chunk = self._bucket.read(self._answer, CHUNK_BYTES, self._name)
            self._checker.feed(chunk)
            return chunk

    def close(self) -> None:
        with self._lock:
            if self._answer is not None:
                self._answer.close()
                self._answer = None
