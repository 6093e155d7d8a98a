"""Many who ask share what is read, and nobody gets what was read before the question."""

from __future__ import annotations

import asyncio

import pytest

from shoal_dashboard.cluster.listing import Listing


class Source:
    """Counts readings, each of which ends when it is told to."""

    def __init__(self) -> None:
        self.readings = 0
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()

    async def read(self) -> int:
        self.readings += 1
        number = self.readings
        self.begun.set()
        await self.may_end.wait()
        return number


async def test_all_who_ask_before_it_is_read_share_one_reading() -> None:
    source = Source()
    listing = Listing(source.read)
    asking = [asyncio.create_task(listing.rows()) for _ in range(100)]
    source.may_end.set()
    assert await asyncio.gather(*asking) == [1] * 100
    await listing.close()


async def test_whoever_asks_while_it_is_read_gets_the_next_one() -> None:
    source = Source()
    listing = Listing(source.read)
    first = asyncio.create_task(listing.rows())
    await source.begun.wait()
    later = [asyncio.create_task(listing.rows()) for _ in range(10)]
    await asyncio.sleep(0)
    source.may_end.set()
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 10
    await listing.close()


async def test_one_who_gives_up_does_not_end_it_for_the_others() -> None:
    source = Source()
    listing = Listing(source.read)
    impatient, patient = asyncio.create_task(listing.rows()), asyncio.create_task(listing.rows())
    await source.begun.wait()
    impatient.cancel()
    source.may_end.set()
    assert await patient == 1
    await listing.close()


async def test_a_reading_that_fails_is_tried_again_by_the_next_question() -> None:
    answers = iter([ValueError("away"), 5])

    async def read() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    listing = Listing(read)
    with pytest.raises(ValueError, match="away"):
        await listing.rows()
    assert await listing.rows() == 5
    await listing.close()


async def test_who_does_not_wait_gets_what_was_read_last() -> None:
    source = Source()
    listing = Listing(source.read)
    first = asyncio.create_task(listing.recent(0.0))
    await source.begun.wait()
    source.may_end.set()
    assert await first == 1, "nothing was read before: it is waited for"
    source.may_end.clear()
    source.begun.clear()
    assert await listing.recent(0.0) == 1
    await source.begun.wait()
    assert await listing.recent(0.0) == 1, "what is read meanwhile is for those who come later"
    source.may_end.set()
    assert await listing.rows() >= 2
    await listing.close()
