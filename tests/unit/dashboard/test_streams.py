"""Pages as streams: one rendering for all who watch, sent when it has changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from shoal_common.errors import Unavailable
from shoal_dashboard.streams import Streams


class Page:
    """``shown`` is what it is now; an error is raised."""

    def __init__(self, shown: str | Unavailable) -> None:
        self.shown = shown
        self.rendered = 0

    async def render(self) -> str:
        self.rendered += 1
        if isinstance(self.shown, Unavailable):
            raise self.shown
        return self.shown


async def next_of(events: AsyncGenerator[bytes, None]) -> list[str]:
    async with asyncio.timeout(60):
        return (await anext(events)).decode().split("\n")[:-1]


async def ended(streams: Streams, *events: AsyncGenerator[bytes, None]) -> None:
    for each in events:
        await each.aclose()
    assert not streams.is_watched("a"), "nobody renders for nobody"
    await streams.close()


def test_all_who_watch_get_the_same_rendering_when_it_has_changed() -> None:
    async def check() -> None:
        streams, page = Streams(every_s=0), Page("first\r\nsecond\x0b half\r")
        one, two = streams.follow("a", page.render), streams.follow("a", page.render)
        id_, *lines = await next_of(one)
        assert id_.startswith("id: page-")
        assert lines == ["event: page", "data: first", "data: second\x0b half", "data: ", ""]
        assert await next_of(two) == [id_, *lines]
        rendered, page.shown = page.rendered, "other"
        assert (await next_of(one))[2:] == ["data: other", ""]
        assert (await next_of(two))[2:] == ["data: other", ""]
        assert page.rendered > rendered
        again = streams.follow("a", page.render)
        late = streams.follow("a", page.render, seen=(await next_of(again))[0].removeprefix("id: "))
        page.shown = "new"
        assert (await next_of(late))[2] == "data: new", "what it has already is not sent again"
        await ended(streams, one, two, again, late)

    asyncio.run(check())


def test_who_watches_is_told_that_the_cluster_is_away() -> None:
    async def check() -> None:
        streams, page = Streams(every_s=0), Page("there")
        events = streams.follow("a", page.render)
        await next_of(events)
        page.shown = Unavailable("nobody listens")
        assert (await next_of(events))[1:3] == ["event: away", "data: nobody listens"]
        page.shown = "there"
        assert (await next_of(events))[1:3] == ["event: page", "data: there"]
        await ended(streams, events)

    asyncio.run(check())


def test_streams_end_with_the_service() -> None:
    async def check() -> None:
        streams, page = Streams(every_s=0), Page("there")
        events = streams.follow("a", page.render)
        await next_of(events)
        streams.end()
        assert [event async for event in events] == []
        await ended(streams)

    asyncio.run(check())
