"""Memory of long values that were let go of stays with the process for a moment, for the next ones.

By itself glibc gives most of it back to the system at once, and the next values take it anew, with a fault for each
page. That costs two to six times as much as the copy, and far more on a virtual machine whose host has to find the
memory first. So while long values are made, glibc keeps some of it; when none was made for `KEPT_S` it gives
back what is free, but for up to 64 MiB at the end of the heap of another thread than the main one, which go when that
thread lets go of something long. Where a program has set one of `SETTINGS` itself nothing is done.
"""

from __future__ import annotations

import ctypes
import os
import time

#: Shorter values come out of memory that glibc keeps anyway; in bytes.
LONG_BYTES = 128 * 1024
#: A driver, which is where lists of results come together, keeps at most so much that is free, and such a share of the
#: memory that there is for it.
DRIVER_BYTES = 256 * 1024 * 1024
DRIVER_SHARE = 1 / 16
#: As much as glibc keeps by itself once 32 MiB have been freed in one piece: a worker, of which a node has many and
#: whose memory may be limited, no more.
USUAL_BYTES = 64 * 1024 * 1024
#: How long after the last one, in seconds: as jemalloc does.
KEPT_S = 10.0
#: Variables by which a program says itself what glibc keeps.
SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")

#: `mallopt`'s numbers: what is free at the end of the heap and kept; what is taken from the system for itself.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
#: The most that `mallopt` takes, and that glibc comes to by itself.
_MMAP_THRESHOLD_BYTES = 32 * 1024 * 1024


class KeptMemory:
    """When to keep and when to give back. Thread-safe as far as it must be: what races with the end is given back after
    the next one."""

    def __init__(self, heap: Heap | None) -> None:
        """``heap``: None = nothing is to be done."""
        self._heap = heap
        #: At most so much is kept, in bytes.
        self.limit = USUAL_BYTES
        #: When the last long value was made; 0 = nothing is kept.
        self._made_at = 0.0

    def made(self, now: float) -> None:
        """A long value is about to be made. ``now`` as of ``time.monotonic``."""
        if self._heap is not None:
            if not self._made_at:
                self._heap.keep(self.limit)
            self._made_at = now

    def tick(self, now: float) -> None:
        """Now and then."""
        if self._made_at and self._heap is not None and now - self._made_at > KEPT_S:
            self._made_at = 0.0
            self._heap.give_back()


class Heap:
    """glibc's."""

    def __init__(self, libc: ctypes.CDLL) -> None:
        self._libc = libc

    def keep(self, limit: int) -> None:
        self._libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        self._libc.mallopt(_M_TRIM_THRESHOLD, limit)

    def give_back(self) -> None:
        self._libc.mallopt(_M_TRIM_THRESHOLD, USUAL_BYTES)
        self._libc.malloc_trim(ctypes.c_size_t(0))


def _this_process() -> KeptMemory:
    libc = ctypes.CDLL(None)
    ours = hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")  # where the C library is another they are missing
    return KeptMemory(Heap(libc) if ours and not any(name in os.environ for name in SETTINGS) else None)


_kept = _this_process()


def driver(available: int) -> None:
    """This process is a driver. ``available``: bytes of memory that there are for it."""
    _kept.limit = min(DRIVER_BYTES, int(available * DRIVER_SHARE))


def made() -> None:
    """A long value, or many shorter ones, are about to be made."""
    _kept.made(time.monotonic())


def tick(now: float) -> None:
    """Now and then, where no lock is held."""
    _kept.tick(now)
