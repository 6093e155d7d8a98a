"""Collects this process's garbage when a raylet asks for it."""

from __future__ import annotations

import gc
import threading


class GarbageCollection:
    """In a thread of its own: finalizers are the user's code, which no thread may run that others wait for."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Does not wait. Asked again meanwhile, it is under way already."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=gc.collect, name="shoal-garbage", daemon=True)
            self._thread.start()
