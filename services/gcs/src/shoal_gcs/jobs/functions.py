"""The function table: pickled functions and classes under their ids, one copy a job.

One that is too large for a value of the metadata store is split into chunks, which are written before the row that
counts them: a row is there when all of it is. What a GCS that is killed leaves of chunks goes with the job's others.

They are written once and never change, so the cache needs no invalidation; it is bounded, and what fell out of it is
read from the store again. Raylets cache too: the GCS is asked about once per function and node.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from shoal_common.errors import DataLoss, InvalidRequest, NotFound, Unavailable
from shoal_common.ids import FUNCTION_LENGTH, job_of
from shoal_common.metadata import MAX_VALUE_BYTES, MetadataStore, MetadataStoreError, RevisionConflict
from shoal_proto.v1 import gcs_pb2

MAX_FUNCTION_BYTES = 100 * 1024 * 1024
CACHE_BYTES = 64 * 1024 * 1024
#: A larger function is split into pieces of this size; a row has some bytes besides.
CHUNK_BYTES = MAX_VALUE_BYTES - 1024
#: Chunks on their way to the store or from it at once.
CHUNKS_AT_ONCE = 8
#: A long poll is answered after this time at the latest, in seconds.
MAX_WAIT_S = 30.0


class FunctionTable:
    def __init__(self, store: MetadataStore, prefix: str) -> None:
        """Keys are ``<prefix><job>/<function>`` and ``<prefix><job>/<function>/<number of chunk>``; ``prefix`` ends
        with a slash."""
        self._store = store
        self._prefix = prefix
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._waiters: dict[bytes, set[asyncio.Future[None]]] = {}

    async def put(self, job_id: bytes, function_id: bytes, data: bytes) -> None:
        """Raises: InvalidRequest, Unavailable."""
        if len(function_id) != FUNCTION_LENGTH or job_of(function_id) != job_id:
            raise InvalidRequest(f"a function id has {FUNCTION_LENGTH} bytes, of which the first are its job's id")
        if len(data) > MAX_FUNCTION_BYTES:
            raise InvalidRequest(
                f"the function has {len(data)} bytes pickled, more than {MAX_FUNCTION_BYTES}: put the large objects it "
                "refers to into the object store and pass them as arguments"
            )
        try:
            row = gcs_pb2.FunctionRow(size_bytes=len(data))
            if len(data) <= CHUNK_BYTES:
                row.data = data
            else:
                row.chunks = await self._put_chunks(function_id, data)
            await self._store.put(self._key(function_id), row.SerializeToString(), expected_revision=0)
        except RevisionConflict:
            return  # a repeat: an id stands for the same bytes for ever
        except MetadataStoreError as error:
            raise Unavailable(str(error)) from error
        self._remember(function_id, data)
        for future in self._waiters.get(function_id, ()):
            if not future.done():
                future.set_result(None)

    async def get(self, function_id: bytes, wait_ms: int) -> bytes:
        """Raises: NotFound after ``wait_ms``, Unavailable, DataLoss."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(wait_ms / 1000, MAX_WAIT_S)
        future: asyncio.Future[None] = loop.create_future()
        # Registered before the store is read, so that no put falls between the two.
        self._waiters.setdefault(function_id, set()).add(future)
        try:
            while True:
                data = await self._read(function_id)
                if data is not None:
                    return data
                async with asyncio.timeout_at(deadline):
                    await future
        except TimeoutError:
            raise NotFound(
                f"function {function_id.hex()} is not known: its job has finished, or its driver has not stored it"
            ) from None
        finally:
            waiters = self._waiters[function_id]
            waiters.discard(future)
            if not waiters:
                del self._waiters[function_id]

    async def forget_job(self, job_id: bytes) -> None:
        for function_id in [i for i in self._cache if i.startswith(job_id)]:
            self._cached_bytes -= len(self._cache.pop(function_id))
        for key in await self._store.keys(f"{self._prefix}{job_id.hex()}/"):
            await self._store.delete(key)

    async def jobs(self) -> set[bytes]:
        """The jobs that have functions."""
        keys = await self._store.keys(self._prefix)
        return {bytes.fromhex(key.removeprefix(self._prefix).partition("/")[0]) for key in keys}

    async def _read(self, function_id: bytes) -> bytes | None:
        data = self._cache.get(function_id)
        if data is not None:
            self._cache.move_to_end(function_id)
            return data
        try:
            entry = await self._store.get(self._key(function_id))
            if entry is None:
                return None
            row = gcs_pb2.FunctionRow.FromString(entry.value)
            data = await self._get_chunks(function_id, row.chunks) if row.chunks else row.data
        except MetadataStoreError as error:
            raise Unavailable(str(error)) from error
        if len(data) != row.size_bytes:
            raise DataLoss(
                f"function {function_id.hex()} has {len(data)} of its {row.size_bytes} bytes in the metadata store: "
                "define it again"
            )
        self._remember(function_id, data)
        return data

    async def _put_chunks(self, function_id: bytes, data: bytes) -> int:
        pieces = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
        for first in range(0, len(pieces), CHUNKS_AT_ONCE):
            numbered = list(enumerate(pieces))[first : first + CHUNKS_AT_ONCE]
            await asyncio.gather(*(self._store.put(self._chunk_key(function_id, i), piece) for i, piece in numbered))
        return len(pieces)

    async def _get_chunks(self, function_id: bytes, count: int) -> bytes:
        pieces: list[bytes] = []
        for first in range(0, count, CHUNKS_AT_ONCE):
            numbers = range(first, min(first + CHUNKS_AT_ONCE, count))
            entries = await asyncio.gather(*(self._store.get(self._chunk_key(function_id, i)) for i in numbers))
            pieces += [entry.value for entry in entries if entry is not None]
        return b"".join(pieces)

    def _remember(self, function_id: bytes, data: bytes) -> None:
        if function_id in self._cache or len(data) > CACHE_BYTES:
            return
        self._cache[function_id] = data
        self._cached_bytes += len(data)
        while self._cached_bytes > CACHE_BYTES:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= len(dropped)

    def _key(self, function_id: bytes) -> str:
        return f"{self._prefix}{job_of(function_id).hex()}/{function_id.hex()}"

    def _chunk_key(self, function_id: bytes, number: int) -> str:
        return f"{self._key(function_id)}/{number}"
