"""The function table: pickled functions and classes under their ids, one copy a job.

One that is too large for a value of the metadata store comes in chunks, which are written before the row that counts
them: a row is there when all of it is. What a driver that is killed leaves of chunks goes with the job's others.

They are written once and never change, so the cache needs no invalidation; it is bounded, and what fell out of it is
read from the store again. Raylets cache too: the GCS is asked about once per function and node.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict

from google.protobuf.message import DecodeError

from shoal_common.errors import DataLoss, InvalidRequest, NotFound, Unavailable
from shoal_common.function_chunks import CHUNK_BYTES, MAX_FUNCTION_BYTES
from shoal_common.ids import FUNCTION_LENGTH, job_of
from shoal_common.metadata import MetadataStore, MetadataStoreError, RevisionConflict
from shoal_proto.v1 import gcs_pb2

CACHE_BYTES = 64 * 1024 * 1024
#: A long poll is answered after this time at the latest, in seconds.
MAX_WAIT_S = 30.0
_MAX_CHUNKS = -(-MAX_FUNCTION_BYTES // CHUNK_BYTES)


class FunctionTable:
    def __init__(self, store: MetadataStore, prefix: str) -> None:
        """Keys are ``<prefix><job>/<function>`` and ``<prefix><job>/<function>/<number of chunk>``; ``prefix`` ends
        with a slash."""
        self._store = store
        self._prefix = prefix
        #: By key.
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached_bytes = 0
        self._waiters: dict[bytes, set[asyncio.Future[None]]] = {}

    async def put(self, job_id: bytes, function_id: bytes, row: gcs_pb2.FunctionRow) -> None:
        """A function, whose chunks are here. Raises: InvalidRequest, Unavailable."""
        self._check(job_id, function_id, len(row.data))
        if row.size_bytes > MAX_FUNCTION_BYTES:
            raise InvalidRequest(
                f"the function has {row.size_bytes} bytes pickled, more than {MAX_FUNCTION_BYTES}: put the large "
                "objects it refers to into the object store and pass them as arguments"
            )
        await self._write(self._key(function_id), row.SerializeToString())
        for future in self._waiters.get(function_id, ()):
            if not future.done():
                future.set_result(None)

    async def put_chunk(self, job_id: bytes, function_id: bytes, number: int, data: bytes) -> None:
        """``number`` from 1. Raises: InvalidRequest, Unavailable."""
        self._check(job_id, function_id, len(data))
        if not 1 <= number <= _MAX_CHUNKS:
            raise InvalidRequest(f"a function has at most {_MAX_CHUNKS} chunks, and this is number {number}")
        await self._write(self._key(function_id, number), data)

    async def get(self, function_id: bytes, wait_ms: int) -> gcs_pb2.FunctionRow:
        """Raises: NotFound after ``wait_ms``, Unavailable, DataLoss."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(wait_ms / 1000, MAX_WAIT_S)
        future: asyncio.Future[None] = loop.create_future()
        # Registered before the store is read, so that no put falls between the two.
        self._waiters.setdefault(function_id, set()).add(future)
        try:
            while True:
                data = await self._read(self._key(function_id))
                if data is not None:
                    return self._parsed(function_id, data)
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

    def _parsed(self, function_id: bytes, data: bytes) -> gcs_pb2.FunctionRow:
        with contextlib.suppress(DecodeError):
            row = gcs_pb2.FunctionRow.FromString(data)
            if row.data or row.chunks:
                return row
        raise DataLoss(
            f"function {function_id.hex()} is damaged in the metadata store: {self._key(function_id)} is no row of "
            "Shoal's. Restore it from a backup, or run the driver again"
        )

    async def get_chunk(self, function_id: bytes, number: int) -> bytes:
        """Raises: NotFound, Unavailable."""
        data = await self._read(self._key(function_id, number))
        if data is None:
            raise NotFound(f"function {function_id.hex()} has no chunk {number}: its job has finished")
        return data

    async def forget_job(self, job_id: bytes) -> None:
        prefix = f"{self._prefix}{job_id.hex()}/"
        for key in [key for key in self._cache if key.startswith(prefix)]:
            self._cached_bytes -= len(self._cache.pop(key))
        for key in await self._store.keys(prefix):
            await self._store.delete(key)

    async def jobs(self) -> set[bytes]:
        """The jobs that have functions."""
        keys = await self._store.keys(self._prefix)
        return {bytes.fromhex(key.removeprefix(self._prefix).partition("/")[0]) for key in keys}

    @staticmethod
    def _check(job_id: bytes, function_id: bytes, size: int) -> None:
        if len(function_id) != FUNCTION_LENGTH or job_of(function_id) != job_id:
            raise InvalidRequest(f"a function id has {FUNCTION_LENGTH} bytes, of which the first are its job's id")
        if size > CHUNK_BYTES:
            raise InvalidRequest(f"a function of {size} bytes must come in chunks of at most {CHUNK_BYTES}")

    async def _write(self, key: str, data: bytes) -> None:
        """Raises: Unavailable."""
        try:
            await self._store.put(key, data, expected_revision=0)
        except RevisionConflict:
            return  # a repeat: an id stands for the same bytes for ever
        except MetadataStoreError as error:
            raise Unavailable(str(error)) from error
        self._remember(key, data)

    async def _read(self, key: str) -> bytes | None:
        """Raises: Unavailable."""
        data = self._cache.get(key)
        if data is not None:
            self._cache.move_to_end(key)
            return data
        try:
            entry = await self._store.get(key)
        except MetadataStoreError as error:
            raise Unavailable(str(error)) from error
        if entry is None:
            return None
        self._remember(key, entry.value)
        return entry.value

    def _remember(self, key: str, data: bytes) -> None:
        if key in self._cache:
            return
        self._cache[key] = data
        self._cached_bytes += len(data)
        while self._cached_bytes > CACHE_BYTES:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= len(dropped)

    def _key(self, function_id: bytes, chunk: int = 0) -> str:
        key = f"{self._prefix}{job_of(function_id).hex()}/{function_id.hex()}"
        return f"{key}/{chunk}" if chunk else key
