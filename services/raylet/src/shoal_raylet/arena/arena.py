"""The node's shared memory: one memfd, mapped once by every process on the node.

A memfd does not depend on the size of /dev/shm (64 MB in a container by default) and vanishes with its
last user, so nothing leaks after a crash.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading

#: ``madvise`` advice since Linux 5.14: fault pages in for writing.
_MADV_POPULATE_WRITE = 23
_PREFAULT_CHUNK_BYTES = 16 * 1024 * 1024
#: Until then workers start, and need the processor more, in seconds.
_PREFAULT_AFTER_S = 0.3


class Arena:
    """``fd`` is handed to each process at its handshake, ``view`` is this process's own mapping."""

    def __init__(self, size: int) -> None:
        """``size`` in bytes, rounded up to whole pages."""
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self.fd = os.memfd_create("shoal-arena", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, self.size)
        self._map = mmap.mmap(self.fd, self.size)
        self.view = memoryview(self._map)
        self._stop = threading.Event()
        self._prefault: threading.Thread | None = None

    def start_prefault(self, size: int) -> None:
        """Fault the first ``size`` bytes in, from a thread of the lowest priority: first writes are then fast."""
        size = min(size, self.size)
        if size > 0:
            self._prefault = threading.Thread(target=self._populate, args=(size,), name="arena-prefault", daemon=True)
            self._prefault.start()

    def close(self) -> None:
        """Blocks for at most one chunk (some 15 ms). The memory lives on while another process maps it; the mapping,
        while a call that is being cancelled still has a view of it: a spill by way of the objectstore service has one
        until gRPC has let go of what it was to send."""
        self._stop.set()
        if self._prefault is not None:
            self._prefault.join()
        self.view.release()
        with contextlib.suppress(BufferError):
            self._map.close()
        os.close(self.fd)

    def _populate(self, size: int) -> None:
        # Linux keeps the nice value per thread. An old kernel or a seccomp filter may refuse either call:
        # the pages are then faulted in by the first writer, which is slower and nothing else.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        self._stop.wait(_PREFAULT_AFTER_S)
        libc = ctypes.CDLL(None, use_errno=True)
        first = ctypes.c_char.from_buffer(self._map)
        base = ctypes.addressof(first)
        del first
        for start in range(0, size, _PREFAULT_CHUNK_BYTES):
            length = min(_PREFAULT_CHUNK_BYTES, size - start)
            if self._stop.is_set() or libc.madvise(
                ctypes.c_void_p(base + start), ctypes.c_size_t(length), _MADV_POPULATE_WRITE
            ):
                return
