"""The file that holds one blob: its bytes, the manifest (msgpack), and a trailer with the manifest's length.

Blob and checksums so appear in one atomic rename, and a file that was cut short is noticed.

Readers and writers work in threads, and a thread cannot be cancelled with the task that waits for it. So each has a
lock: closing waits for the operation under way, and what comes after it is refused.
"""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path
from typing import BinaryIO

import msgspec

from shoal_common.blob.checksums import Manifest, ManifestBuilder, RangeChecker
from shoal_common.errors import DataLoss, NotFound

_TRAILER = struct.Struct("<I8s")
_MAGIC = b"shoalblb"


class BlobWriter:
    """Writes one blob to ``path``, where nothing must be yet; touches the disk with the first call only."""

    def __init__(self, path: Path, manifest: ManifestBuilder) -> None:
        self._path = path
        self._manifest = manifest
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._discarded = False

    def append(self, chunk: bytes) -> None:
        """Raises: InvalidRequest when the blob is longer than its sections, OSError."""
        with self._lock:
            self._manifest.feed(chunk)
            _write_all(self._opened(), chunk)

    def finish(self) -> Manifest:
        """Complete the file. Raises: InvalidRequest when the blob is shorter than its sections, OSError."""
        with self._lock:
            manifest = self._manifest.finish()
            encoded = msgspec.msgpack.encode(manifest)
            _write_all(self._opened(), encoded + _TRAILER.pack(len(encoded), _MAGIC))
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

    def __init__(self, key: str, path: Path) -> None:
        self._key = key
        self._path = path
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._closed = False

    def manifest(self) -> Manifest:
        """Raises: NotFound, DataLoss when the file is not as it was written, OSError."""
        with self._lock:
            if self._closed:
                raise OSError(f"the read of {self._key} was given up")
            try:
                self._file = self._path.open("rb", buffering=0)
            except FileNotFoundError:
                raise NotFound(f"there is no blob {self._key}: it was never stored, or deleted") from None
            return _read_manifest(self._key, self._file)

    def read(self, offset: int, length: int, checker: RangeChecker) -> bytes:
        """Raises: DataLoss when a section ends here whose checksum does not match, OSError."""
        with self._lock:
            if self._file is None or self._closed:
                raise OSError(f"the read of {self._key} was given up")
            chunk = os.pread(self._file.fileno(), length, offset)
            checker.feed(chunk)
            return chunk

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()


def size_of(key: str, path: Path) -> int:
    """The blob's size; of a damaged one that of its file, so that it can still be seen and deleted."""
    with path.open("rb", buffering=0) as file:
        try:
            return _read_trailer(key, file)[0]
        except DataLoss:
            return file.seek(0, os.SEEK_END)


def _read_trailer(key: str, file: BinaryIO) -> tuple[int, int]:
    """(size of the blob, length of its manifest)"""
    size = file.seek(0, os.SEEK_END)
    raw = os.pread(file.fileno(), _TRAILER.size, max(0, size - _TRAILER.size))
    if len(raw) == _TRAILER.size:
        length, magic = _TRAILER.unpack(raw)
        blob_bytes = size - _TRAILER.size - length
        if magic == _MAGIC and blob_bytes >= 0:
            return blob_bytes, length
    raise DataLoss(f"{key} is damaged: its file does not end as it was written")


def _read_manifest(key: str, file: BinaryIO) -> Manifest:
    size_bytes, length = _read_trailer(key, file)
    try:
        manifest = msgspec.msgpack.decode(os.pread(file.fileno(), length, size_bytes), type=Manifest)
    except msgspec.DecodeError as error:
        raise DataLoss(f"{key} is damaged: its checksums cannot be read") from error
    if manifest.size_bytes != size_bytes or len(manifest.sizes) != len(manifest.sums):
        raise DataLoss(
            f"{key} is damaged: it has {size_bytes} bytes and not the {manifest.size_bytes} that were stored"
        )
    return manifest


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
