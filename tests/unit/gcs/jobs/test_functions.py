"""The function table on a store: in one piece or in chunks, there when all of it is."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shoal_common import function_chunks
from shoal_common.errors import DataLoss, InvalidRequest, NotFound
from shoal_common.function_chunks import CHUNK_BYTES, MAX_FUNCTION_BYTES
from shoal_common.metadata.sqlite import SqliteMetadataStore
from shoal_gcs.jobs import functions as module
from shoal_gcs.jobs.functions import FunctionTable
from shoal_proto.v1.gcs_pb2 import FunctionRow

JOB, OTHER = b"job1", b"job2"
FUNCTION = JOB + b"f" * 16
SMALL = FunctionRow(data=b"code", size_bytes=4)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteMetadataStore]:
    store = SqliteMetadataStore(tmp_path / "store", flushed=False)
    yield store
    await store.close()


@pytest.fixture
def table(store: SqliteMetadataStore) -> FunctionTable:
    return FunctionTable(store, "function/")


async def test_who_asks_early_waits_for_it(table: FunctionTable) -> None:
    waiting = asyncio.ensure_future(table.get(FUNCTION, 10_000))
    await table.put(JOB, FUNCTION, SMALL)
    assert await waiting == SMALL
    await table.put(JOB, FUNCTION, FunctionRow(data=b"an id stands for the same bytes", size_bytes=1))
    assert await table.get(FUNCTION, 0) == SMALL


async def test_a_large_one_is_there_with_the_row_that_counts_its_chunks(
    table: FunctionTable, store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CACHE_BYTES", CHUNK_BYTES * 3 // 2)  # one of them
    data = b"".join(bytes([number]) * CHUNK_BYTES for number in range(3)) + b"rest"
    chunks = function_chunks.split(data)
    for number, chunk in enumerate(chunks, 1):
        await table.put_chunk(JOB, FUNCTION, number, chunk)
        with pytest.raises(NotFound):
            await table.get(FUNCTION, 0)
    await table.put(JOB, FUNCTION, FunctionRow(chunks=len(chunks), size_bytes=len(data)))
    for reader in (table, FunctionTable(store, "function/")):
        row = await reader.get(FUNCTION, 0)
        assert row.chunks == 4
        found = [await reader.get_chunk(FUNCTION, number) for number in range(1, row.chunks + 1)]
        assert function_chunks.join(FUNCTION, found, row.size_bytes) == data
    with pytest.raises(DataLoss, match="define it again"):
        function_chunks.join(FUNCTION, found[:-1], row.size_bytes)


async def test_with_its_job_all_of_it_goes(table: FunctionTable) -> None:
    await table.put_chunk(JOB, FUNCTION, 1, b"code")
    await table.put(JOB, FUNCTION, FunctionRow(chunks=1, size_bytes=4))
    await table.put(OTHER, OTHER + b"f" * 16, SMALL)
    assert await table.jobs() == {JOB, OTHER}
    await table.forget_job(JOB)
    assert await table.jobs() == {OTHER}
    for gone in (table.get(FUNCTION, 0), table.get_chunk(FUNCTION, 1)):
        with pytest.raises(NotFound, match="its job has finished"):
            await gone


async def test_what_it_does_not_take(table: FunctionTable) -> None:
    for refused, why in (
        (table.put(OTHER, FUNCTION, SMALL), "are its job's id"),
        (table.put(JOB, FUNCTION, FunctionRow(data=b"x" * (CHUNK_BYTES + 1))), "must come in chunks"),
        (table.put(JOB, FUNCTION, FunctionRow(size_bytes=MAX_FUNCTION_BYTES + 1, chunks=101)), "put the large objects"),
        (table.put_chunk(JOB, FUNCTION, 1, b"x" * (CHUNK_BYTES + 1)), "must come in chunks"),
        (table.put_chunk(JOB, FUNCTION, 0, b"x"), "at most"),
        (table.put_chunk(JOB, FUNCTION, 10_000, b"x"), "at most"),
    ):
        with pytest.raises(InvalidRequest, match=why):
            await refused


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_chunks_are_all_of_it_in_order(size: int) -> None:
    data = bytes(itertools.islice(itertools.cycle(range(256)), size))
    chunks = function_chunks.split(data)
    assert bool(chunks) == (size > CHUNK_BYTES)
    assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)
    assert function_chunks.join(FUNCTION, chunks or [data], size) == data
