"""What dead workers of this node have left for their callers: kept for a while, and handed to whoever asks.

Callers on other nodes cannot read the file, and those on this node cannot tell when the last of them has read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from shoal_common.last_replies import SIZE, path_of

#: Callers have asked by then, in seconds: they do so when their connection ends.
KEPT_S = 60.0


class LastReplies:
    """Belongs to one event loop."""

    def __init__(self, session_dir: str) -> None:
        self._session_dir = session_dir
        self._loop = asyncio.get_running_loop()
        self._timers: dict[bytes, asyncio.TimerHandle] = {}

    def of(self, worker_id: bytes) -> bytes:
        """Empty: it was no actor's worker, or had nothing to hold back, or that is too long ago."""
        try:
            with open(path_of(self._session_dir, worker_id), "rb") as file:
                return file.read(SIZE)
        except OSError:
            return b""

    def worker_ended(self, worker_id: bytes) -> None:
        self._timers[worker_id] = self._loop.call_later(KEPT_S, self._remove, worker_id)

    def stop(self) -> None:
        for worker_id, timer in list(self._timers.items()):
            timer.cancel()
            self._remove(worker_id)

    def _remove(self, worker_id: bytes) -> None:
        del self._timers[worker_id]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path_of(self._session_dir, worker_id))
