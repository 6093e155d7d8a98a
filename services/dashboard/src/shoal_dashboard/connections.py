"""Connections over HTTP, which strangers cannot hold: whoever does not send the head of a request in time is hung up
on, and where many wait so, whoever has waited longest."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

#: The head of a request is there by then, in seconds.
HEAD_S = 10.0
#: Connections without one, at a time.
MAX_WAITING = 128


class Connection(H11Protocol):
    """uvicorn's own waits for the first head, and for the rest of one, for ever."""

    #: Of this process, the longest waiting first, with when each is late.
    _waiting: ClassVar[dict[Connection, asyncio.TimerHandle]] = {}

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        runs = self.cycle is not None and not self.cycle.response_complete
        if runs or self.transport.get_protocol() is not self:  # a web socket now
            self._wait_no_more()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """As long as it began to."""
        if self in self._waiting or self.transport.is_closing():
            return
        if len(self._waiting) >= MAX_WAITING:
            next(iter(self._waiting))._give_up()
        self._waiting[self] = self.loop.call_later(HEAD_S, self._give_up)

    def _wait_no_more(self) -> None:
        late = self._waiting.pop(self, None)
        if late is not None:
            late.cancel()

    def _give_up(self) -> None:
        self._wait_no_more()
        self.transport.abort()
