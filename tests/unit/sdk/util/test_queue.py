"""The queue inside its actor, in a plain event loop."""

from __future__ import annotations

import asyncio
import pickle
import queue as stdlib

import pytest

from shoal.util.queue import Empty, Full, _QueueActor, _seconds


def test_errors_are_those_of_the_standard_library() -> None:
    assert issubclass(Empty, stdlib.Empty)
    assert issubclass(Full, stdlib.Full)
    assert isinstance(pickle.loads(pickle.dumps(Full("text"))), Full)


async def test_first_in_first_out() -> None:
    queue = _QueueActor(0)
    for item in range(5):
        await queue.put(item, None)
    assert await queue.qsize() == 5
    assert [await queue.get(None) for _ in range(5)] == list(range(5))
    assert await queue.empty()


async def test_without_waiting_there_is_what_there_is() -> None:
    queue = _QueueActor(1)
    with pytest.raises(Empty):
        await queue.get(0)
    await queue.put("item", 0)
    assert await queue.full()
    with pytest.raises(Full):
        await queue.put("another", 0)
    assert await queue.get(0) == "item"


async def test_consumer_waits_for_the_producer() -> None:
    queue = _QueueActor(0)
    waiting = asyncio.ensure_future(queue.get(None))
    await asyncio.sleep(0)
    assert not waiting.done()
    await queue.put("item", None)
    assert await waiting == "item"


async def test_producer_waits_for_room() -> None:
    queue = _QueueActor(1)
    await queue.put(1, None)
    waiting = asyncio.ensure_future(queue.put(2, None))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await queue.get(None) == 1
    await waiting
    assert await queue.get(None) == 2


async def test_waits_end_with_their_timeout() -> None:
    queue = _QueueActor(1)
    with pytest.raises(Empty):
        await queue.get(0.001)
    await queue.put(1, None)
    with pytest.raises(Full):
        await queue.put(2, 0.001)
    assert await queue.qsize() == 1


async def test_batches_are_all_or_nothing() -> None:
    queue = _QueueActor(3)
    await queue.put_nowait_batch([1, 2])
    with pytest.raises(Full, match="Cannot add 2 items to queue of size 2 and maxsize 3"):
        await queue.put_nowait_batch([3, 4])
    with pytest.raises(Empty, match="Cannot get 3 items from queue of size 2"):
        await queue.get_nowait_batch(3)
    assert await queue.get_nowait_batch(2) == [1, 2]


async def test_unlimited_queue_takes_any_batch() -> None:
    queue = _QueueActor(0)
    await queue.put_nowait_batch(list(range(1000)))
    assert await queue.qsize() == 1000


def test_how_long_to_wait() -> None:
    assert _seconds(False, 5) == 0
    assert _seconds(True, None) is None
    assert _seconds(True, 1.5) == 1.5
    with pytest.raises(ValueError, match="non-negative"):
        _seconds(True, -1)
