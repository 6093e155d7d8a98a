"""Memory that a service has freed is given back to the system, some time after.

glibc keeps what is freed for what comes next: in an arena for each thread that allocates at the same time, and for good
where something small lies behind it. An objectstore service that needs 20 MiB had 130 after a GiB of blobs in and out,
four at a time. With one arena for all threads it had 85, and 28 when that was trimmed, in as much processor time; of
several arenas, trimming leaves the ends. Rejected was to have glibc give back at once (MALLOC_MMAP_THRESHOLD_,
MALLOC_TRIM_THRESHOLD_): 40 MiB in twice the time, as fresh pages have to be cleared.
"""

from __future__ import annotations

import asyncio
import ctypes
import mmap
from pathlib import Path

#: Between two looks, in seconds.
LOOK_EVERY_S = 15.0
#: Growth since the last time for which it is worth the milliseconds that it takes, in bytes.
WORTH_BYTES = 8 * 1024 * 1024


#: `mallopt`'s number of it.
_M_ARENA_MAX = -8


class Growth:
    """When it is to be done again. Pure."""

    def __init__(self) -> None:
        self._kept: int | None = None

    def is_worth_it(self, used: int) -> bool:
        """``used``: memory of this process's own now, in bytes. The first look is only the beginning."""
        if self._kept is None or used < self._kept:
            self._kept = used
        return used >= self._kept + WORTH_BYTES

    def given_back(self, used: int) -> None:
        """``used``: afterwards."""
        self._kept = used


def use_one_arena() -> None:
    """Before there are threads. Nothing where the C library is another."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(ctypes.c_int(_M_ARENA_MAX), ctypes.c_int(1))


async def give_back() -> None:
    """Until it is cancelled; returns where the C library is another."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return
    growth = Growth()
    while True:
        if growth.is_worth_it(_used()):
            await asyncio.to_thread(trim, ctypes.c_size_t(0))
            growth.given_back(_used())
        await asyncio.sleep(LOOK_EVERY_S)


def _used() -> int:
    """Resident memory that is not shared, in bytes: without the arena."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * mmap.PAGESIZE
