from __future__ import annotations

import asyncio

import pytest

from shoal_raylet.workers.function_cache import FunctionCache


async def test_those_who_ask_at_once_share_one_fetch() -> None:
    asked: list[bytes] = []
    go = asyncio.Event()

    async def fetch(function_id: bytes) -> bytes:
        asked.append(function_id)
        await go.wait()
        return b"data"

    cache = FunctionCache(fetch)
    askers = [asyncio.create_task(cache.get(b"f")) for _ in range(3)]
    await asyncio.sleep(0)
    # One of them loses interest; the others do not.
    askers[0].cancel()
    go.set()
    assert await asyncio.gather(*askers[1:]) == [b"data", b"data"]
    assert (asked, cache.peek(b"f")) == ([b"f"], b"data")


async def test_a_failed_fetch_is_not_remembered() -> None:
    answers: list[bytes | Exception] = [LookupError("not yet"), b"data"]

    async def fetch(_: bytes) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache = FunctionCache(fetch)
    with pytest.raises(LookupError):
        await cache.get(b"f")
    assert await cache.get(b"f") == b"data"


async def test_what_was_not_used_longest_goes_first() -> None:
    async def fetch(function_id: bytes) -> bytes:
        return function_id * 10

    cache = FunctionCache(fetch, capacity=30)
    for name in (b"a", b"b", b"c"):
        await cache.get(name)
    cache.peek(b"a")
    await cache.get(b"d")
    assert [cache.peek(name) is not None for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    await cache.get(b"larger than all")
    assert cache.peek(b"larger than all") is None and cache.peek(b"a") is not None
