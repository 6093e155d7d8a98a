"""The file that holds one blob: its bytes and the footer; of one that is appended to, its bytes so far.

Readers and writers work in threads, and a thread cannot be cancelled with the task that waits for it. So each has a
lock: closing waits for the operation under way, and what comes after it is refused.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import BinaryIO

from shoal_common.blob.checksums import Manifest, ManifestBuilder, RangeChecker
from shoal_common.blob.footer import TRAILER_BYTES, decode_footer, encode_footer, footer_size
from shoal_common.errors import DataLoss, NotFound

#: Ends the file name of every blob. No key contains it, so that "a" and "a/b" may both exist.
SUFFIX = "%"
#: Of a blob that a process of this machine appends to. It has no checksums: what is in it says by itself what is whole.
APPENDED_SUFFIX = "%+"
#: Summed up in one go.
_STEP_BYTES = 1024 * 1024


def appended_path(root: Path, key: str) -> Path:
    """Where a process appends to a blob itself, that others read, list and delete with those of this directory."""
    return root / (key + APPENDED_SUFFIX)


class BlobWriter:
    """Writes one blob to ``path``, where nothing must be yet; touches the disk with the first call only."""

    def __init__(self, path: Path, manifest: ManifestBuilder) -> None:
        self._path = path
        self._manifest = manifest
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._discarded = False

    def append(self, chunk: bytes | memoryview) -> None:
        """Raises: InvalidRequest when the blob is longer than its sections, OSError."""
        with self._lock:
            self._manifest.feed(chunk)
            _write_all(self._opened(), chunk)

    def finish(self) -> Manifest:
        """Complete the file. Raises: InvalidRequest when the blob is shorter than its sections, OSError."""
        with self._lock:
            manifest = self._manifest.finish()
            _write_all(self._opened(), encode_footer(manifest))
            return manifest

    def discard(self) -> None:
        """Close, and remove the file if it is still at ``path``."""
        with self._lock:
            self._discarded = True
            if self._file is not None:
                self._file.close()
                self._path.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._discarded:
            raise OSError(f"the upload {self._path} was given up")
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = self._path.open("xb", buffering=0)
        return self._file


class BlobReader:
    """Reads one blob's file; opened by ``manifest``, which comes first."""

    def __init__(self, key: str, root: Path) -> None:
        self._key = key
        self._root = root
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._closed = False

    def manifest(self) -> Manifest:
        """Raises: NotFound, DataLoss when the file is not as it was written, OSError."""
        with self._lock:
            if self._closed:
                raise OSError(f"the read of {self._key} was given up")
            with contextlib.suppress(FileNotFoundError):
                self._file = (self._root / (self._key + SUFFIX)).open("rb", buffering=0)
                return _read_manifest(self._key, self._file)
            with contextlib.suppress(FileNotFoundError):
                self._file = appended_path(self._root, self._key).open("rb", buffering=0)
                return _sum_up(self._key, self._file)
            raise NotFound(f"there is no blob {self._key}: it was never stored, or deleted")

    def read(self, offset: int, length: int, checker: RangeChecker) -> bytes:
        """Raises: DataLoss when a section ends here whose checksum does not match, OSError."""
        with self._lock:
            if self._file is None or self._closed:
                raise OSError(f"the read of {self._key} was given up")
            chunk = os.pread(self._file.fileno(), length, offset)
            checker.feed(chunk)
            return chunk

    def read_into(self, target: memoryview, offset: int, checker: RangeChecker) -> int:
        """How many bytes there were. Raises: as ``read``, DataLoss at the end of the file."""
        with self._lock:
            if self._file is None or self._closed:
                raise OSError(f"the read of {self._key} was given up")
            length = os.preadv(self._file.fileno(), [target], offset)
            if not length:
                raise DataLoss(f"{self._key} is damaged: its file ends early")
            with target[:length] as read:
                checker.feed(read)
            return length

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()


def _read_manifest(key: str, file: BinaryIO) -> Manifest:
    stored_bytes = file.seek(0, os.SEEK_END)
    end = os.pread(file.fileno(), TRAILER_BYTES, max(0, stored_bytes - TRAILER_BYTES))
    length = footer_size(key, end, stored_bytes)
    return decode_footer(key, os.pread(file.fileno(), length, stored_bytes - length), stored_bytes)


def _sum_up(key: str, file: BinaryIO) -> Manifest:
    """Of what has been appended so far."""
    manifest = ManifestBuilder(key, ())
    while chunk := file.read(_STEP_BYTES):
        manifest.feed(chunk)
    return manifest.finish()


def _write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    written = 0
    with memoryview(data) as view:
        while written < len(view):
            written += file.write(view[written:])
