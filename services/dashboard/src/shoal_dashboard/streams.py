"""Pages as streams of server-sent events: all who watch the same page share one rendering of it.

A page is rendered every few seconds while somebody watches it, and sent when it has changed. There is one version of it
at a time and no queue: whoever reads slowly misses what lay between. Source: HTML Standard, 9.2 Server-sent events.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Send

from shoal_common.errors import NO_ANSWER
from shoal_common.service.background import Background

#: Between two renderings of a page, in seconds.
EVERY_S = 2.0
#: Of the time, that renderings of one page may take; what takes long is rendered less often.
SHARE = 0.25
#: Renderings at once.
AT_ONCE = 4
#: Something is sent at least so often, in seconds, as what lies between may hang up on the silent.
QUIET_S = 15.0
#: Streams at a time; whoever comes then is refused.
MAX_STREAMS = 500

#: As the protocol has them, which has fewer than Python.
_LINE_END = re.compile(r"\r\n|\r|\n")

Render = Callable[[], Awaitable[str]]


class Streams:
    """Belongs to one event loop."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._watched: dict[str, _Watched] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._background = Background()
        self._ended = False

    @property
    def are_full(self) -> bool:
        return sum(each.watchers for each in self._watched.values()) >= MAX_STREAMS

    def is_watched(self, key: str) -> bool:
        return key in self._watched

    async def follow(self, key: str, render: Render, seen: str = "") -> AsyncGenerator[bytes, None]:
        """Events ``page`` with what ``render`` returns, and ``away`` with the reason while the cluster does not answer.

        ``key``: of the page; the ``render`` of whoever came first is used. ``seen``: the id of the last event that the
        watcher has, which is not sent again.
        """
        watched = self._watched.get(key)
        if watched is None:
            watched = self._watched[key] = _Watched()
            watched.keeper = self._background.spawn(self._keep(watched, render))
        watched.watchers += 1
        try:
            while not self._ended:
                changed = watched.changed
                if watched.id not in ("", seen):
                    seen = watched.id
                    yield watched.event
                    continue
                try:
                    async with asyncio.timeout(QUIET_S):
                        await changed.wait()
                except TimeoutError:
                    yield b":\n\n"
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                watched.keeper.cancel()
                self._watched.pop(key, None)

    def end(self) -> None:
        """All that run end now; none begins any more."""
        self._ended = True
        for watched in self._watched.values():
            watched.changed.set()

    async def close(self) -> None:
        self.end()
        await self._background.stop()

    async def _keep(self, watched: _Watched, render: Render) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            async with self._turns:
                began = clock()
                try:
                    watched.show("page", await render())
                except NO_ANSWER as error:
                    watched.show("away", str(error))
                took = clock() - began
                # Within the turn: so all of them together leave time for whoever asks for a page.
                await asyncio.sleep(took / SHARE - took)
            await asyncio.sleep(self._every_s)


class _Watched:
    """One page, as it is now."""

    keeper: asyncio.Task[Any]

    def __init__(self) -> None:
        self.watchers = 0
        #: "" = it was not rendered yet.
        self.id = ""
        self.event = b""
        #: Set, and replaced, when it is another one.
        self.changed = asyncio.Event()

    def show(self, kind: str, text: str) -> None:
        id_ = f"{kind}-{zlib.crc32(text.encode()):08x}"
        if id_ == self.id:
            return
        lines = "".join(f"data: {line}\n" for line in _LINE_END.split(text))
        self.id, self.event = id_, f"id: {id_}\nevent: {kind}\n{lines}\n".encode()
        self.changed.set()
        self.changed = asyncio.Event()


class EventStream(StreamingResponse):
    """An answer that goes on: of what ``follow`` yields."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        # nginx keeps back what it forwards unless it is told not to.
        super().__init__(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._events = events

    async def stream_response(self, send: Send) -> None:
        async with contextlib.aclosing(self._events):
            await super().stream_response(send)
