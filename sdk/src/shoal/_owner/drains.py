"""Who in this process wants to know that its node is going to leave the cluster."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from shoal_common.channel import frames

_logger = logging.getLogger("shoal")

#: Called with the time by which the node will have left, in seconds since the epoch; None = nobody has said.
DrainCallback = Callable[[float | None], object]


class Drains:
    """Callbacks are the user's code: each runs in a thread of its own, which nobody waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[DrainCallback] = []
        self._news: frames.NodeDrains | None = None

    def add(self, callback: DrainCallback) -> None:
        """Called at once when the node is leaving already."""
        with self._lock:
            self._callbacks.append(callback)
            news = self._news
        if news is not None:
            _call(callback, news)

    def on_news(self, message: frames.NodeDrains) -> None:
        with self._lock:
            self._news, callbacks = message, list(self._callbacks)
        for callback in callbacks:
            _call(callback, message)


def _call(callback: DrainCallback, news: frames.NodeDrains) -> None:
    deadline = news.deadline_unix_ms / 1000 or None

    def run() -> None:
        try:
            callback(deadline)
        except Exception:  # the user's code, which raises what it likes
            _logger.exception("A callback of on_drain failed: %r", callback)

    threading.Thread(target=run, name="shoal-drain", daemon=True).start()
