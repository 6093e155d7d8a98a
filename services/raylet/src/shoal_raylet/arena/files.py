"""Files for the objects that find no room in the arena. Their bytes are reserved when they are made."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
from pathlib import Path

from shoal_raylet.objects.errors import out_of_disk


class DiskFull(Exception):
    """The text says how much is left."""


class FallbackFiles:
    """The directory is this node's alone, and removed with it.

    All but ``map`` may block: an unlink gives back what may be gigabytes, and where a file system has no
    ``fallocate``, the bytes are written one block after the other.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def make(self, path: str, size: int) -> None:
        """A file that was only truncated to its size would kill its writer with SIGBUS when the disk fills up.

        Raises: DiskFull, OSError.
        """
        try:
            self._make(path, size)
        except OSError as error:
            self.remove(path)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(out_of_disk(os.fspath(self.directory), self._free())) from error
            raise

    def _make(self, path: str, size: int) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)

    def map(self, path: str, size: int) -> mmap.mmap:
        """Raises: OSError."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            return mmap.mmap(fd, size)
        finally:
            os.close(fd)

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def close(self) -> None:
        """Remove all. Processes that map a file keep it until they end."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _free(self) -> int:
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize
