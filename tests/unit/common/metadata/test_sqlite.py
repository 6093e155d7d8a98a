"""The thread of the SQLite store: whoever waits for it is answered, whatever goes wrong in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shoal_common.metadata import MetadataStoreError
from shoal_common.metadata import sqlite as module
from shoal_common.metadata.sqlite import SqliteMetadataStore

#: Only a failure takes so long, in seconds.
LONG = 10.0


@pytest.fixture(params=[True, False], ids=["flushed", "not flushed"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqliteMetadataStore]:
    store = SqliteMetadataStore(tmp_path / "store", flushed=request.param)
    yield store
    await store.close()


async def test_a_defect_fails_its_batch_and_the_next_one_is_served(
    store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put("k", b"before")
    with monkeypatch.context() as broken:
        broken.setattr(module._Database, "put", lambda *_: 1 / 0)
        with pytest.raises(MetadataStoreError, match="ZeroDivisionError"):
            await asyncio.wait_for(store.put("k", b"lost"), LONG)
    await asyncio.wait_for(store.put("l", b"after"), LONG)
    assert [entry.value for entry in await store.scan("")] == [b"before", b"after"]
